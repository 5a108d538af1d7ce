"""Becoming the program: identity, limits, capabilities, filter, then execve. The last steps of an init and of an exec."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import stat
import struct
import termios
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path

from runtime.dataclass import dataclass
from runtime.kernel import capabilities, mounts, syscalls
from runtime.oci import labels, scheduling, seccomp_profile, users
from runtime.oci.handshake import StartFailed
from runtime.oci.spec import DEFAULT_PATH, Linux, Process

_PTMX = (5, 2)
_CONSOLE = "/dev/console"
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441  # include/uapi/asm-generic/ioctls.h


@dataclass(frozen=True, slots=True)
class Streams:
    """Descriptors for the program: `stdin` -1 means its own /dev/null. `further` are more of them, by the numbers it gets."""

    stdin: int
    stdout: int
    stderr: int
    further: dict[int, int] = field(default_factory=dict)


def enter_groups(doors: Sequence[int]) -> None:
    """Move this process into control groups through descriptors of their files, and close those (Cgroups.doors)."""
    for door in doors:
        os.write(door, b"0")
        os.close(door)


def take_streams(streams: Streams, keep: Sequence[int]) -> None:
    """Put the streams on 0 to 2 and close every descriptor but those to keep (close-on-exec), whatever else was inherited.

    What goes to a number of its own is put there last, by `settle`.
    """
    stdin = os.open("/dev/null", os.O_RDONLY) if streams.stdin < 0 else streams.stdin
    for number, fd in enumerate([os.dup(fd) for fd in (stdin, streams.stdout, streams.stderr)]):
        os.dup2(fd, number)  # from duplicates, so that no stream overwrites another's source
    close_all_but(*keep, *streams.further.values())


def close_all_but(*keep: int) -> None:
    """Close every descriptor above 2 but these."""
    first = 3
    for fd in sorted(set(keep)):
        if fd > first:
            syscalls.close_range(first, fd - 1)
        first = max(first, fd + 1)
    syscalls.close_range(first)


def settle(further: dict[int, int], keep: int) -> int:
    """Move descriptors to the numbers the program gets them by, inheritable; returns where the kept one is now."""
    above = max((*further, keep), default=2) + 1
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for number, fd in further.items()}
    kept = fcntl.fcntl(keep, fcntl.F_DUPFD_CLOEXEC, above)
    close_all_but(kept, *moved.values())
    for number, fd in moved.items():
        os.dup2(fd, number)
        os.close(fd)
    return kept


def take_terminal(process: Process, give: Callable[[int], None]) -> None:
    """Make a terminal in the container's own devpts, put it on 0 to 2 as the controlling one, give its other side away."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        number = os.fstat(master).st_rdev
        if (os.major(number), os.minor(number)) != _PTMX:
            raise StartFailed("4 streams", errno.ENODEV, "/dev/pts/ptmx is no terminal's: mount a devpts on /dev/pts")
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        terminal = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        if process.console_size:
            resize(master, process.console_size.height, process.console_size.width)
        give(master)
    finally:
        os.close(master)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(terminal, fd)
    os.close(terminal)


def bind_console() -> None:
    """Make the terminal on stdin /dev/console too, as the specification has it. Only in the container's own root.

    By descriptors: neither the terminal nor its place is looked up by a name that somebody could change meanwhile
    (CVE-2025-52565), and a link in its place is no place.
    """
    terminal = mounts.clone("", dir_fd=0)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(mounts.target_inside(root, _CONSOLE, folder=False))
        mounts.attach(terminal, mounts.open_inside(root, _CONSOLE, links=False))
    finally:
        os.close(root)


