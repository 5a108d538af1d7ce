"""Namespaces and id maps (namespaces(7), user_namespaces(7))."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from runtime.kernel import syscalls

FLAGS = {
    "user": syscalls.CLONE_NEWUSER,
    "pid": syscalls.CLONE_NEWPID,
    "mount": syscalls.CLONE_NEWNS,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "network": syscalls.CLONE_NEWNET,
    "time": syscalls.CLONE_NEWTIME,
}
ALL = sum(FLAGS.values())
FILES = {"mount": "mnt", "network": "net"}  # where their names in /proc/PID/ns are others

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def flags(kinds: Iterable[str]) -> int:
    """The clone flags of these kinds."""
    return sum(FLAGS[kind] for kind in kinds)


def join(path: Path, kind: str) -> None:
    """Enter an existing namespace of that kind, kept at `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.setns(fd, FLAGS[kind])
    finally:
        os.close(fd)


def map_ids(pid: int, kind: str, mappings: Iterable[tuple[int, int, int]]) -> None:
    """Write `uid_map` or `gid_map` (`kind` "uid" or "gid") of a process: (inside, outside, count) each. Once only."""
    text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in mappings)
    fd = os.open(f"/proc/{pid}/{kind}_map", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def same_user(pid: int) -> bool:
    """Whether a process is in the user namespace of this one."""
    there, here = os.stat(f"/proc/{pid}/ns/user"), os.stat("/proc/self/ns/user")  # noqa: PTH116
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def set_clocks(pid: int, offsets: Mapping[str, tuple[int, int]]) -> None:
    """Offsets, seconds and nanoseconds, of "monotonic" and "boottime" in the time namespace a process made for its children."""
    text = "".join(f"{clock} {secs} {nanosecs}\n" for clock, (secs, nanosecs) in offsets.items())
    fd = os.open(f"/proc/{pid}/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def user_namespace(uids: Iterable[tuple[int, int, int]], gids: Iterable[tuple[int, int, int]]) -> int:
    """A descriptor of a new user namespace with these mappings; the process that held it open until then has ended."""
    pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWUSER)
    if not pid:
        signal.pause()
        os._exit(0)
    try:
        map_ids(pid, "uid", uids)
        map_ids(pid, "gid", gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def become_root() -> None:
    """In a fresh user namespace whose ids are mapped: take its uid and gid 0, no further groups."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def bring_loopback_up() -> None:
    """Set `lo` up in this network namespace (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        current = struct.unpack("16sH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", current | _IFF_UP))
