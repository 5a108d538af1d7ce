"""`POST /api/v1/apps/{app}/deployments` and `…/rollback`: raw ASGI, because Django would spool an archive to disk first,
and because a call that waits must hold no thread.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError
from django.db.models import Q

from portal.accounts.access import actor_of_headers
from portal.accounts.actor import Actor, Door
from portal.errors import Invalid, NotFound, PortalError
from portal.hosting.access import get_app
from portal.hosting.models import App
from portal.images.actions import check_announced, receive_archive
from portal.images.asgi_http import (
    ClientGone,
    Incoming,
    Receive,
    Scope,
    Send,
    answer,
    body,
    headers_of,
    query_of,
    refuse,
    refuse_or_raise,
)
from portal.images.manifests import deployable
from portal.images.models import Image
from portal.images.registry import RegistryError
from portal.images.target import repository_of
from portal.releases import actions
from portal.releases.making import checked_command, command_of
from portal.releases.models import Deployment, Instance
from portal.releases.schemas import deployment_body
from portal.releases.waiting import WAIT_MAX_S, wait_for_end
from portal.threads import in_thread

JSON_MAX_BYTES = 64 << 10
_DID_GO_LIVE = frozenset({"live", "superseded"})


@dataclass(frozen=True, slots=True)
class _Call:
    """One request, taken apart."""

    actor: Actor
    app: App
    headers: dict[str, str]
    wait_s: float
    command: tuple[str, ...]

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def deploy_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one deployment or rollback; every refusal is problem+json and lets the client finish sending."""
    incoming = Incoming(receive)
    try:
        call = await _open(scope)
        if scope["path"].rstrip("/").endswith("/rollback"):
            deployment = await _roll_back(call, incoming)
        else:
            deployment = await _deploy(call, incoming)
    except PortalError as error:
        await refuse(send, incoming, error)
        return
    except ClientGone:
        return
    except (OSError, DatabaseError) as error:
        await refuse_or_raise(send, incoming, error)
        return
    await _say(call, deployment, send)


async def _open(scope: Scope) -> _Call:
    headers = headers_of(scope)
    door: Door = "api" if "authorization" in headers else "page"
    actor = await in_thread(actor_of_headers, headers, method="POST", door=door)
    slug = scope["path"].split("/")[4]
    app = await in_thread(get_app, actor, slug, "deploy")
    query = query_of(scope)
    return _Call(actor, app, headers, _wait(query.get("wait", ["0"])[-1]), command_of(query.get("command", [""])[-1]))


def _wait(text: str) -> float:
    try:
        seconds = float(text or "0")
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_MAX_S:
        raise Invalid(f"wait is {text[:20]!r}: give seconds from 0 to {WAIT_MAX_S:g}.")
    return seconds


async def _deploy(call: _Call, receive: Incoming) -> Deployment:
    key = call.headers.get("idempotency-key", "")
    if len(key) > 100:
        raise Invalid(f"Idempotency-Key has {len(key)} characters; the most is 100.")
    if key:
        before = await in_thread(_deployment_of_key, call.app, key)
        if before is not None:
            async for _ in body(receive):
                pass
            return before
    command = call.command
    if call.is_json:
        wanted = await _json(receive)
        command = checked_command(wanted.get("command") or list(command))
        name = wanted.get("image")
        if not isinstance(name, str) or not name:
            raise Invalid("The body names no image.", 'Send {"image": "sha256:…"} or an archive as the body.')
        image = await in_thread(find_image, call.app, name)
    else:
        length = call.headers.get("content-length", "")
        if length.isdecimal():
            await in_thread(check_announced, call.app, int(length))
        image = await receive_archive(call.actor, call.app, _not_empty(body(receive)))
    return await in_thread(actions.deploy, call.actor, call.app, image, idempotency_key=key, command=command)


