"""The one place that calls the C library by ctypes. Wrappers are named like the system call; its man page is the documentation.

Each raises OSError(errno, text, path). What Python's os, fcntl, signal and socket modules offer is not repeated here.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import struct
import sys
from types import CodeType

from runtime.kernel.syscall_table import numbers

TYPE_CHECKING = False
if TYPE_CHECKING:  # what a start of the command line, which takes two interpreters, does not wait for
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# include/uapi/linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# include/uapi/linux/mount.h, fcntl.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC = 0x1000, 0x4000
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME = 0x10, 0x20, 0x70
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_IDMAP, MOUNT_ATTR_NOSYMFOLLOW = 0x80, 0x00100000, 0x00200000
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW = -100, 0x1000, 0x8000, 0x100
RENAME_EXCHANGE = 2
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 0x02, 0x04, 0x10

# include/uapi/linux/prctl.h, securebits.h, capability.h, seccomp.h
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_CAPBSET_DROP = 4, 8, 23, 24
PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 28, 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
SECBIT_NO_SETUID_FIXUP = 1 << 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522
SECCOMP_SET_MODE_FILTER = 1

# include/uapi/linux/bpf.h
BPF_PROG_LOAD, BPF_PROG_ATTACH = 5, 8
BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE = 15, 6


class clone_args(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid", "set_tid_size",
        "cgroup")]  # fmt: skip


class mount_attr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class open_how(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class sock_fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


_libc = ctypes.CDLL(None, use_errno=True)
_gil = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter lock: the child of clone3 may go on in Python
_libc.syscall.restype = _gil.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_NR = numbers()

type Pathish = str | bytes | Path


def _fail(path: Pathish | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), os.fsdecode(path) if path is not None and path != b"" else None)


def _syscall(name: str, *args: object, path: Pathish | None = None) -> int:
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result: int = _libc.syscall(ctypes.c_long(_NR[name]), *longs)
    if result < 0:
        raise _fail(path)
    return result


def clone3(flags: int, *, cgroup: int | None = None) -> tuple[int, int]:
    """Returns (pid, pidfd) in the caller and (0, -1) in the child. Only for a process with one thread."""
    pidfd = ctypes.c_int(-1)
    args = clone_args(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd))
    if not flags & CLONE_PARENT:  # which takes the signal from the caller
        args.exit_signal = signal.SIGCHLD
    if cgroup is not None:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup
    pid: int = _gil.syscall(ctypes.c_long(_NR["clone3"]), ctypes.byref(args), ctypes.c_long(ctypes.sizeof(args)))
    if pid < 0:
        raise _fail()
    return pid, pidfd.value if pid else -1


def mount(source: Pathish, target: Pathish, fstype: str, flags: int = 0, data: str = "") -> None:
    if _libc.mount(os.fsencode(source), os.fsencode(target), fstype.encode(), flags, data.encode()):
        raise _fail(target)


def umount2(target: Pathish, flags: int = 0) -> None:
    if _libc.umount2(os.fsencode(target), flags):
        raise _fail(target)


def pivot_root(new_root: Pathish, put_old: Pathish) -> None:
    _syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old), path=new_root)


def open_tree(dfd: int, path: Pathish, flags: int) -> int:
    return _syscall("open_tree", dfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC, path=path)


def move_mount(from_fd: int, to_fd: int, to_path: Pathish = b"") -> None:
    """Attach the detached mount `from_fd` on `to_path`, or on the file `to_fd` itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    _syscall("move_mount", from_fd, b"", to_fd, os.fsencode(to_path), flags, path=to_path)


