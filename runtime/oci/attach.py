"""The attach socket of a monitor: clients see the output as Docker's framed stream and may write to stdin.

A client's first line is JSON, `{"stdin": bool, "stdout": bool, "stderr": bool, "raw": bool}` (raw is without frames), `{"log": {…}}`
or `{"size": [height, width]}`, answered by `{"ok": true}`.
Buffers are bounded. With `lossless` (exec, which has no log) output waits for its clients; else a slow client misses some and
is told how much.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Callable
from typing import Any

CLIENT_BYTES = 1 << 20
STDIN_BYTES = 64 << 10
_HELLO_BYTES = 4096
_LISTEN = 64
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class Client:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.hello = b""
        self.ready = False
        self.streams: frozenset[int] = frozenset()
        self.stdin = False
        self.raw = False
        self.reading = True
        self.out = bytearray()
        self.skipped = 0

    def queue(self, frame: bytes) -> None:
        """Send what can be sent at once and keep the rest."""
        sent = 0
        if not self.out:
            with contextlib.suppress(BlockingIOError):
                sent = self.sock.send(frame)
        if sent < len(frame):
            self.out += frame[sent:]


class Attach:
    """The listener and its clients, driven by the monitor's epoll through `handlers`."""

    def __init__(
        self,
        path: str,
        epoll: select.epoll,
        handlers: dict[int, Callable[[int], None]],
        *,
        lossless: bool,
        on_order: Callable[[dict[str, Any]], None],
    ) -> None:
        self._path = path
        self._epoll = epoll
        self._handlers = handlers
        self._lossless = lossless
        self._on_order = on_order
        self.clients: dict[int, Client] = {}
        self.seen = 0
        self.stdin_fd = -1
        self.stdin_once = False
        self._stdin = bytearray()
        self._stdin_ends = False
        _unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101  (pathlib costs each monitor memory)
        self._listener.listen(_LISTEN)
        self._watch(self._listener.fileno(), self._accept)

    def take_terminal(self, fd: int) -> None:
        """Input goes to a terminal, which no client's leaving closes: its end is a key."""
        self.stdin_once = False
        if self.stdin_fd >= 0:
            os.close(self.stdin_fd)
            self.stdin_fd = os.dup(fd)

    def _watch(self, fd: int, handler: Callable[[int], None], events: int = _IN) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            client = Client(sock)
            self.clients[sock.fileno()] = client
            self._watch(sock.fileno(), lambda events: self._serve(client, events))

    def _serve(self, client: Client, events: int) -> None:
        try:
            if events & _IN:
                self._receive(client)
            if events & _OUT and client.out:
                sent = client.sock.send(client.out)
                del client.out[:sent]
                self._tell_skipped(client)
            if events & (select.EPOLLHUP | select.EPOLLERR) and not events & _IN:
                raise ConnectionResetError
        except BlockingIOError:
            return
        except OSError:
            self.drop(client)
            return
        if client.sock.fileno() >= 0:
            self._interest(client)

    def _interest(self, client: Client) -> None:
        wants_in = client.reading and len(self._stdin) < STDIN_BYTES
        self._epoll.modify(client.sock.fileno(), (_IN if wants_in else 0) | (_OUT if client.out else 0))

    def _receive(self, client: Client) -> None:
        data = client.sock.recv(STDIN_BYTES)
        if not client.ready:
            self._greet(client, data)
            return
        if not data:
            client.reading = False
            if client.stdin and self.stdin_once:
                self._stdin_ends = True
                self._write_stdin()
            return
        if client.stdin and self.stdin_fd >= 0:
            self._stdin += data
            self._write_stdin()

    def _greet(self, client: Client, data: bytes) -> None:
        client.hello += data
        line, end, rest = client.hello.partition(b"\n")
        if not end:
            if not data or len(client.hello) > _HELLO_BYTES:
                raise ConnectionResetError
            return
        try:
            wanted = json.loads(line)
            self._on_order(wanted)
        except (ValueError, TypeError, AttributeError):
            raise ConnectionResetError from None
        client.streams = frozenset(n for n, name in ((1, "stdout"), (2, "stderr")) if wanted.get(name))
        client.stdin, client.raw = bool(wanted.get("stdin")), bool(wanted.get("raw"))
        client.ready = True
        self.seen += bool(client.streams)
        client.queue(b'{"ok": true}\n')
        if rest and client.stdin and self.stdin_fd >= 0:
            self._stdin += rest
            self._write_stdin()

    def _write_stdin(self, _events: int = 0) -> None:
        """Write pending input; without room, wait for the pipe and meanwhile read no more from clients."""
        fd = self.stdin_fd
        if fd < 0:
            return
        try:
            while self._stdin:
                del self._stdin[: os.write(fd, self._stdin)]
        except BlockingIOError:
            if fd not in self._handlers:
                self._watch(fd, self._write_stdin, _OUT)
            return
        except OSError:  # the program closed its end
            self._stdin.clear()
            self._stdin_ends = True
        if self._handlers.pop(fd, None):
            self._epoll.unregister(fd)
            for client in [*self.clients.values()]:
                self._interest(client)
        if self._stdin_ends:
            os.close(fd)
            self.stdin_fd = -1

    def send(self, stream: int, chunk: bytes) -> None:
        """Give output to every client of that stream (1 or 2)."""
        frame = b""
        for client in [*self.clients.values()]:
            if stream not in client.streams:
                continue
            if not self._lossless and len(client.out) > CLIENT_BYTES:
                client.skipped += len(chunk)
                continue
            frame = frame or _frame(stream, chunk)
            try:
                client.queue(chunk if client.raw else frame)
                self._interest(client)
            except OSError:
                self.drop(client)

    def _tell_skipped(self, client: Client) -> None:
        if client.skipped and len(client.out) < CLIENT_BYTES // 2:
            sentence = f"\n[{client.skipped} bytes of output left out: this reader is too slow; the log has them]\n"
            client.skipped = 0
            client.out += sentence.encode() if client.raw else _frame(2, sentence.encode())

    def backlogged(self) -> bool:
        """Whether output should wait: a client of a lossless stream has not read what it got."""
        return self._lossless and any(len(client.out) > CLIENT_BYTES // 4 for client in self.clients.values())

    def has_readers(self) -> bool:
        """Whether a client wants output."""
        return any(client.streams for client in self.clients.values())

    def drop(self, client: Client) -> None:
        """Close one connection."""
        fd = client.sock.fileno()
        if self._handlers.pop(fd, None):
            self._epoll.unregister(fd)
            del self.clients[fd]
            client.sock.close()
        if client.stdin and self.stdin_once and client.reading:
            client.reading = False
            self._stdin_ends = True
            self._write_stdin()

    def pending(self) -> bool:
        """Whether a client has not got everything yet."""
        return any(client.out for client in self.clients.values())

    def close(self) -> None:
        """Remove the socket and let go of all clients."""
        _unlink(self._path)
        self._listener.close()
        for client in [*self.clients.values()]:
            client.sock.close()


def _frame(stream: int, chunk: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(chunk).to_bytes(4, "big") + chunk


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
