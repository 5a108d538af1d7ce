"""A small netlink encoder: prebuilt messages, many in one send, one acknowledgement each (netlink(7)).

Why not a library: docs/decisions/netlink.md has the figures.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 0x2, 0x3
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 11, 12
NLMSGERR_ATTR_MSG = 1
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 20


class NetlinkError(OSError):
    """The kernel refused a message; `strerror` carries its own words, `position` which message of the batch."""

    position: int = 0


def attr(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTR.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attr(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A string attribute with its ending zero."""
    return attr(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A 32 bit attribute in host order."""
    return attr(kind, struct.pack("=I", value))


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A request that asks for an acknowledgement; its sequence number is filled in by `Socket`."""
    return _HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, 0, 0) + body


def attributes(data: bytes | memoryview, start: int = 0) -> Iterator[tuple[int, memoryview]]:
    """Attributes of a payload from `start` on, as (type without flags, value)."""
    view = memoryview(data)
    while start + 4 <= len(view):
        length, kind = _ATTR.unpack_from(view, start)
        if length < 4:
            return
        yield kind & NLA_TYPE_MASK, view[start + 4 : start + length]
        start += length + (-length % 4)


class Socket:
    """A netlink socket of the namespace the calling thread is in; usable from any thread afterwards, one at a time."""

    def __init__(self, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it. An open one keeps its namespace alive."""
        self._socket.close()

    def transact(self, messages: Sequence[bytes], *, forgive: Sequence[int] = ()) -> None:
        """Send messages in one go and await every acknowledgement. Raises NetlinkError for the first refusal.

        The kernel carries out what follows a refused message all the same. `forgive` names errnos that count as done.
        """
        first = self._send([_with_flags(raw, NLM_F_ACK) for raw in messages])
        self._await(set(range(first, first + len(messages))), first, forgive)

    def transact_batch(
        self, begin: bytes, messages: Sequence[bytes], end: bytes, *, forgive: Sequence[int] = ()
    ) -> None:
        """As `transact`, for nfnetlink's all-or-nothing batches, whose frame is not acknowledged."""
        first = self._send([begin, *(_with_flags(raw, NLM_F_ACK) for raw in messages), end])
        self._await(set(range(first + 1, first + 1 + len(messages))), first + 1, forgive)

    def dump(self, request: bytes) -> Iterator[tuple[int, memoryview]]:
        """All (type, body) of a dump request."""
        sequence = self._send([_with_flags(request, NLM_F_DUMP)])
        for kind, number, body in self._receive():
            if number != sequence:
                continue
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                _raise_error(body, 0, ())
                return
            yield kind, body

    def ask(self, request: bytes) -> memoryview | None:
        """The body of the one answer to a request that is not a dump; None if the object does not exist."""
        sequence = self._send([request])
        for kind, number, body in self._receive():
            if number != sequence:
                continue
            if kind == NLMSG_ERROR:
                _raise_error(body, 0, (errno.ENODEV, errno.ENOENT))
                return None
            return body
        return None

    def _send(self, messages: Sequence[bytes]) -> int:
        first = self._sequence + 1
        self._sequence += len(messages)
        parts = [raw[:8] + struct.pack("=I", first + n) + raw[12:] for n, raw in enumerate(messages)]
        self._socket.send(b"".join(part + bytes(-len(part) % 4) for part in parts))
        return first

    def _await(self, awaited: set[int], first: int, forgive: Sequence[int]) -> None:
        failure: NetlinkError | None = None
        for kind, number, body in self._receive():
            if kind != NLMSG_ERROR:
                continue
            try:
                _raise_error(body, number - first, forgive)
            except NetlinkError as error:
                failure = failure or error
                if number not in awaited:  # the frame of a batch was refused: nothing else will come
                    break
            awaited.discard(number)
            if not awaited:
                break
        if failure:
            raise failure

    def _receive(self) -> Iterator[tuple[int, int, memoryview]]:
        while True:
            view = memoryview(self._socket.recv(_RECEIVE_BYTES))
            while len(view) >= 16:
                length, kind, _, number, _ = _HEADER.unpack_from(view)
                yield kind, number, view[16:length]
                view = view[length + (-length % 4) :]


def _with_flags(raw: bytes, flags: int) -> bytes:
    present = int.from_bytes(raw[6:8], "little")
    return raw[:6] + struct.pack("=H", present | flags) + raw[8:]


def _raise_error(body: memoryview, position: int, forgive: Sequence[int]) -> None:
    code = -struct.unpack_from("=i", body)[0]
    if code == 0 or code in forgive:
        return
    words = os.strerror(code)
    echoed = struct.unpack_from("=I", body, 4)[0]
    for start in (4 + echoed + (-echoed % 4), 20):  # the request is echoed whole, or only its header
        found = [bytes(v) for k, v in attributes(body, start) if k == NLMSGERR_ATTR_MSG]
        if found:
            words = f"{words}: {found[0].rstrip(bytes(1)).decode(errors='replace')}"
            break
    failure = NetlinkError(code, words)
    failure.position = position
    raise failure
