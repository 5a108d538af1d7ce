"""Messages between engine, launcher, monitor and init: one JSON packet on a SEQPACKET socket, descriptors beside it.

`Cloned`, `Ready`, `Started` and `Failed` travel upwards, `Mapped`, `Order`, `Groups`, `Mounts` and `Go` downwards. What the far end's closing means is
said at the step that waits for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import asdict
from typing import Any

from runtime.dataclass import dataclass
from runtime.errors import RuntimeFault

PACKET_BYTES = 60_000
MAX_FDS = 200  # below SCM_MAX_FD (253)


class StartFailed(RuntimeFault):
    """A step of making a container or an exec failed: its number and name, and errno, 0 where no system call failed."""

    def __init__(self, step: str, errno: int, text: str) -> None:
        super().__init__(text, "")
        self.step = step
        self.errno = errno
        self.text = text

    def __str__(self) -> str:
        return f"{self.text} (step {self.step})"


@dataclass(frozen=True, slots=True)
class Made:
    """The maker's word to the monitor: an init waits at its gate. Its pidfd and the gate's socket come beside it, and then the
    other side of its terminal, if it has one.

    `children` are further ones of the monitor, which have ended.
    """

    init_pid: int
    cgroup: str
    loop: str = ""
    notes: tuple[str, ...] = ()
    children: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """All is set up and waits at the gate. Pids are the host's; `loop` is the loop device's name ("loop3"), if any."""

    monitor_pid: int
    init_pid: int
    loop: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """The program runs (its execve succeeded). `at_ns` is since 1970."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A step failed; what was acquired is being undone."""

    step: str
    errno: int
    text: str

    def error(self) -> StartFailed:
        """The exception for it."""
        return StartFailed(self.step, self.errno, self.text)

    @classmethod
    def of(cls, step: str, error: OSError | RuntimeFault) -> Failed:
        """The message for an error raised while `step` was carried out; a path in it is kept."""
        if isinstance(error, StartFailed):
            return cls(error.step, error.errno, error.text)
        if isinstance(error, RuntimeFault):
            return cls(step, 0, str(error))
        text = (error.strerror or os.strerror(error.errno or 0)).lower() if error.errno else str(error)
        name = f"{error.filename}: " if error.filename else ""
        return cls(step, error.errno or 0, f"{name}{text}")


@dataclass(frozen=True, slots=True)
class Mapped:
    """The init's ids are mapped."""


@dataclass(frozen=True, slots=True)
class Order:
    """The container to become: descriptors of its `config.json`, stdout and stderr come beside it; then, where they are, stdin,
    the listening socket at which to wait for the start, and further ones for the program, under these numbers.

    `pivot` changes the root by pivot_root rather than by chroot, `keyring` gives the container a session keyring of its own.
    """

    stdin: bool = False
    gate: bool = False
    further: tuple[int, ...] = ()
    pivot: bool = True
    keyring: bool = True


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups are made; descriptors to get in come beside it: doors on v1, the group's folder on v2."""


@dataclass(frozen=True, slots=True)
class Cloned:
    """What was ordered cloned the init, in its group, and ends; its pidfd comes beside it."""

    init_pid: int


@dataclass(frozen=True, slots=True)
class Mounts:
    """Detached mounts for the init, named in the order of the descriptors that come beside it."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AtHooks:
    """The init has mounted all and waits for the hooks that come before it changes its root."""


@dataclass(frozen=True, slots=True)
class Hooked:
    """They have run. What its own hooks are told, as JSON: those before the change of root, and those at the start."""

    creating: str
    created: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """The program's terminal: the descriptor of its other side comes beside it."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A seccomp filter notifies: the descriptor comes beside it."""


@dataclass(frozen=True, slots=True)
class Go:
    """The start gate opens."""


type Message = (
    Made
    | Ready
    | Started
    | Failed
    | Mapped
    | Order
    | Groups
    | Cloned
    | Mounts
    | AtHooks
    | Hooked
    | Terminal
    | Listener
    | Go
)

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Made, Ready, Started, Failed, Mapped, Order, Groups, Cloned, Mounts, AtHooks, Hooked, Terminal, Listener, Go
    )
}  # fmt: skip


def encode(message: Message) -> bytes:
    """One packet; a text that does not fit is cut."""
    data = json.dumps([type(message).__name__, asdict(message)]).encode()
    if len(data) > PACKET_BYTES and isinstance(message, Failed):
        return encode(Failed(message.step, message.errno, message.text[: PACKET_BYTES // 8]))
    return data


def decode(packet: bytes) -> Message:
    """The inverse; raises ValueError on anything else."""
    name, fields = json.loads(packet)
    kind = _KINDS.get(name)
    if kind is None or not isinstance(fields, dict):
        raise ValueError(f"unknown message {name!r}")
    message: Message = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    return message


def send_packet(sock: socket.socket, data: bytes, fds: tuple[int, ...] | list[int] = ()) -> None:
    """Send one packet with descriptors beside it."""
    if fds:
        socket.send_fds(sock, [data], list(fds))
        return
    sock.send(data)


def receive_packet(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors, all close-on-exec; b"" when the far end closed.

    `socket.recv_fds` ignores its flags and returns inheritable descriptors, so the control message is read here.
    """
    space = socket.CMSG_SPACE(MAX_FDS * 4)
    data, ancillary, _flags, _address = sock.recvmsg(PACKET_BYTES + 4096, space, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(int.from_bytes(body[i : i + 4], "little") for i in range(0, len(body) - len(body) % 4, 4))
    return data, fds


def send(sock: socket.socket, message: Message, fds: tuple[int, ...] | list[int] = ()) -> None:
    """Send one message."""
    send_packet(sock, encode(message), fds)


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """One message, None when the far end closed."""
    try:
        data, fds = receive_packet(sock)
    except ConnectionResetError:
        return None, []
    return (decode(data) if data else None), fds


def is_open(sock: socket.socket) -> bool:
    """Whether the far end is there. Takes nothing from the socket."""
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def try_send(sock: socket.socket, message: Message) -> None:
    """Send a message to a peer that may have gone."""
    with contextlib.suppress(OSError):
        send(sock, message)
