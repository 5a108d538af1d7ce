"""Containers with walls that can be taken away: one specification, the engine's, less what a test switches off.

A test runs the same attacks with all walls, with one alone, and with none. What holds is thereby shown twice: that it holds, and
that nothing would without it. Containers are made by the command line's own functions in a forked process, which any wall can be
taken from, and by the launcher, as the engine does it.
"""

from __future__ import annotations

import asyncio
import compileall
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from runtime.kernel import process
from runtime.kernel.capabilities import NAMES
from runtime.kernel.cgroups import detect
from runtime.kernel.syscall_table import numbers
from runtime.oci.client import LauncherClient, LaunchRequest, LogOptions
from runtime.oci.command.main import main as command_line
from runtime.oci.default import Options, default
from runtime.oci.spec import Capabilities, Mount, Namespace, Spec
from runtime.oci.spec_resources import DeviceRuleSpec
from runtime.oci.state import CONFIG, ROOT
from runtime.storage.driver import RootPlan

STORE_PARENT = os.environ.get("MOORAGE_TEST_STATE", "/var/tmp")
HERE = Path(__file__).parent
PREFIX = Path(sys.base_prefix)
PROGRAM = Path(sys.executable).resolve()
LENT = {
    Path("/usr/lib"): "/usr/lib",
    Path("/lib").resolve(): "/lib",
    Path("/lib64").resolve(): "/lib64",
    PREFIX: str(PREFIX),
}
CALLS = numbers(os.uname().machine)
NAMESPACES = frozenset(("user", "pid", "network", "ipc", "uts", "cgroup"))


@dataclass(frozen=True, slots=True)
class Walls:
    """What is switched off: namespaces by their names, and "filter", "capabilities", "masks", "readonly", "devices".

    `network` is the path of one to join. `nnp` is no_new_privileges.
    """

    off: frozenset[str] = frozenset()
    network: str = ""
    nnp: bool = False

    def less(self, spec: Spec) -> Spec:
        """The specification without them."""
        linux, own = spec.linux, spec.process
        kinds = [n.type for n in linux.namespaces if n.type not in self.off]
        linux = replace(
            linux,
            namespaces=tuple(Namespace(type=kind, path=self.network if kind == "network" else "") for kind in kinds),
        )
        if "user" in self.off:
            linux = replace(linux, uid_mappings=(), gid_mappings=())
        if "network" in self.off or self.network:
            linux = replace(linux, sysctl={})
        if "filter" in self.off:
            linux = replace(linux, seccomp=None)
        if "masks" in self.off:
            linux = replace(linux, masked_paths=())
        mounts = tuple(self._mount(m) for m in spec.mounts if not (m.type == "mqueue" and "ipc" in self.off))
        if "readonly" in self.off:
            linux = replace(linux, readonly_paths=())
            mounts = tuple(replace(m, options=tuple(o for o in m.options if o != "ro")) for m in mounts)
        if "devices" in self.off:
            everything = (DeviceRuleSpec(allow=True),)
            linux = replace(linux, resources=replace(linux.resources, devices=everything))
        if "capabilities" in self.off:
            own = replace(own, capabilities=Capabilities.of(_all_capabilities()))
        own = replace(own, no_new_privileges=self.nnp)
        hostname = "" if "uts" in self.off else spec.hostname
        return replace(spec, linux=linux, mounts=mounts, process=own, hostname=hostname)

    def _mount(self, mount: Mount) -> Mount:
        """Of the host's processes nobody but the host may mount a new /proc."""
        if mount.type == "proc" and "pid" in self.off:
            return Mount(destination="/proc", type="bind", source="/proc", options=("rbind",))
        return mount


def _all_capabilities() -> tuple[str, ...]:
    """That this process could give away: a host may lack some itself."""
    status = Path("/proc/self/status").read_text()
    bounding = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd"))
    return tuple(f"CAP_{name}" for number, name in enumerate(NAMES) if bounding >> number & 1)


ALL = Walls()
COMMAND = Walls(frozenset(("user",)))  # as podman would have it: root inside is root outside