def mount_setattr(
    fd: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, userns_fd: int = 0, recursive: bool = False
) -> None:
    attr = mount_attr(attr_set, attr_clr, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _syscall("mount_setattr", fd, b"", flags, ctypes.byref(attr), ctypes.sizeof(attr))


def fsopen(fstype: str) -> int:
    return _syscall("fsopen", fstype.encode(), FSOPEN_CLOEXEC, path=fstype)


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    _syscall(
        "fsconfig",
        fd,
        command,
        key.encode() if key else None,
        value.encode() if value is not None else None,
        0,
        path=key,
    )


def fsmount(fd: int, attrs: int = 0) -> int:
    return _syscall("fsmount", fd, FSMOUNT_CLOEXEC, attrs)


def openat2(dfd: int, path: Pathish, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    how = open_how(flags | os.O_CLOEXEC, mode, resolve)
    return _syscall("openat2", dfd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), path=path)


def renameat2(old: Pathish, new: Pathish, flags: int) -> None:
    _syscall("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags, path=new)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    result: int = _libc.prctl(option, a, b, c, d)
    if result < 0:
        raise _fail()
    return result


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """The three sets as bit masks of 64 (two words each, capset(2))."""
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    words = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in (effective, permitted, inheritable)]
    data = (ctypes.c_uint32 * 6)(*words)
    _syscall("capset", ctypes.byref(header), ctypes.byref(data))


def seccomp(program: bytes, flags: int = 0) -> int:
    """Install a filter of 8-byte classic BPF instructions; returns a descriptor with SECCOMP_FILTER_FLAG_NEW_LISTENER."""
    prog = sock_fprog(len(program) // 8, program)
    return _syscall("seccomp", SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(prog))


def execveat(fd: int, argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Execute the file that a descriptor names. Returns only by raising OSError."""
    arguments = [os.fsencode(word) for word in argv]
    pairs = [os.fsencode(f"{key}={value}") for key, value in env.items()]
    words = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
    variables = (ctypes.c_char_p * (len(pairs) + 1))(*pairs, None)
    _syscall("execveat", fd, b"", words, variables, AT_EMPTY_PATH)


def join_session_keyring() -> None:
    """A new, anonymous session keyring; nothing happens on a kernel without keys."""
    try:
        _syscall("keyctl", 1, None)  # KEYCTL_JOIN_SESSION_KEYRING
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def fstatfs_type(fd: int) -> int:
    """The magic number of the file system a descriptor is on."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer):
        raise _fail()
    return int.from_bytes(buffer.raw[:8], sys.byteorder)


def close_range(first: int, last: int = 0x7FFFFFFF, flags: int = 0) -> None:
    _syscall("close_range", first, last, flags)


def syncfs(fd: int) -> None:
    _syscall("syncfs", fd)


def setdomainname(name: str) -> None:
    data = name.encode()
    _syscall("setdomainname", data, len(data))


def personality(persona: int) -> None:
    if _libc.personality(ctypes.c_ulong(persona)) < 0:
        raise _fail()


def sched_setattr(
    pid: int, *, policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int
) -> None:
    """Times in nanoseconds."""
    attr = struct.pack("=IIQiIQQQ", 48, policy, flags, nice, priority, runtime, deadline, period)
    _syscall("sched_setattr", pid, attr, 0)


def ioprio_set(pid: int, value: int) -> None:
    """`value` is the class shifted by 13, with the priority."""
    _syscall("ioprio_set", 1, pid, value)  # IOPRIO_WHO_PROCESS


def setfsuid(uid: int) -> None:
    """Raises OSError when it did not take (the call itself reports nothing)."""
    _libc.setfsuid(uid)
    if _libc.setfsuid(-1) != uid:
        raise PermissionError(1, f"setfsuid {uid} refused")


def setfsgid(gid: int) -> None:
    """Raises OSError when it did not take (the call itself reports nothing)."""
    _libc.setfsgid(gid)
    if _libc.setfsgid(-1) != gid:
        raise PermissionError(1, f"setfsgid {gid} refused")


def bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, max(128, len(attr)))
    return _syscall("bpf", command, ctypes.byref(buffer), len(attr))


def bpf_load_device_program(instructions: bytes) -> int:
    """Load eBPF (8-byte instructions) of type CGROUP_DEVICE; returns its descriptor. Licence "Apache" needs no GPL helper."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attr = (
        BPF_PROG_TYPE_CGROUP_DEVICE.to_bytes(4, "little")
        + (len(instructions) // 8).to_bytes(4, "little")
        + ctypes.addressof(code).to_bytes(8, "little")
        + ctypes.addressof(licence).to_bytes(8, "little")
        + bytes(48)
    )
    return bpf(BPF_PROG_LOAD, attr)


def bpf_attach_device_program(cgroup_fd: int, program_fd: int, flags: int = 0) -> None:
    """Attach a loaded program to a v2 group."""
    words = (cgroup_fd, program_fd, BPF_CGROUP_DEVICE, flags, 0)
    bpf(BPF_PROG_ATTACH, b"".join(w.to_bytes(4, "little") for w in words))


def inotify_init1(flags: int) -> int:
    return _syscall("inotify_init1", flags)


def inotify_add_watch(fd: int, path: Pathish, mask: int) -> int:
    return _syscall("inotify_add_watch", fd, os.fsencode(path), mask, path=path)


def inotify_rm_watch(fd: int, wd: int) -> None:
    _syscall("inotify_rm_watch", fd, wd)


def immortalize() -> None:
    """Make every object that exists now immortal (PEP 683): a forked child that uses one no longer writes its count.

    For a process that forks many long-lived children and never frees what it loaded; each child then keeps some 0.6 MB more
    shared. The count is the first word of an object (Include/object.h); nothing is done on other interpreters or builds.
    """
    special_build = hasattr(sys, "gettotalrefcount") or "free-threading" in sys.version
    if sys.implementation.name != "cpython" or not (3, 12) <= sys.version_info < (3, 15) or special_build:
        return
    immortal = ctypes.c_uint64
    seen: set[int] = set()
    stack: list[object] = gc.get_objects()
    while stack:
        item = stack.pop()
        if id(item) in seen or item is seen or item is stack:
            continue
        seen.add(id(item))
        stack.extend(gc.get_referents(item))
        if isinstance(item, CodeType):  # which the collector does not look into
            stack.extend((item.co_consts, item.co_names))
        elif isinstance(item, str):
            hash(item)  # is kept in the object: now, not in each child
    for address in seen:
        immortal.from_address(address).value = 0xFFFFFFFF
