"""Paths that lead astray: symbolic links as mount targets, swapped while a container is made, "..", and links of /proc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import RuntimeFault
from runtime.kernel import mounts, process
from runtime.oci import labels, mountplan, program
from runtime.oci.mountoptions import NO_LINKS
from runtime.oci.spec import Device, Mount, Process, Spec
from tests.runtime.root.walls.conftest import COMMAND, Walls, Yard

MADE = Mount(destination="/volume/a/made", type="tmpfs", source="tmpfs")
AT_FDCWD, RENAME_EXCHANGE = -100, 2
_libc = ctypes.CDLL(None)


@pytest.fixture
def outside(yard: Yard) -> Path:
    """A folder of the host's that no container is given."""
    folder = yard.folder / f"outside{yard.made}"
    folder.mkdir(exist_ok=True)
    (folder / "of-the-host").touch()
    return folder


def naive_open(root: int, path: str, *, flags: int = os.O_PATH, links: bool = True) -> int:
    """What a runtime does that follows the image's links on the host."""
    return os.open(path.lstrip("/") or ".", flags | os.O_CLOEXEC, dir_fd=root)


def bind(source: Path, target: str, *options: str) -> Mount:
    """A folder of the host's, lent."""
    return Mount(destination=target, type="bind", source=str(source), options=("rbind", *options))


def also(spec: Spec, *more: Mount) -> Spec:
    """With these mounts after its own."""
    return replace(spec, mounts=(*spec.mounts, *more))


def with_device(spec: Spec, path: str) -> Spec:
    """With another node of /dev/zero."""
    return replace(spec, linux=replace(spec.linux, devices=(Device(type="c", path=path, major=1, minor=5),)))


def names(folder: Path) -> set[str]:
    """What has come into it."""
    return {path.name for path in folder.iterdir()} - {"of-the-host"}


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Another process exchanges two names as fast as it goes."""

    def exchange() -> None:
        while True:
            _libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)

    pid = process.fork(exchange)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("naive", [False, True], ids=["held", "without"])
@pytest.mark.parametrize("what", ["mount", "device"])
def test_a_link_as_a_target_stays_in_the_root(
    yard: Yard, outside: Path, monkeypatch: pytest.MonkeyPatch, what: str, naive: bool
) -> None:
    """CVE-2019-19921 and its like: folders and devices would be made on the host."""
    image = yard.image()
    (image / "volume").mkdir()
    (image / "volume/a").symlink_to(outside)
    if naive:
        monkeypatch.setattr(mounts, "open_inside", naive_open)
    spec = yard.spec("true", walls=COMMAND)
    yard.run(also(spec, MADE) if what == "mount" else with_device(spec, MADE.destination), image=image)
    assert names(outside) == ({"made"} if naive else set())


@pytest.mark.parametrize("naive", [False, True], ids=["held", "without"])
def test_a_target_that_is_swapped_meanwhile_stays_in_the_root(
    yard: Yard, outside: Path, monkeypatch: pytest.MonkeyPatch, naive: bool
) -> None:
    """CVE-2021-30465: another container that has the same volume wins the race now and then."""
    volume = yard.folder / f"volume{yard.made}"
    (volume / "a").mkdir(parents=True)
    (volume / "b").symlink_to(outside)
    if naive:
        monkeypatch.setattr(mounts, "open_inside", naive_open)
    with swapping(volume / "a", volume / "b"):
        for _ in range(60 if naive else 12):
            spec = also(yard.spec("true", walls=COMMAND), bind(volume, "/tmp/volume"))
            yard.run(also(spec, replace(MADE, destination="/tmp/volume/a/made")))
            if names(outside):
                break
    assert names(outside) == ({"made"} if naive else set())


@pytest.mark.parametrize("naive", [False, True], ids=["held", "without"])
def test_a_null_device_that_is_something_else_masks_nothing(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, naive: bool
) -> None:
    """CVE-2025-31133: a /dev from elsewhere whose `null` is a link puts the file it leads to, writable, where a mask should be."""
    devices = yard.folder / f"dev{yard.made}"
    devices.mkdir()
    (devices / "null").symlink_to("/proc/sys/kernel/hostname")
    for name in ("pts", "shm", "mqueue"):
        (devices / name).mkdir()
    if naive:
        monkeypatch.setattr(
            mountplan, "_null", lambda place: mounts.clone("", dir_fd=mounts.open_inside(place.root, "/dev/null"))
        )
    spec = yard.spec("cat", "/proc/keys", walls=COMMAND)
    others = [mount for mount in spec.mounts if not mount.destination.startswith("/dev")]
    code, said = yard.run(replace(spec, mounts=(bind(devices, "/dev"), *others)))
    if naive:
        assert said == "walled\n"
    else:
        assert (code, "is not the null device" in said) == (1, True), said


@pytest.mark.parametrize("naive", [False, True], ids=["held", "without"])
def test_a_device_that_is_swapped_for_a_link_changes_no_file_of_the_hosts(
    yard: Yard, outside: Path, monkeypatch: pytest.MonkeyPatch, naive: bool
) -> None:
    """The folder it is made in is shared, and who shares it is quick."""
    secret = outside / "of-the-host"
    secret.chmod(0o600)
    mknod = os.mknod

    def made_and_swapped(path: str, mode: int, device: int, *, dir_fd: int) -> None:
        mknod(path, mode, device, dir_fd=dir_fd)
        if path != "mine":
            return
        os.unlink(path, dir_fd=dir_fd)
        os.symlink(secret, path, dir_fd=dir_fd)
        if naive:
            os.chmod(path, 0o666, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", made_and_swapped)
    code, said = yard.run(with_device(yard.spec("true", walls=COMMAND), "/tmp/mine"))
    assert (code, "another file is there" in said) == (1, True), said
    assert stat.S_IMODE(secret.stat().st_mode) == (0o666 if naive else 0o600)


@pytest.mark.parametrize("naive", [False, True], ids=["held", "without"])
@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_are_mounted_where_their_masks_will_be(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, name: str, naive: bool
) -> None:
    """CVE-2019-19921: a link into a volume that another container swaps between the mount and its masks."""
    image = yard.image()
    (image / name).rmdir()
    (image / name).symlink_to("/shared")
    if naive:
        monkeypatch.setattr(
            mounts, "plain_folder_inside", lambda root, path: mounts.target_inside(root, path, folder=True)
        )
    code, said = yard.run(yard.spec("true", walls=COMMAND), image=image)
    assert (code, f"/{name} is a symbolic link" in said) == ((0, False) if naive else (1, True)), said


@pytest.mark.parametrize("no_links", [True, False], ids=["held", "without"])
def test_a_bind_whose_source_has_become_a_link_is_refused(yard: Yard, outside: Path, no_links: bool) -> None:
    """A folder below a volume, which the tenant swaps between create and start (CVE-2017-1002101)."""
    volume = yard.folder / f"volume{yard.made}"
    volume.mkdir()
    (volume / "sub").symlink_to(outside)
    spec = also(yard.spec("ls", "/tmp", walls=COMMAND), bind(volume / "sub", "/tmp", *([NO_LINKS] if no_links else [])))
    code, said = yard.run(spec)
    assert (code, "leads through a symbolic link" in said) == ((1, True) if no_links else (0, False)), said
    assert ("of-the-host" in said) != no_links


@pytest.mark.parametrize("looked_at", [True, False], ids=["held", "without"])
def test_a_label_is_written_to_the_kernel_or_nowhere(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, looked_at: bool
) -> None:
    """CVE-2019-16884, CVE-2025-52881: a /proc of the image's takes the label, and the program runs without."""
    false = yard.folder / f"proc{yard.made}-{looked_at}"
    (false / "self/attr").mkdir(parents=True)
    (false / "self/attr/exec").touch()
    if not looked_at:
        monkeypatch.setattr(labels.syscalls, "fstatfs_type", lambda _fd: labels._PROC_MAGIC)

    def child() -> None:
        os.unshare(os.CLONE_NEWNS)
        mounts.make_private()
        mounts.attach(mounts.clone(false), os.open("/proc", os.O_PATH))
        with contextlib.suppress(RuntimeFault):
            labels.set_exec(Process(args=("true",), selinux_label="confined"))

    os.waitpid(process.fork(child), 0)
    assert (false / "self/attr/exec").read_text() == ("" if looked_at else "confined")


