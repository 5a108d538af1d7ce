"""Sending an archive: only what is missing, in chunks (tus), going on where a broken connection stopped."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Collection
from typing import Any, BinaryIO

from moorage.archive import Payload, without_known
from moorage.faults import Fault
from moorage.portal import Portal

CHUNK_BYTES = 8 << 20
TRIES = 6  # in a row without a byte moved
TUS = {"Tus-Resumable": "1.0.0"}
_READ_S = 600.0  # the answer to the last chunk comes when the portal has read the image


def upload(
    portal: Portal, app: str, file: BinaryIO, name: str, moved: Callable[[int, Payload], None]
) -> dict[str, Any]:
    """Send what the portal does not have of an archive; the image as JSON. `moved` hears of bytes sent so far."""
    payload = without_known(file, lambda digests: known(portal, app, digests))
    metadata = ",".join(f"{key} {_encoded(value)}" for key, value in (("app", app), ("filename", name)))
    headers = {**TUS, "Upload-Length": str(payload.size), "Upload-Metadata": metadata}
    address = portal.send("POST", "/uploads", headers=headers).headers["Location"].removeprefix("/api/v1")
    _send(portal, address, payload, moved)
    state = portal.get(address)
    if state["image"] is None:
        raise Fault(state["error"] or "The image could not be read.", "Send it again.", body=state)
    image: dict[str, Any] = state["image"]
    return image | {"sent_bytes": payload.size, "spared_bytes": payload.spared_bytes}


def known(portal: Portal, app: str, digests: Collection[str]) -> list[str]:
    """Those of the digests that the app's team has."""
    found = portal.post("/uploads/known", {"app": app, "digests": list(digests)})
    return [blob["digest"] for blob in found["known"]]


def _send(portal: Portal, address: str, payload: Payload, moved: Callable[[int, Payload], None]) -> None:
    offset, failures = 0, 0
    while True:
        moved(offset, payload)
        if offset == payload.size:
            return
        headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        chunk = payload.read(offset, CHUNK_BYTES)
        try:
            answer = portal.send("PATCH", address, headers=headers, content=chunk, timeout_s=_READ_S)
            offset, failures = int(answer.headers["Upload-Offset"]), 0
        except Fault as fault:
            if fault.status not in (0, 409, 423, 502, 503, 504) or failures == TRIES:
                raise
            time.sleep(min(8.0, 0.2 * 2**failures))  # a broken line: the portal knows how far it came
            failures += 1
            offset = _offset(portal, address, offset)


def _offset(portal: Portal, address: str, before: int) -> int:
    try:
        return int(portal.send("HEAD", address, headers=TUS).headers["Upload-Offset"])
    except Fault as fault:
        if fault.status:
            raise
        return before


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
