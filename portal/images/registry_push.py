"""The write half of `/v2/` on the wire: blob uploads and manifests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from portal.accounts.actor import Actor
from portal.accounts.models import Team
from portal.errors import PortalError
from portal.images import grants, manifests, pushing, quota
from portal.images.actions import in_pool
from portal.images.asgi_http import Incoming, body
from portal.images.grants import Caller
from portal.images.models import BlobUpload, Image
from portal.images.receiving import Receiver, forget
from portal.images.registry import Call, RegistryError, check_digest
from portal.images.tags import is_tag
from portal.images.target import Target
from portal.threads import in_thread

type LoadApp = Callable[[Actor, str], Target]
type Pushed = Callable[[Actor, Target, Image, str, bool], Mapping[str, str]]

_CONTENT_RANGE = re.compile(r"(?:bytes[= ])?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?")


@dataclass(frozen=True, slots=True)
class Reply:
    """A small answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that writes to a repository, by whoever may."""

    call: Call
    actor: Actor
    team: Team
    caller: Caller
    headers: Mapping[str, str]
    query: Mapping[str, list[str]]
    incoming: Incoming

    def asked(self, name: str) -> str:
        """A query parameter; the last of several."""
        return self.query.get(name, [""])[-1]

    @property
    def length(self) -> int | None:
        """Content-Length; None for a body whose length is not said."""
        text = self.headers.get("content-length", "")
        if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
            raise RegistryError(400, "SIZE_INVALID", f"Content-Length is {text[:30]!r}: it must be a number of bytes.")
        return int(text) if text else None


def blob_headers(repository: str, digest: str) -> dict[str, str]:
    """Where a finished blob is."""
    return {"location": f"/v2/{repository}/blobs/{digest}", "docker-content-digest": digest}


def upload_headers(upload: BlobUpload, size_bytes: int) -> dict[str, str]:
    """Where an upload goes on; `Range` ends with the last byte that is here (0-0 also when there is none)."""
    return {
        "location": f"/v2/{upload.repository}/blobs/uploads/{upload.pk}",
        "range": f"0-{max(size_bytes - 1, 0)}",
        "docker-upload-uuid": str(upload.pk),
        "cache-control": "no-store",
    }


async def begin(request: Request, load_app: LoadApp) -> Reply:
    """POST: mount a blob, take a whole one, or begin an upload."""
    repository = request.call.repository
    await in_thread(app_of, request, load_app)
    mounted = request.asked("mount")
    there: bool = await in_thread(_mount, request, mounted)
    if there:
        return Reply(201, blob_headers(repository, mounted))
    digest = "" if mounted else request.asked("digest")
    if not digest:
        upload = await in_thread(pushing.begin, request.actor, request.team, repository)
        return Reply(202, upload_headers(upload, 0))
    check_digest(digest)
    upload = await in_thread(pushing.begin, request.actor, request.team, repository, request.length or 0)
    return await _finish(request, upload, digest)


def app_of(request: Request, load_app: LoadApp) -> Target:
    """The app whose repository it is: only what exists can be pushed to. RegistryError NAME_UNKNOWN."""
    slug = request.call.repository.partition("/")[2]
    try:
        app = load_app(request.actor, slug)
    except PortalError as error:
        if error.status != 404:
            raise
        raise RegistryError(404, "NAME_UNKNOWN", f"{error.message} {error.hint}".strip()) from None
    if app.team.pk != request.team.pk:
        raise RegistryError(404, "NAME_UNKNOWN", f"There is no app {slug!r} in team {request.team.slug}.")
    return app


def _mount(request: Request, digest: str) -> bool:
    """Whether the blob could be had from where the caller may pull; nothing else is told."""
    source = request.asked("from")
    caller = request.caller
    if not digest or not grants.is_repository(source) or not caller.granted(source, "pull"):
        return False
    if not grants.may(request.actor, source, "pull"):
        return False
    return pushing.mount(request.team, request.call.repository, source, check_digest(digest))


async def upload(request: Request, method: str) -> Reply:
    """GET, PATCH, PUT and DELETE of an upload under way."""
    found = await in_thread(pushing.load, request.actor, request.call.repository, request.call.reference)
    if method in ("GET", "HEAD"):
        return Reply(204, upload_headers(found, pushing.file_of(found).stat().st_size))
    if method == "DELETE":
        await in_thread(pushing.cancel, found)
        forget(found)
        return Reply(204)
    if method == "PATCH":
        with pushing.locked(found) as fd:
            size = await _receive(request, found, fd)
        return Reply(202, upload_headers(found, size))
    if method != "PUT":
        raise RegistryError(405, "UNSUPPORTED", "An upload takes GET, PATCH, PUT and DELETE.")
    return await _finish(request, found, check_digest(request.asked("digest")))


async def _receive(request: Request, found: BlobUpload, fd: int) -> int:
    """Append the body, which must begin where the upload ends; the new size. What came before a cut stays."""
    async with Receiver(found, fd) as receiver:
        begin = receiver.begin_bytes
        length = _announced(request, found, begin)
        if length is not None:
            await in_thread(pushing.reserve, found, begin + length)
        try:
            await receiver.take(body(request.incoming), limit_bytes=None if length is None else begin + length)
            if length is not None and receiver.total_bytes != begin + length:
                came = receiver.total_bytes - begin
                raise RegistryError(400, "SIZE_INVALID", f"The chunk was announced with {length} bytes and has {came}.")
        except RegistryError:
            await receiver.settle()
            receiver.take_back()
            raise
        finally:
            await receiver.settle()
            await in_thread(pushing.rest, found, receiver.total_bytes, receiver.digest)
    return receiver.total_bytes


def _announced(request: Request, found: BlobUpload, begin: int) -> int | None:
    """How many bytes the body is said to have; RegistryError 416 when it does not begin at `begin`."""
    length, text = request.length, request.headers.get("content-range", "")
    if not text:
        return length
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match[2]) < int(match[1]) or int(match[1]) != begin:
        sentence = f"The upload has {begin} bytes; Content-Range {text[:60]!r} does not go on from there."
        raise RegistryError(416, "BLOB_UPLOAD_INVALID", sentence, upload_headers(found, begin))
    ranged = int(match[2]) - int(match[1]) + 1
    if length not in (None, ranged):
        raise RegistryError(400, "SIZE_INVALID", f"Content-Range has {ranged} bytes, Content-Length {length}.")
    return ranged


async def _finish(request: Request, found: BlobUpload, digest: str) -> Reply:
    """The last bytes, and the blob. What does not have the digest it was said to have is thrown away."""
    with pushing.locked(found) as fd:
        await _receive(request, found, fd)
        await in_pool(_complete, found, fd, digest)
    forget(found)
    return Reply(201, blob_headers(found.repository, digest))


def _complete(found: BlobUpload, fd: int, digest: str) -> None:
    found.refresh_from_db(fields=["digest", "hashed_bytes"])
    try:
        if (actual := pushing.digest_of(found, fd)) != digest:
            raise RegistryError(400, "DIGEST_INVALID", f"What came has the digest {actual}, not {digest}.")
        pushing.finish(found, digest)
    except BaseException:
        pushing.drop(found)
        raise


async def put_manifest(request: Request, load_app: LoadApp, pushed: Pushed) -> Reply:
    """PUT of a manifest by tag or digest, and what the app does about it."""
    call = request.call
    app = await in_thread(app_of, request, load_app)
    if ":" in call.reference:
        check_digest(call.reference)
    elif not is_tag(call.reference):
        raise RegistryError(400, "TAG_INVALID", f"{call.reference[:140]!r} cannot be a tag.")
    data = await _whole(request)
    document = manifests.read(data, request.headers.get("content-type", ""))
    tag = "" if ":" in call.reference else call.reference
    if not tag and document.digest != call.reference:
        raise RegistryError(400, "DIGEST_INVALID", f"The manifest has the digest {document.digest}.")
    await in_thread(quota.check_plan, app, len(data) + sum(document.needs.values()))
    image, news = await in_pool(manifests.register, request.actor, request.team, call.repository, document, tag)
    headers = {
        "location": f"/v2/{call.repository}/manifests/{image.digest}",
        "docker-content-digest": image.digest,
    }
    if document.subject:
        headers["oci-subject"] = document.subject
    if tag:
        headers |= await in_thread(pushed, request.actor, app, image, tag, news)
    return Reply(201, headers)


async def _whole(request: Request) -> bytes:
    """A manifest's bytes, of which there are few."""
    too_large = RegistryError(413, "MANIFEST_INVALID", f"A manifest has at most {manifests.MAX_BYTES:,} bytes.")
    if (request.length or 0) > manifests.MAX_BYTES:
        raise too_large
    return b"".join([chunk async for chunk in _bounded(request.incoming, too_large)])


async def _bounded(incoming: Incoming, too_large: RegistryError) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in body(incoming):
        size += len(chunk)
        if size > manifests.MAX_BYTES:
            raise too_large
        yield chunk
