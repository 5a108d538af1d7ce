"""Run a command in a virtual machine that has unified cgroups (v2): `python scripts/vm.py -- COMMAND…`.

The guest's root file system is this machine's, made writable by an overlay that is thrown away, so the checkout, its
virtual environment and every installed tool are there at the same paths. The command's output comes on stdout, its
exit code is ours (124 after the time-out, 125 if the guest could not run it). `$MOORAGE_TEST_STATE` in the guest is an
ext4 file system on a loop device. Needs root, and Debian packages that `make setup-dev` installs.
"""

from __future__ import annotations

import argparse
import contextlib
import lzma
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = {
    "qemu": ("/usr/bin/qemu-system-x86_64",),
    "virtiofsd": ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"),  # since Debian 13 a package of its own
    "kernel": ("/boot/vmlinuz-*-cloud-amd64",),
    "busybox": ("/usr/bin/busybox",),
    "modprobe": ("/usr/sbin/modprobe",),
}
BOOT_MODULES = ("virtio_pci", "virtiofs", "overlay")
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PYTEST_ADDOPTS", "PYTHONPATH", "VIRTUAL_ENV")
SHARE = "/run/vm/share"  # where the guest has the folder of `--share`
FILES = Path(__file__).parent / "vm"
TIMED_OUT, GUEST_FAILED = 124, 125


@dataclass(frozen=True, slots=True)
class Guest:
    """What to boot: memory and scratch in MiB, `folder` is where the command starts, `share` one it may write in."""

    command: tuple[str, ...]
    folder: Path
    share: Path | None
    memory_mib: int
    cpus: int
    timeout_s: float


def program(name: str, root: Path = Path("/")) -> str:
    """Where a program of PROGRAMS is; raises SystemExit with the way out where it is missing."""
    for place in PROGRAMS[name]:
        if found := sorted(root.glob(place.lstrip("/"))):
            return str(found[-1])
    raise SystemExit(f"vm: there is no {' or '.join(PROGRAMS[name])}: run make setup-dev, which installs it.")


def newest_kernel() -> tuple[str, Path]:
    """Release and image of the newest installed cloud kernel."""
    images = sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"), key=lambda path: path.stat().st_mtime)
    return images[-1].name.removeprefix("vmlinuz-"), images[-1]


def boot_modules(release: str) -> list[Path]:
    """Module files that make the shared root mountable, in load order."""
    found: dict[str, None] = {}
    for name in BOOT_MODULES:
        lines = _output("modprobe", "-S", release, "--show-depends", name).splitlines()
        found.update({line.split()[1]: None for line in lines if line.startswith("insmod ")})
    return [Path(path) for path in found]


