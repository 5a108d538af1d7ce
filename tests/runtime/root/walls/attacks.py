"""What a hostile program tries, run inside a container by an interpreter that is lent to it: `attacks.py JSON`.

JSON has `names`, the attacks to try, `calls`, system calls by number, and `target`, what the test tells them. Each attack runs in
a process of its own and one line says how it went: "NAME through", "NAME EPERM" (any errno) or "NAME empty". All are harmless
where they get through: a wrong argument, an errno that only comes behind the check, a change to what the container itself owns.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_given: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
_MS_BIND, _MS_MOVE, _MNT_DETACH = 4096, 8192, 2
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
# The errnos of these calls come behind the kernel's check of rights, so they count as through.
_BEHIND = {"kexec_load": "EINVAL", "reboot": "EINVAL", "swapoff": "ENOENT", "acct": "ENOENT", "syslog": "EINVAL",
           "adjtimex": "EINVAL", "init_module": "ENOEXEC", "delete_module": "ENOENT", "pivot_root": "EINVAL", "bpf": "ENOENT",
           "quotactl": "ENOENT", "finit_module": "EBADF", "kexec_file_load": "EBADF"}  # fmt: skip

ATTACKS: dict[str, Callable[[], str | None]] = {}


def attack(function: Callable[[], str | None]) -> Callable[[], str | None]:
    """One of them, by its function's name. It raises OSError, or returns None or "empty"."""
    ATTACKS[function.__name__] = function
    return function