@dataclass
class Yard:
    """Bundles below one folder, groups below one top. Everything is synchronous, so that results can be kept for a module."""

    folder: Path
    top: str
    made: int = 0
    running: dict[str, int] = field(default_factory=dict)

    def spec(self, *args: str, walls: Walls = ALL) -> Spec:
        """The engine's, with the interpreter and the attacks lent, and /tmp to write in."""
        self.made += 1
        options = Options(
            args=args, hostname="walled", cgroups_path=f"{self.top}/c{self.made}", id_base=2_000_000 + 65_536 * self.made,
            env=("PATH=/bin",),
        )  # fmt: skip
        lent = [
            Mount(destination=target, type="bind", source=str(source), options=("bind", "ro"))
            for source, target in LENT.items()
        ]
        lent.append(Mount(destination="/walls", type="bind", source=str(HERE), options=("bind", "ro")))
        lent.append(Mount(destination="/tmp", type="tmpfs", source="tmpfs", options=("mode=1777", "nosuid")))
        spec = default(options)
        return walls.less(replace(spec, mounts=(*spec.mounts, *lent)))

    def attacking(self, names: list[str], walls: Walls = ALL, **target: object) -> Spec:
        """A container that tries these attacks."""
        given = json.dumps({"names": names, "calls": CALLS, "target": target})
        return self.spec(str(PROGRAM), "-I", "-S", "-B", "/walls/attacks", given, walls=walls)

    def try_all(self, names: list[str], walls: Walls = ALL, **target: object) -> dict[str, str]:
        """How each went, in a container made by the command line's functions."""
        code, said = self.run(self.attacking(names, walls, **target))
        assert code == 0, said
        return outcomes(said, names)

    def run(self, spec: Spec, *words: str, image: Path | None = None, leak: Path | None = None) -> tuple[int, str]:
        """To its end, in a forked process, which has `leak` open as descriptor 3: the exit status and both streams."""
        said = self.folder / "said"
        bundle = self.bundle(spec, image)
        code = self._fork(["run", *words, "--bundle", str(bundle), bundle.name], said, leak)
        return code, said.read_text(errors="replace")

    def image(self) -> Path:
        """A root of its own, to put something hostile into."""
        folder = Path(tempfile.mkdtemp(prefix="image-", dir=self.folder))
        make_image(folder)
        return folder

    def bundle(self, spec: Spec, image: Path | None = None) -> Path:
        """A bundle over the common root, which every mount's target is in, or another."""
        bundle = self.folder / f"b{self.made}"
        bundle.mkdir()
        replace(spec, root=replace(spec.root, path=str(image or self.folder / "image"))).write(bundle / CONFIG)
        return bundle

    def start(self, spec: Spec) -> tuple[str, int]:
        """A container that runs on: its id, and its first process's pid out here."""
        bundle = self.bundle(spec)
        pid_file, said = self.folder / "pid", self.folder / f"{bundle.name}.said"
        code = self._fork(["run", "--detach", "--pid-file", str(pid_file), "--bundle", str(bundle), bundle.name], said)
        assert code == 0, said.read_text()
        self.running[bundle.name] = int(pid_file.read_text())
        return bundle.name, self.running[bundle.name]

    def command(self, *words: str) -> tuple[int, str]:
        """Another command of the command line."""
        said = self.folder / "said"
        return self._fork(list(words), said), said.read_text(errors="replace")

    def _fork(self, words: list[str], said: Path, leak: Path | None = None) -> int:
        def child() -> None:
            if leak:
                os.dup2(os.open(leak, os.O_RDONLY), 3)
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            null = os.open("/dev/null", os.O_RDONLY)
            for number, fd in ((0, null), (1, out), (2, out)):
                os.dup2(fd, number)
            sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
            os._exit(command_line(["--root", str(self.folder / "states"), *words]))

        _, status = os.waitpid(process.fork(child), 0)
        return os.waitstatus_to_exitcode(status)

    def launch(self, spec: Spec) -> tuple[int, str]:
        """To its end by launcher and monitor over an overlay, as the engine does it: the exit code and the log's text."""
        bundle = self.bundle(spec)
        for part in ("up", "wk"):
            (self.folder / f"{part}-{bundle.name}").mkdir()
        RootPlan(
            store_root=str(self.folder), lowers=("image",), upper=f"up-{bundle.name}", work=f"wk-{bundle.name}", options=("volatile",)
        ).write(bundle / ROOT)  # fmt: skip
        code = asyncio.run(_launch(bundle))
        lines = (bundle / "log/current").read_text().split("\n")[:-1]
        return code, "\n".join(line[22:] for line in lines if line[20] != "m")

    def close(self) -> list[str]:
        """Take everything away; what was left over."""
        for name in self.running:
            self.command("delete", "--force", name)
        left = [str(path) for path in (self.folder / "states").glob("*")]
        left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.folder) in line]
        cgroups = detect()
        left += [name for name in cgroups.list(self.top) if name.count("/") > 1]
        cgroups.kill(self.top)
        cgroups.remove(self.top)
        shutil.rmtree(self.folder)
        return left


async def _launch(bundle: Path) -> int:
    client = LauncherClient()
    try:
        launched = await client.launch(
            LaunchRequest(id=bundle.name, bundle=bundle, attach=bundle / "attach.sock", log=LogOptions())
        )
        await launched.release()
        record = await launched.wait()
        launched.close()
    finally:
        await client.close()
    return record.code


def outcomes(said: str, names: list[str]) -> dict[str, str]:
    """Of each attack, from what was printed."""
    found = dict(line.split(" ", 1) for line in said.splitlines() if line.partition(" ")[0] in names)
    assert set(found) == set(names), said
    return found


def make_image(folder: Path) -> None:
    """A root with busybox, the targets of all mounts, and a device of the host's that an image brought along."""
    for name in (
        "bin",
        "etc",
        "tmp",
        "proc",
        "sys",
        "dev",
        "walls",
        "shared",
        *(target.lstrip("/") for target in LENT.values()),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n")
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    for applet in ("sh", "cat", "sleep", "ls", "id", "echo", "mkdir", "dd", "kill", "true", "touch", "stat"):
        (folder / "bin" / applet).symlink_to("busybox")
    os.mknod(folder / "fuse-of-the-image", 0o020666, os.makedev(10, 229))
    (folder / "fuse-of-the-image").chmod(0o666)


@contextmanager
def open_yard() -> Iterator[Yard]:
    """A yard; fails when anything of it is left."""
    if os.geteuid() != 0:
        pytest.fail("These tests make namespaces and cgroups: run them as root.")
    compileall.compile_dir(HERE / "attacks", quiet=1)  # inside nothing can be written
    folder = Path(tempfile.mkdtemp(prefix="moorage-walls-", dir=STORE_PARENT))
    folder.chmod(0o755)
    (folder / "image").mkdir()
    make_image(folder / "image")
    yard = Yard(folder, f"moorage-walls{os.getpid()}")
    left: list[str] = []
    try:
        yield yard
    finally:
        left = yard.close()
    assert left == []


@pytest.fixture(scope="module")
def yard() -> Iterator[Yard]:
    """One for all tests of a module."""
    with open_yard() as yard:
        yield yard


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs root and fails without it."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)


def kept[**P, R](results: dict[Any, R], key: Any, make: Any) -> R:
    """What was found before, else found now."""
    if key not in results:
        results[key] = make()
    return results[key]
