"""The raw ASGI doors of images: resumable uploads (tus 1.0) at /api/v1/uploads, and the registry at /v2/.

Raw, because Django would spool each body to disk before a view sees it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from django.db import DatabaseError

from portal.accounts.access import actor_of_headers
from portal.accounts.actor import Actor
from portal.errors import Invalid, NotFound, PortalError
from portal.images import actions, known, uploads
from portal.images.actions import in_pool
from portal.images.asgi_http import (
    ClientGone,
    Incoming,
    Receive,
    Scope,
    Send,
    answer,
    answer_json,
    body,
    headers_of,
    json_body,
    refuse,
    refuse_or_raise,
)
from portal.images.faults import UploadBusy
from portal.images.ingest import refusals
from portal.images.models import Image, Upload
from portal.images.registry_asgi import RegistryApp
from portal.images.target import Target

__all__ = ["RegistryApp", "UploadsApp", "image_json"]

PREFIX = "/api/v1/uploads"
VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
FINISH_S = 30.0  # how long a page waits for an image that another request is reading
BUSY_S = 0.2
KNOWN_MAX_BYTES = 128 << 10
_TUS = {"tus-resumable": VERSION, "cache-control": "no-store"}

type LoadApp = Callable[[Actor, str], Target]


def image_json(image: Image) -> dict[str, Any]:
    """What a page or a pipeline is told of an image before it deploys it."""
    return {
        "id": image.pk,
        "digest": image.digest,
        "repository": image.repository,
        "reference": image.reference,
        "size_bytes": image.size_bytes,
        "config": image.config,
    }


def upload_json(upload: Upload, offset_bytes: int) -> dict[str, Any]:
    """State of an upload: `receiving`, `complete` (all bytes are here, the image is being read), `done` or `failed`."""
    if upload.error:
        state = "failed"
    elif upload.image is not None:
        state = "done"
    else:
        state = "complete" if offset_bytes == upload.size_bytes else "receiving"
    return {
        "id": str(upload.pk),
        "app": upload.app_slug,
        "state": state,
        "offset_bytes": offset_bytes,
        "size_bytes": upload.size_bytes,
        "expires_at": upload.expires_at.isoformat(),
        "error": upload.error,
        "image": image_json(upload.image) if upload.image is not None else None,
    }


class UploadsApp:
    """The ASGI application for /api/v1/uploads. `load_app(actor, slug)` loads an app the actor may deploy, or raises.

    It is handed in because apps stand above images (`hosting.access.get_app`).
    """

    def __init__(self, load_app: LoadApp) -> None:
        self._load_app = load_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every refusal is problem+json."""
        headers, incoming = headers_of(scope), Incoming(receive)
        try:
            await self._serve(scope, headers, incoming, send)
        except PortalError as error:
            await refuse(send, incoming, error, _TUS)
        except ClientGone:
            return  # what came is in the file; the client asks for its offset and goes on
        except (OSError, DatabaseError) as error:
            await refuse_or_raise(send, incoming, error, _TUS)

    async def _serve(self, scope: Scope, headers: dict[str, str], receive: Incoming, send: Send) -> None:
        method = _method(scope, headers)
        upload_id = scope["path"].removeprefix(PREFIX).strip("/")
        if method == "OPTIONS":
            await answer(send, 204, headers=_options())
            return
        if upload_id == "known":
            await self._known(method, headers, receive, send)
            return
        if method != "GET" and headers.get("tus-resumable") != VERSION:
            raise PortalError(
                "This server speaks tus 1.0.0.", "Send Tus-Resumable: 1.0.0.", code="tus_version", status=412
            )
        actor = await in_pool(actor_of_headers, headers, method=method, door=_door(headers))
        if method == "POST" and not upload_id:
            await self._create(actor, headers, receive, send)
            return
        upload = await in_pool(uploads.load, actor, upload_id)
        if method == "PATCH":
            await self._append(actor, upload, headers, receive, send)
        elif method == "HEAD":
            await self._offset(upload, send)
        elif method == "GET":
            await self._state(actor, upload, send)
        elif method == "DELETE":
            await in_pool(_terminate, upload)
            await answer(send, 204, headers=_TUS)
        else:
            raise PortalError(f"{method[:20]} is not used here.", code="method_not_allowed", status=405)

    async def _known(self, method: str, headers: dict[str, str], receive: Incoming, send: Send) -> None:
        """`POST …/known` `{"app", "digests"}`: which of these blobs the app's team has, and need not be sent."""
        if method != "POST":
            raise PortalError(f"{method[:20]} is not used here.", "Send POST.", code="method_not_allowed", status=405)
        actor = await in_pool(actor_of_headers, headers, method=method, door=_door(headers))
        slug, digests = asked(await json_body(receive, KNOWN_MAX_BYTES))
        app = await in_pool(self._load_app, actor, slug)
        found = await in_pool(known.claim_known, actor, app, digests)
        await answer_json(send, 200, {"known": [{"digest": d, "size_bytes": size} for d, size in found.items()]})

    async def _create(self, actor: Actor, headers: dict[str, str], receive: Incoming, send: Send) -> None:
        size = _number(headers, "upload-length")
        facts = metadata(headers.get("upload-metadata", ""))
        app = await in_pool(self._load_app, actor, facts.get("app", ""))
        upload = await in_pool(actions.begin_upload, actor, app, size, facts.get("filename", facts.get("name", "")))
        fields = _expires(upload) | {"location": f"{PREFIX}/{upload.pk}"}
        if headers.get("content-type") == "application/offset+octet-stream":
            await self._receive(actor, upload, 0, headers, receive, send, status=201, fields=fields)
            return
        await answer(send, 201, headers=fields)

    async def _append(
        self, actor: Actor, upload: Upload, headers: dict[str, str], receive: Incoming, send: Send
    ) -> None:
        if headers.get("content-type") != "application/offset+octet-stream":
            raise PortalError(
                "A chunk has the content type application/offset+octet-stream.", code="content_type", status=415
            )
        offset = _number(headers, "upload-offset")
        if upload.error or upload.image_id is not None:
            await in_pool(uploads.raise_ended, upload)
        await self._receive(actor, upload, offset, headers, receive, send, status=204, fields=_expires(upload))

    async def _receive(
        self,
        actor: Actor,
        upload: Upload,
        offset: int,
        headers: dict[str, str],
        receive: Incoming,
        send: Send,
        *,
        status: int,
        fields: Mapping[str, str],
    ) -> None:
        """Append the body; with the last byte the image is read too, so that a wrong one is refused in the same answer."""
        checksum = headers.get("upload-checksum", "")
        with uploads.locked(upload) as fd, refusals(), uploads.Chunk(upload, fd, offset, checksum) as chunk:
            async for data in body(receive):
                await in_pool(chunk.write, data)
            offset = chunk.finish()
        extra: dict[str, str] = {}
        if offset == upload.size_bytes:
            app = await in_pool(self._load_app, actor, upload.app_slug)
            image = await actions.finish_upload(actor, upload, app)
            extra = {"moorage-image": str(image.pk), "moorage-image-digest": image.digest}
        await answer(send, status, headers={**fields, "upload-offset": str(offset), **extra})

    async def _offset(self, upload: Upload, send: Send) -> None:
        offset = await in_pool(uploads.offset_of, upload)
        sizes = {"upload-offset": str(offset), "upload-length": str(upload.size_bytes)}
        await answer(send, 200, headers=_expires(upload) | sizes)

    async def _state(self, actor: Actor, upload: Upload, send: Send) -> None:
        """JSON for the page; an upload whose last answer was lost, or whose process died, is finished now."""
        offset = await in_pool(uploads.offset_of, upload)
        if offset == upload.size_bytes and not upload.error and upload.image_id is None:
            with contextlib.suppress(PortalError, TimeoutError):  # kept in the row, which is shown
                await _finish(actor, upload, await in_pool(self._load_app, actor, upload.app_slug))
            upload = await in_pool(uploads.load, actor, str(upload.pk))
        await answer_json(send, 200, upload_json(upload, offset))


