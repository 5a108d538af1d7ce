"""`/v2/token` and the challenges that lead to it: how `docker login`, podman, skopeo and buildah sign in.

GET with Basic (Docker's token authentication) or POST with a form (its OAuth2 variant); the password is an API token.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from portal.images import grants
from portal.images.asgi_http import Incoming, Scope, body, query_of
from portal.images.registry import Call, RegistryError
from portal.images.tokens import PULL_TOKEN_S
from portal.threads import in_thread

SERVICE = "moorage"
FORM_BYTES = 64 << 10
_ACTIONS = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}


def action_of(call: Call, method: str) -> str:
    """What a request needs in its repository; an upload's owner may ask for it and cancel it."""
    if call.kind in ("begin", "upload"):
        return "push"
    return _ACTIONS.get(method, "push")


def challenge(scope: Scope, headers: dict[str, str], call: Call | None) -> str:
    """Where to get a token, and for what (distribution-spec, token authentication)."""
    if call is not None and call.kind == "token":
        return f'Basic realm="{SERVICE}"'
    scheme = headers.get("x-forwarded-proto", scope.get("scheme", "http"))
    scheme = scheme if scheme in ("http", "https") else "http"
    host = "".join(char for char in headers.get("host", "localhost") if char not in '"\\')
    text = f'Bearer realm="{scheme}://{host}/v2/token",service="{SERVICE}"'
    if call is None or not (call.repository or call.kind == "catalog"):
        return text
    if call.kind == "catalog":
        return f'{text},scope="registry:catalog:*"'
    action = action_of(call, scope["method"])
    return f'{text},scope="repository:{call.repository}:{"pull,push" if action == "push" else action}"'


async def token_answer(scope: Scope, headers: dict[str, str], incoming: Incoming) -> bytes:
    """The JSON of a token; RegistryError 401 for who is not known, 400 for a form that is none."""
    if scope["method"] == "POST":
        fields = await _form(incoming)
        secret = fields.get("refresh_token" if fields.get("grant_type") == "refresh_token" else "password", "")
        actor = await in_thread(grants.known, secret)
        wanted = grants.requested([fields.get("scope", "")])
        offline = fields.get("access_type") == "offline"
    elif scope["method"] == "GET":
        query = query_of(scope)
        header = headers.get("authorization", "")
        actor, secret = await in_thread(grants.actor_of_basic, header), grants.secret_of_basic(header)
        wanted = grants.requested(query.get("scope", []))
        offline = query.get("offline_token", [""])[-1] == "true"
    else:
        raise RegistryError(405, "UNSUPPORTED", "The token endpoint answers GET and POST.", {"allow": "GET, POST"})
    token = await in_thread(grants.token_for, actor, secret, wanted)
    issued = datetime.fromtimestamp(int(time.time()), UTC).isoformat().replace("+00:00", "Z")
    reply: dict[str, Any] = {"token": token, "access_token": token, "expires_in": PULL_TOKEN_S, "issued_at": issued}
    if scope["method"] == "POST":
        reply["scope"] = " ".join(f"repository:{name}:{','.join(sorted(found))}" for name, found in wanted.items())
    if offline:
        reply["refresh_token"] = secret  # what the client keeps instead of the password is the same API token
    return json.dumps(reply).encode()


async def _form(incoming: Incoming) -> dict[str, str]:
    content = b""
    async for chunk in body(incoming):
        content += chunk
        if len(content) > FORM_BYTES:
            raise RegistryError(413, "UNSUPPORTED", f"A form has at most {FORM_BYTES >> 10} kB.")
    try:
        fields = {name: values[-1] for name, values in parse_qs(content.decode()).items()}
    except UnicodeDecodeError:
        raise RegistryError(400, "UNSUPPORTED", "The form is not UTF-8.") from None
    if fields.get("grant_type") not in ("password", "refresh_token"):
        raise RegistryError(400, "UNSUPPORTED", "grant_type is password or refresh_token.")
    return fields
