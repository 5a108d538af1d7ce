"""Network namespaces held by descriptors: made, entered and kept by a thread, never by the whole process.

`unshare(CLONE_NEWNET)` and `setns` act on the calling thread alone, so a threaded process may use them as long as the
thread finds back. A netlink socket stays in the namespace it was made in, whichever thread uses it later.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runtime.kernel import syscalls
from runtime.network import links
from runtime.network.netlink import Socket

# A namespace that belongs to the host gives its tenant no right to bind low ports or to open ping sockets.
SYSCTLS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
    "net/ipv6/conf/default/disable_ipv6": "1",  # `lo` keeps ::1
    "net/ipv6/conf/default/accept_ra": "0",
}
_PROC_SYS = Path("/proc/sys")


@dataclass(slots=True)
class Namespace:
    """An open namespace. Both descriptors keep it alive: close it when the container has it."""

    fd: int
    sock: Socket

    @classmethod
    def make(cls) -> Self:
        """A fresh namespace with `lo` up and the sysctls a tenant needs (0.9 ms)."""
        with _home_again():
            os.unshare(os.CLONE_NEWNET)
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                for name, value in SYSCTLS.items():
                    write_sysctl(name, value)
                sock = Socket()
                sock.transact([links.set_link(links.LOOPBACK_INDEX)])
            except BaseException:
                os.close(fd)
                raise
        return cls(fd, sock)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The namespace bound at `path`. Raises FileNotFoundError, or OSError(EINVAL) if it is no namespace."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _home_again():
                os.setns(fd, os.CLONE_NEWNET)
                sock = Socket()
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, sock)

    def bind(self, path: Path) -> None:
        """Keep it at a path until `unbind`."""
        path.touch(mode=0o600)
        try:
            syscalls.mount(f"/proc/self/fd/{self.fd}", str(path), "", syscalls.MS_BIND)
        except BaseException:
            path.unlink()
            raise

    def close(self) -> None:
        """Let go of it; what binds or uses it elsewhere keeps it."""
        self.sock.close()
        os.close(self.fd)


def unbind(path: Path) -> None:
    """Undo `bind`; nothing there is no error. The kernel takes the links along when the last process has left."""
    while is_bound(path):
        syscalls.umount2(str(path), syscalls.MNT_DETACH)
    path.unlink(missing_ok=True)


def is_bound(path: Path) -> bool:
    """Whether a namespace is mounted on the file."""
    try:
        return path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def write_sysctl(name: str, value: str) -> None:
    """Write a setting of the calling thread's namespace; one this kernel lacks (IPv6 off) is no error."""
    with contextlib.suppress(FileNotFoundError):
        (_PROC_SYS / name).write_text(value)


@contextlib.contextmanager
def _home_again() -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.setns(home, os.CLONE_NEWNET)
        os.close(home)
