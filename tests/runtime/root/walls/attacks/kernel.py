"""System calls that change what all share."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct

from trying import attack, call

_MS_BIND, _MS_MOVE, _MNT_DETACH = 4096, 8192, 2
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
_AT_FDCWD = -100

# --- mounts ---


@attack
def mount() -> None:
    call("mount", b"none", b"/tmp", b"tmpfs", 0, None)


@attack
def mount_by_descriptor() -> None:
    call("fsopen", b"tmpfs", 0)


@attack
def open_tree() -> None:
    call("open_tree", _AT_FDCWD, b"/", 1)


@attack
def umount() -> None:
    call("umount2", b"/sys", _MNT_DETACH)


@attack
def move_masks_away() -> None:
    os.makedirs("/tmp/moved", exist_ok=True)
    call("mount", b"/sys", b"/tmp/moved", None, _MS_MOVE, None)


@attack
def remount_writable() -> None:
    call("mount", None, b"/sys", None, _MS_BIND | 32, None)


@attack
def pivot_root() -> None:
    call("pivot_root", b"/tmp", b"/tmp")


@attack
def mount_cgroup_hierarchy() -> None:
    """The first half of an escape by release_agent (CVE-2022-0492)."""
    os.makedirs("/tmp/cgroup", exist_ok=True)
    v2 = "cgroup2" in open("/proc/filesystems").read() and not os.path.exists("/sys/fs/cgroup/memory")
    kind, data = (b"cgroup2", None) if v2 else (b"cgroup", b"memory")
    call("mount", b"cgroup", b"/tmp/cgroup", kind, 0, data)


# --- namespaces, from inside ---


@attack
def unshare_mounts() -> None:
    call("unshare", _CLONE_NEWNS)


@attack
def unshare_user() -> None:
    call("unshare", _CLONE_NEWUSER)


@attack
def clone_user() -> None:
    pid = call("clone", _CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


@attack
def clone3_user() -> None:
    pid = call("clone3", struct.pack("8Q", _CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64)
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


@attack
def setns() -> None:
    call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), _CLONE_NEWNET)


@attack
def set_host_name() -> None:
    call("sethostname", b"other", 5)


# --- the kernel itself ---


@attack
def init_module() -> None:
    call("init_module", b"none", 4, b"")


@attack
def finit_module() -> None:
    call("finit_module", -1, b"", 0)


@attack
def delete_module() -> None:
    call("delete_module", b"no_such_module", 0)


@attack
def kexec_load() -> None:
    call("kexec_load", 0, 1 << 20, None, 0)


@attack
def kexec_file_load() -> None:
    call("kexec_file_load", -1, -1, 0, None, 0)


@attack
def reboot() -> None:
    call("reboot", 1, 1, 0, None)


@attack
def swapoff() -> None:
    call("swapoff", b"/no/such")


@attack
def set_clock() -> None:
    call("settimeofday", None, None)


@attack
def adjtimex() -> None:
    call("adjtimex", struct.pack("I", 0x4000) + bytes(252))  # ADJ_TICK, to 0, which none has


@attack
def acct() -> None:
    call("acct", b"/no/such")


@attack
def syslog() -> None:
    call("syslog", 8, None, 0)


@attack
def bpf() -> None:
    call("bpf", 11, struct.pack("III", 0x7FFFFFF0, 0, 0) + bytes(116), 128)


@attack
def perf_event_open() -> None:
    attr = struct.pack("IIQQQQQ", 1, 128, 0, 0, 0, 0, 1 << 5 | 1 << 6) + bytes(
        80
    )  # software clock, of user space alone
    call("perf_event_open", ctypes.create_string_buffer(attr, 128), 0, -1, -1, 0)


@attack
def keyctl() -> None:
    call("keyctl", 0, -3, 1)


@attack
def add_key() -> None:
    call("add_key", b"user", b"a", b"b", 1, -2)


@attack
def request_key() -> str | None:
    try:
        call("request_key", b"user", b"none", None, 0)
    except OSError as error:
        if error.errno != errno.ENOKEY:
            raise
    return None


@attack
def io_uring() -> None:
    call("io_uring_setup", 1, ctypes.create_string_buffer(120))


@attack
def userfaultfd() -> None:
    call("userfaultfd", 1)  # UFFD_USER_MODE_ONLY, which everybody may


@attack
def open_by_handle() -> None:
    """CVE-2014-3519, "Shocker": a file by its number, past every root."""
    with open("/dev/shm/handle", "w"):
        pass
    handle, number = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136), ctypes.create_string_buffer(8)
    call("name_to_handle_at", _AT_FDCWD, b"/dev/shm/handle", handle, number, 0)
    call("open_by_handle_at", os.open("/dev/shm", os.O_RDONLY), handle, os.O_RDONLY)


@attack
def fanotify() -> None:
    call("fanotify_init", 0x200, 0)  # FAN_REPORT_FID, which everybody may


@attack
def numa_policy() -> None:
    call("set_mempolicy", 0, None, 0)


@attack
def take_descriptor() -> None:
    call("pidfd_getfd", os.pidfd_open(os.getpid()), 0, 0)


@attack
def compare_kernel_objects() -> None:
    call("kcmp", os.getpid(), os.getpid(), 0, 0, 0)


@attack
def no_address_randomisation() -> None:
    call("personality", 0x0040000)


@attack
def kernel_crypto() -> None:
    socket.socket(38, socket.SOCK_SEQPACKET).close()  # AF_ALG


@attack
def socket_of_virtual_machines() -> None:
    socket.socket(40, socket.SOCK_STREAM).close()  # AF_VSOCK