def resize(terminal: int, height: int, width: int) -> None:
    """Say how many characters a terminal has (TIOCSWINSZ(2const), 16 bits each); its program gets SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", min(height, 0xFFFF), min(width, 0xFFFF), 0, 0))


def identify(process: Process) -> users.Identity:
    """Who the program runs as."""
    if process.user.username:
        return users.resolve(process.user.username)
    return users.Identity(process.user.uid, process.user.gid, process.user.additional_gids)


def enter_folder(cwd: str) -> None:
    """Change into the working folder, made when it is missing, as Docker does.

    One outside the root, by a link like /proc/self/fd/7 to a folder of the host's, is refused (CVE-2024-21626).
    """
    try:
        os.chdir(cwd)
    except FileNotFoundError:
        Path(cwd).mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chdir(cwd)
    try:
        inside = os.getcwd().startswith("/")  # noqa: PTH109  "(unreachable)…", or ENOENT
    except FileNotFoundError:
        inside = False
    if not inside:
        raise StartFailed("4 user", errno.ENOENT, f"the working folder {cwd} is outside the container")


def own_streams(identity: users.Identity, *, terminal: bool) -> None:
    """Give the pipes on 0 to 2 to the user, so that it can open /dev/stdout again, and a `terminal` of its own."""
    for fd in (0, 1, 2):
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode):
            os.fchown(fd, identity.uid, identity.gid)
        elif terminal and identity.uid:
            os.fchown(fd, identity.uid, -1)


def confine(process: Process, identity: users.Identity, linux: Linux) -> int:
    """Take the identity, capabilities, labels, no_new_privs and filter. Nothing that needs rights can follow.

    Returns the descriptor of a filter that notifies, else -1.
    """
    sets, profile, listener = process.capabilities, linux.seccomp, -1
    if process.user.umask is not None:
        os.umask(process.user.umask)
    if process.scheduler or process.io_priority or linux.personality:
        scheduling.apply(process, linux.personality)
    labels.set_exec(process)
    capabilities.drop_bounding(capabilities.mask(sets.bounding))
    if profile is not None and not process.no_new_privileges:  # which needs CAP_SYS_ADMIN, so before capset
        listener = seccomp_profile.install(profile)
    os.setgroups(list(identity.groups))
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    root = identity.uid == 0
    capabilities.apply(
        effective=capabilities.mask(sets.effective) if root else capabilities.mask(sets.ambient),
        permitted=capabilities.mask(sets.permitted),
        inheritable=capabilities.mask(sets.inheritable),
        ambient=capabilities.mask(sets.ambient),
    )
    if process.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if profile is not None:
            listener = seccomp_profile.install(profile)
    return listener


def default_signals() -> None:
    """Undo what the interpreter set: an ignored SIGPIPE would reach the program."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def environment(process: Process, identity: users.Identity) -> dict[str, str]:
    """The environment, with PATH and HOME where they are missing."""
    found = dict(entry.partition("=")[::2] for entry in process.env if "=" in entry)
    found.setdefault("PATH", DEFAULT_PATH)
    found.setdefault("HOME", identity.home or "/")
    return found


def execute(process: Process, env: dict[str, str], step: str) -> None:
    """execve; returns only by raising StartFailed in Docker's words (its clients derive 126 and 127 from them)."""
    name, failure = process.args[0], errno.ENOENT
    for path in _tries(name, env):
        try:
            os.execve(path, list(process.args), env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise StartFailed(step, error.errno or 0, f'exec: "{name}": {_text(error)}') from error
            failure = errno.EACCES if error.errno == errno.EACCES else failure
    raise _not_found(step, name, failure)


def look_for(process: Process, env: dict[str, str], step: str) -> None:
    """Raise what `execute` would for a program that is not there, as far as can be seen before."""
    name, failure = process.args[0], errno.ENOENT
    for path in _tries(name, env):
        if os.path.isfile(path):  # noqa: PTH113
            if os.access(path, os.X_OK):
                return
            failure = errno.EACCES
    raise _not_found(step, name, failure)


def _tries(name: str, env: dict[str, str]) -> list[str]:
    return [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in env["PATH"].split(":")]


def _not_found(step: str, name: str, failure: int) -> StartFailed:
    if failure == errno.EACCES:
        return StartFailed(step, failure, f'exec: "{name}": permission denied')
    words = "no such file or directory" if "/" in name else "executable file not found in $PATH"
    return StartFailed(step, failure, f'exec: "{name}": {words}')


def _text(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def limit(pid: int, process: Process) -> list[str]:
    """Set another process's resource limits; a hard limit that may not be raised is held, and said so."""
    notes = []
    for wanted in process.rlimits:
        kind: int = getattr(resource, wanted.type, -1)
        if kind < 0:
            raise StartFailed("2 clone", errno.EINVAL, f"{wanted.type} is no resource limit")
        try:
            resource.prlimit(pid, kind, (wanted.soft, wanted.hard))
        except (PermissionError, ValueError):
            hard = (
                min(resource.prlimit(pid, kind)[1], wanted.hard) if wanted.hard >= 0 else resource.prlimit(pid, kind)[1]
            )
            resource.prlimit(pid, kind, (min(wanted.soft, hard) if wanted.soft >= 0 else hard, hard))
            notes.append(f"{wanted.type} is held at {hard}: the host allows no more.")
    return notes