def call(name: str, *arguments: int | bytes | ctypes.Array[Any] | None) -> int:
    """A system call by name; raises OSError."""
    result: int = _libc.syscall(
        ctypes.c_long(_given["calls"][name]),
        *(ctypes.c_long(value) if isinstance(value, int) else value for value in arguments),
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def _first(*paths: str) -> str:
    return next((path for path in paths if os.path.exists(path)), paths[0])


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


# --- what /proc and /sys offer ---


def _write(path: str) -> None:
    """Only opened: what a write would do is well known."""
    os.close(os.open(path, os.O_WRONLY))


def _read(path: str) -> str | None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return None if os.read(fd, 64) else "empty"
    finally:
        os.close(fd)


@attack
def write_proc_sys() -> None:
    _write("/proc/sys/kernel/panic")


@attack
def write_core_pattern() -> None:
    _write("/proc/sys/kernel/core_pattern")


@attack
def write_sysrq() -> None:
    _write("/proc/sysrq-trigger")


@attack
def write_sys() -> None:
    _write(_first("/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state"))


@attack
def write_uevent_helper() -> None:
    _write(_first("/sys/kernel/uevent_helper", "/sys/kernel/rcu_normal", "/sys/kernel/profiling", "/sys/power/state"))


@attack
def read_kcore() -> str | None:
    return _read("/proc/kcore")


@attack
def read_keys() -> str | None:
    return _read("/proc/keys")


@attack
def read_kernel_symbols() -> str | None:
    return _read("/proc/kallsyms")


@attack
def read_kernel_log() -> str | None:
    """Only opened: reading takes away."""
    fd = os.open("/proc/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    return "empty" if os.fstat(fd).st_rdev == os.makedev(1, 3) else None


@attack
def look_into_firmware() -> str | None:
    return None if os.listdir("/sys/firmware") else "empty"


@attack
def write_cgroup() -> None:
    """Of the container's own group: release_agent's switch on v1, more room on v2."""
    _write(
        _first(
            "/sys/fs/cgroup/memory/notify_on_release",
            "/sys/fs/cgroup/pids/notify_on_release",
            "/sys/fs/cgroup/cgroup.procs",
        )
    )


@attack
def make_cgroup() -> None:
    base = _first("/sys/fs/cgroup/pids", "/sys/fs/cgroup")
    os.mkdir(f"{base}/own")
    os.rmdir(f"{base}/own")


# --- other processes and namespaces; `target` is what the test prepared ---


@attack
def signal_another() -> None:
    os.kill(_given["target"]["pid"], 0)


@attack
def trace_another() -> None:
    call("ptrace", 0x4206, _given["target"]["pid"], 0, 0)  # PTRACE_SEIZE, which does not stop it


@attack
def read_anothers_memory() -> None:
    os.close(os.open(f"/proc/{_given['target']['pid']}/mem", os.O_RDONLY))


@attack
def anothers_root() -> None:
    os.listdir(f"/proc/{_given['target']['pid']}/root/")


@attack
def abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + _given["target"]["abstract"])


@attack
def shared_memory() -> None:
    call("shmget", _given["target"]["shm"], 1, 0o600)


# --- the network ---


def _netlink(kind: int, flags: int, body: bytes) -> None:
    """One request of rtnetlink(7); raises what it answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, flags | 5, 1, 0) + body)
        answer = sock.recv(4096)
    code = struct.unpack_from("=i", answer, 16)[0]
    if code:
        raise OSError(-code, "netlink")


def _lo() -> int:
    return socket.if_nametoindex("lo")


@attack
def add_address() -> None:
    address = struct.pack("=HH4B", 8, 2, 127, 9, 9, 9)
    _netlink(20, 0x600, struct.pack("=BBBBI", 2, 32, 0, 0, _lo()) + address)


@attack
def take_link_down() -> None:
    _netlink(16, 0, struct.pack("=BxHiII", 0, 0, _lo(), 0, 1))


@attack
def add_route() -> None:
    body = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 3, 253, 1, 0)
    _netlink(24, 0x600, body + struct.pack("=HH4B", 8, 1, 127, 8, 8, 8) + struct.pack("=HHI", 8, 4, _lo()))


@attack
def change_shaping() -> None:
    kind = struct.pack("=HH8s", 4 + 6, 1, b"pfifo\0")
    _netlink(36, 0x500, struct.pack("=BxxxiIII", 0, _lo(), 0x10000, 0xFFFFFFFF, 0) + kind)


@attack
def raw_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@attack
def packet_socket() -> None:
    socket.socket(17, socket.SOCK_RAW, socket.htons(3)).close()  # AF_PACKET


# --- devices, links and the interpreter that made the container ---


def _fuse(path: str) -> None:
    os.close(os.open(path, os.O_RDWR))


@attack
def make_device() -> None:
    os.mknod("/tmp/fuse", 0o020666, os.makedev(10, 229))


@attack
def make_and_open_device() -> None:
    os.mknod("/tmp/own-fuse", 0o020666, os.makedev(10, 229))
    _fuse("/tmp/own-fuse")


@attack
def make_and_open_console() -> None:
    """The host's: what is written there is on its screen."""
    os.mknod("/tmp/console", 0o020666, os.makedev(5, 1))
    os.close(os.open("/tmp/console", os.O_RDWR | os.O_NOCTTY))


@attack
def open_device_of_image() -> None:
    _fuse("/fuse-of-the-image")


def _change(path: str) -> None:
    """CVE-2019-5736 without its harm: to the mode that the file has. A write gets ETXTBSY as long as it runs."""
    os.chmod(path, os.stat(path).st_mode & 0o7777)


@attack
def change_own_program() -> None:
    _change("/proc/self/exe")


@attack
def change_first_program() -> None:
    _change("/proc/1/exe")


@attack
def break_out_of_chroot() -> str | None:
    """The classic: a folder kept open outside a second root leads up past the first."""
    os.makedirs("/tmp/inner", exist_ok=True)
    out = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/inner")
    os.fchdir(out)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return None if os.path.exists(_given["target"]["outside"]) else "empty"


# --- filling up ---


def _fill(path: str, count: int) -> None:
    """Written by pieces of 64 kB."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for _ in range(count):
        os.write(fd, bytes(1 << 16))


@attack
def fill_shared_memory() -> None:
    _fill("/dev/shm/full", 128)  # 8 MB


@attack
def fill_dev() -> None:
    _fill("/dev/full-of-it", 1280)  # 80 MB


@attack
def make_many_files() -> None:
    folder = _given["target"]["folder"]
    for number in range(_given["target"]["count"]):
        os.close(os.open(f"{folder}/file-{number}", os.O_WRONLY | os.O_CREAT, 0o600))


@attack
def fork_bomb() -> None:
    pids: list[int] = []
    try:
        for _ in range(40):
            pid = os.fork()
            if not pid:
                signal.pause()
            pids.append(pid)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@attack
def thread_bomb() -> None:
    ended = _thread.allocate_lock()
    ended.acquire()
    try:
        for _ in range(40):
            _thread.start_new_thread(ended.acquire, ())
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error


@attack
def dump_core() -> str | None:
    """Where the kernel's pattern is a relative one, into the working folder."""
    os.chdir("/tmp")
    pid = os.fork()
    if not pid:
        os.abort()
    os.waitpid(pid, 0)
    return None if any(name.startswith("core") for name in os.listdir("/tmp")) else "empty"


# --- descriptors from one container to another ---


@attack
def hand_out_a_folder() -> None:
    """Over a socket in a shared folder, then wait to be killed."""
    os.makedirs("/tmp/own")
    os.chmod("/tmp/own", 0o755)
    os.close(os.open("/tmp/own/secret", os.O_WRONLY | os.O_CREAT, 0o600))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("/shared/new")
        os.chmod("/shared/new", 0o666)
        listening.listen(8)
        os.rename("/shared/new", "/shared/door")
        while True:
            taker, _ = listening.accept()
            socket.send_fds(taker, [b"x"], [os.open("/tmp/own", os.O_RDONLY)])


@attack
def open_by_a_folder_that_came() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/shared/door")
        _, fds, _, _ = socket.recv_fds(client, 8, 1)
    os.close(os.open("secret", os.O_RDONLY, dir_fd=fds[0]))


@attack
def give_stdout_away() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/shared/taker")
        socket.send_fds(client, [b"x"], [1])


@attack
def see_a_leak() -> str | None:
    """A descriptor beside the streams, the one that lists them, and this process's pipe."""
    names = [os.readlink(f"/proc/1/fd/{number}") for number in os.listdir("/proc/1/fd") if int(number) > 2]
    return None if any(name.endswith(_given["target"]["leak"]) for name in names) else "empty"


def _outcome(function: Callable[[], str | None]) -> str:
    try:
        return function() or "through"
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        return "through" if _BEHIND.get(function.__name__) == name else name


def main() -> None:
    """All that are named, one after another."""
    for name in _given["names"]:
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            _libc.unshare(_CLONE_NEWNS)  # where that is possible, so that no attack spoils the next one's mounts
            os.write(theirs, _outcome(ATTACKS[name]).encode())
            os._exit(0)
        os.close(theirs)
        said = os.read(ours, 100).decode() or "died"
        os.close(ours)
        os.waitpid(pid, 0)
        print(name, said, flush=True)


if __name__ == "__main__":
    main()