async def _finish(actor: Actor, upload: Upload, app: Target) -> None:
    """Finish an upload, or wait for the request (maybe of another process) that is at it, holding no thread."""
    async with asyncio.timeout(FINISH_S):
        while True:
            try:
                await actions.finish_upload(actor, upload, app, wait=False)
                return
            except UploadBusy:
                await asyncio.sleep(BUSY_S)


def metadata(header: str) -> dict[str, str]:
    """`Upload-Metadata`: pairs of key and base64 value, parted by commas (tus, Creation). Raises Invalid."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Invalid(f"Upload-Metadata: the value of {key[:40]!r} is not base64 of UTF-8.") from None
    if not found.get("app") and header:
        raise Invalid("Upload-Metadata does not name the app.", "Send app <base64 of its name>.")
    return found


def asked(question: Any) -> tuple[str, list[str]]:
    """App and digests of the question what is known; raises Invalid."""
    app = question.get("app") if isinstance(question, dict) else None
    digests = question.get("digests") if isinstance(question, dict) else None
    if not isinstance(app, str) or not isinstance(digests, list) or not all(isinstance(d, str) for d in digests):
        raise Invalid("The question names no app or no digests.", 'Send {"app": "<name>", "digests": ["sha256:…"]}.')
    return app, digests


def _method(scope: Scope, headers: dict[str, str]) -> str:
    override = headers.get("x-http-method-override", "")
    return override if scope["method"] == "POST" and override in ("PATCH", "DELETE") else str(scope["method"])


def _door(headers: dict[str, str]) -> Any:
    return "api" if "authorization" in headers else "page"


def _number(headers: dict[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Invalid(f"{name.title()} is {text[:30]!r}: it must be a number of bytes.")
    return int(text)


def _expires(upload: Upload) -> dict[str, str]:
    return _TUS | {"upload-expires": upload.expires_at.strftime("%a, %d %b %Y %H:%M:%S GMT")}


def _options() -> dict[str, str]:
    return _TUS | {
        "tus-version": VERSION,
        "tus-extension": EXTENSIONS,
        "tus-max-size": str(uploads.MAX_BYTES),
        "tus-checksum-algorithm": "sha1,sha256",
    }


def _terminate(upload: Upload) -> None:
    with contextlib.suppress(NotFound), uploads.locked(upload):  # the file of a finished one is gone already
        uploads.file_of(upload).unlink(missing_ok=True)
    upload.delete()