CWDS = ("..", "/../../..", "/proc/self/cwd/../../..", "/proc/1/root/../..", "/proc/self/fd/3")


@pytest.mark.parametrize("cwd", CWDS)
def test_a_working_folder_is_inside(yard: Yard, outside: Path, cwd: str) -> None:
    spec = yard.spec("/bin/ls", walls=COMMAND)
    spec = replace(spec, process=replace(spec.process, cwd=cwd))
    _, said = yard.run(spec, "--preserve-fds", "1", leak=outside)
    assert "of-the-host" not in said
    assert "fuse-of-the-image" in said or "no such file" in said or "outside the container" in said, said


def test_without_a_look_at_it_a_leaked_folder_would_be_taken(
    yard: Yard, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2024-21626."""
    monkeypatch.setattr(program, "enter_folder", os.chdir)
    said = []
    for number in range(3, 16):
        spec = yard.spec("/bin/ls", walls=COMMAND)
        spec = replace(spec, process=replace(spec.process, cwd=f"/proc/self/fd/{number}"))
        said.append(yard.run(spec, "--preserve-fds", "1", leak=outside)[1])
    assert any("of-the-host" in text for text in said), said


def test_a_chroot_inside_leads_up_to_the_containers_root_and_no_further(yard: Yard, outside: Path) -> None:
    there = str(outside / "of-the-host")
    for walls in (COMMAND, Walls(frozenset(("user", "filter", "capabilities")))):
        assert yard.try_all(["break_out_of_chroot"], walls, outside=there) == {"break_out_of_chroot": "empty"}


def test_the_same_gets_out_of_a_mere_chroot(yard: Yard, outside: Path) -> None:
    image = yard.image()

    def child() -> None:
        os.chroot(image)
        os.chdir("/")
        Path("/tmp/inner").mkdir()
        out = os.open("/", os.O_RDONLY)
        os.chroot("/tmp/inner")
        os.fchdir(out)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        os._exit(0 if (outside / "of-the-host").exists() else 1)

    _, status = os.waitpid(process.fork(child), 0)
    assert os.waitstatus_to_exitcode(status) == 0
