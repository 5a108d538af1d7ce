"""What /proc and /sys offer, devices, the runtime's program, and filling up."""

from __future__ import annotations

import _thread
import errno
import os
import signal

from trying import GIVEN, attack, first

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
    _write(first("/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state"))


@attack
def write_uevent_helper() -> None:
    _write(first("/sys/kernel/uevent_helper", "/sys/kernel/rcu_normal", "/sys/kernel/profiling", "/sys/power/state"))


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
        first(
            "/sys/fs/cgroup/memory/notify_on_release",
            "/sys/fs/cgroup/pids/notify_on_release",
            "/sys/fs/cgroup/cgroup.procs",
        )
    )


@attack
def make_cgroup() -> None:
    base = first("/sys/fs/cgroup/pids", "/sys/fs/cgroup")
    os.mkdir(f"{base}/own")
    os.rmdir(f"{base}/own")


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
    return None if os.path.exists(GIVEN["target"]["outside"]) else "empty"


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
    folder = GIVEN["target"]["folder"]
    for number in range(GIVEN["target"]["count"]):
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