async def _not_empty(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    some = False
    async for chunk in chunks:
        some = True
        yield chunk
    if not some:
        raise Invalid("The body is empty.", "Send an image archive: curl -T image.tar …, or JSON with an image's name.")


async def _roll_back(call: _Call, receive: Incoming) -> Deployment:
    wanted = await _json(receive)
    number = wanted.get("release")
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise Invalid(f"release is {str(number)[:20]!r}: give a release's number, or leave it out.")
    return await in_thread(actions.rollback, call.actor, call.app, number)


async def _json(receive: Incoming) -> dict[str, Any]:
    content = b""
    async for chunk in body(receive):
        content += chunk
        if len(content) > JSON_MAX_BYTES:
            raise PortalError(f"The JSON body is larger than {JSON_MAX_BYTES >> 10} kB.", code="too_large", status=413)
    try:
        value = json.loads(content or b"{}")
    except ValueError:
        raise Invalid("The body is not JSON.") from None
    if not isinstance(value, dict):
        raise Invalid("The body is not a JSON object.")
    return value


def find_image(app: App, name: str) -> Image:
    """An image of the app by digest (12 digits do), by tag or by the reference it came with; the newest of several.

    Of an index it is the image for the hosts; raises Invalid with the reason for what does not run here.
    """
    rows = Image.objects.filter(repository=repository_of(app), team=app.team)
    digest = name if name.startswith("sha256:") else f"sha256:{name}"
    asked = Q(reference=name) | Q(tags__name=name.removeprefix(f"{app.slug}:"))
    if len(digest) >= len("sha256:") + 12:
        asked |= Q(digest__startswith=digest)
    image = rows.filter(asked).order_by("-created_at", "-pk").first()
    if image is None:
        raise NotFound(f"{app.slug} has no image {name[:80]!r}.", "Upload it first, or send the archive as the body.")
    try:
        return deployable(image)
    except RegistryError as error:
        raise Invalid(f"{name[:80]} cannot be deployed: {error}") from None


def _deployment_of_key(app: App, key: str) -> Deployment | None:
    return Deployment.objects.filter(app=app, idempotency_key=key).first()


def _body(deployment_id: int) -> dict[str, Any]:
    rows = Deployment.objects.select_related("app__team", "release__image", "created_by").prefetch_related("events")
    return deployment_body(rows.get(pk=deployment_id), events=True)


async def _say(call: _Call, deployment: Deployment, send: Send) -> None:
    """201, 202, 422 or 504, as the deployment ended within `wait`."""
    ended = await wait_for_end(deployment.pk, call.wait_s) if call.wait_s else None
    found = await in_thread(_body, deployment.pk)
    location = f"/api/v1/apps/{call.app.slug}/deployments/{deployment.number}"
    if ended is None and not call.wait_s:
        await _send_json(send, 202, found, location)
    elif ended is None:
        hint = "It goes on; ask for its state at the address in Location."
        text = f"Deployment {deployment.number} was {found['state']} after {call.wait_s:g} s."
        waited = PortalError(text, hint, code="wait_elapsed", status=504, extra={"deployment": found})
        await _send_json(send, 504, waited.problem(), location)
    elif ended in _DID_GO_LIVE:
        await _send_json(send, 201, found, location)
    else:
        serves = await in_thread(_serves, call.app)
        await _send_json(send, 422, _failure(found, serves=serves), location)


def _serves(app: App) -> bool:
    return Instance.objects.filter(app=app, routed=True, wanted="running").exists()


def _failure(found: dict[str, Any], *, serves: bool) -> dict[str, Any]:
    text = f"Deployment {found['number']} of {found['app']} {found['state']}: {found['reason']}"
    extra = {"deployment": found, "reason": found["reason"], "last_log": found["last_log"]}
    hint = "The release that was live before serves on." if serves else ""
    return PortalError(text, hint, code=f"deployment_{found['state']}", status=422, extra=extra).problem()


async def _send_json(send: Send, status: int, value: dict[str, Any], location: str) -> None:
    kind = "application/problem+json" if status >= 400 else "application/json"
    content = (json.dumps(value, cls=DjangoJSONEncoder) + "\n").encode()
    await answer(send, status, content, {"content-type": kind, "cache-control": "no-store", "location": location})