def cpio_entry(name: str, mode: int, content: bytes = b"") -> bytes:
    """One entry of a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    raw = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % value for value in fields) + raw
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def initramfs(release: str) -> bytes:
    """The first root file system: busybox, the modules of `boot_modules` and `vm/init`."""
    entries = [cpio_entry(folder, 0o040755) for folder in ("bin", "mod")]
    entries.append(cpio_entry("bin/busybox", 0o100755, Path("/usr/bin/busybox").read_bytes()))
    entries.append(cpio_entry("init", 0o100755, (FILES / "init").read_bytes()))
    names = []
    for path in boot_modules(release):
        raw = path.read_bytes()
        names.append(path.name.removesuffix(".xz"))
        entries.append(cpio_entry(f"mod/{names[-1]}", 0o100644, lzma.decompress(raw) if path.suffix == ".xz" else raw))
    entries.append(cpio_entry("mod/order", 0o100644, "".join(f"{name}\n" for name in names).encode()))
    return b"".join(entries) + cpio_entry("TRAILER!!!", 0)


def fill_out_folder(out: Path, guest: Guest) -> None:
    """Write what the guest reads from its writable share: script, environment and command."""
    shutil.copy(FILES / "guest.sh", out / "guest.sh")
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    passed["PATH"] = f"{sys.prefix}/bin:{passed.get('PATH', os.defpath)}"
    passed |= {name: value for name, value in os.environ.items() if name.startswith("MOORAGE_")}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in passed.items()]
    lines += [f"FOLDER={shlex.quote(str(guest.folder))}", f"SCRATCH={guest.memory_mib // 2}M"]
    (out / "environment").write_text("\n".join(lines) + "\n")
    (out / "command").write_text("exec " + shlex.join(guest.command) + "\n")


@contextlib.contextmanager
def root_read_only() -> Iterator[Path]:
    """Bind this machine's root read-only on an empty folder, in a mount namespace of our own.

    The folder is removed by rmdir alone, never by a walk: a walk would go through the mount.
    """
    os.unshare(os.CLONE_NEWNS)
    _output("mount", "--make-rprivate", "/")
    target = Path(tempfile.mkdtemp(prefix="moorage-vm-root-"))
    try:
        _output("mount", "--bind", "/", str(target))
        _output("mount", "-o", "remount,bind,ro", str(target))
        yield target
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=False)
        target.rmdir()


@contextlib.contextmanager
def virtiofsd(socket: Path, source: Path, log: Path, *options: str) -> Iterator[None]:
    """A file server for one share of the guest, for as long as the block lasts."""
    command = ["setpriv", "--pdeathsig", "KILL", program("virtiofsd"), f"--socket-path={socket}"]
    # Without CAP_SYS_RESOURCE raising the limit of open files, its default, fails.
    command += ["-o", f"source={source}", "-o", "sandbox=chroot", "--rlimit-nofile=0", *options]
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"virtiofsd for {source} did not start: {log.read_text(errors='replace').strip()}")
            time.sleep(0.01)  # it has no readiness signal but its socket
        yield
    finally:
        process.kill()
        process.wait()


def qemu_command(guest: Guest, work: Path, kernel: Path) -> list[str]:
    """QEMU's command line. KVM is not used: nested, it hangs on machines that have /dev/kvm."""
    size = f"{guest.memory_mib}M"
    shares = ["host", "out", *(["share"] if guest.share else [])]
    # fmt: off
    command = [
        "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64",
        "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(guest.cpus), "-m", size,
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-object", f"memory-backend-memfd,id=mem,size={size},share=on", "-numa", "node,memdev=mem",
        "-kernel", str(kernel), "-initrd", str(work / "initramfs"),
        "-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all mitigations=off nokaslr tsc=reliable clocksource=tsc rcupdate.rcu_expedited=1",
        "-serial", f"file:{work / 'console'}", "-serial", "stdio",
    ]
    # fmt: on
    for tag in shares:
        command += ["-chardev", f"socket,id={tag},path={work / tag}.sock"]
        command += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    return command


def run(guest: Guest) -> int:
    """Boot, run the command, stop. Returns the exit code; everything made for it is gone afterwards."""
    release, kernel = newest_kernel()
    with tempfile.TemporaryDirectory(prefix="moorage-vm-") as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        out = work / "out"
        out.mkdir()
        (work / "initramfs").write_bytes(initramfs(release))
        fill_out_folder(out, guest)
        root = stack.enter_context(root_read_only())
        stack.enter_context(virtiofsd(work / "host.sock", root, work / "log", "-o", "cache=always", "-o", "xattr"))
        stack.enter_context(virtiofsd(work / "out.sock", out, work / "log", "-o", "cache=auto"))
        if guest.share:
            stack.enter_context(virtiofsd(work / "share.sock", guest.share, work / "log", "-o", "cache=none"))
        qemu = subprocess.Popen(qemu_command(guest, work, kernel), stdin=subprocess.DEVNULL)
        try:
            qemu.wait(guest.timeout_s)
        except subprocess.TimeoutExpired:
            print(f"vm: no end after {guest.timeout_s:g} s; raise --timeout.", file=sys.stderr)
            return TIMED_OUT
        finally:
            qemu.kill()
            qemu.wait()
        if not (out / "rc").exists():
            console = (work / "console").read_text(errors="replace")
            print(f"vm: the guest ended without a result. Its console:\n{console[-4000:]}", file=sys.stderr)
            return GUEST_FAILED
        return int((out / "rc").read_text())


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Read the command line, check programs, run."""
    parser = argparse.ArgumentParser(prog="scripts/vm.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--timeout", type=float, default=1800, metavar="SECONDS", help="for boot and command, default 1800"
    )
    parser.add_argument(
        "--memory", type=int, default=3072, metavar="MIB", help="half of it may become disk, default 3072"
    )
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--share", type=Path, metavar="FOLDER", help=f"is {SHARE} in the guest, which may write in it")
    parser.add_argument("command", nargs="+", help="after --")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("vm: needs root for mounts; call it with sudo.", file=sys.stderr)
        return GUEST_FAILED
    for name in PROGRAMS:
        program(name)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(GUEST_FAILED))  # so that mounts and folders go with us
    return run(Guest(tuple(args.command), Path.cwd(), args.share, args.memory, args.cpus, args.timeout))


if __name__ == "__main__":
    sys.exit(main())
