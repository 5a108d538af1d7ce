"""A real engine room for tests: a store with the distribution's busybox, a launcher, and a count of what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from runtime.kernel import loop
from runtime.kernel.cgroups import Cgroups, detect
from runtime.kernel.process import start_ticks
from runtime.oci.client import Launched, LauncherClient, LaunchRequest, LogOptions
from runtime.oci.default import Options, default
from runtime.oci.spec import Spec
from runtime.oci.spec_resources import LinuxResources
from runtime.oci.state import CONFIG, ROOT, ExitRecord
from runtime.storage.driver import RootPlan

BUSYBOX = Path("/bin/busybox")
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1000:\nextra:x:33:app\n"
STORE_PARENT = os.environ.get("MOORAGE_TEST_STATE", "/var/tmp")


@pytest.fixture(scope="session")
def store() -> Iterator[Path]:
    """A store with one layer, `l`: busybox and a few files. Not on tmpfs, which has no id maps before 6.3."""
    if os.geteuid() != 0:
        pytest.fail("These tests make namespaces and cgroups: run them as root.")
    folder = Path(tempfile.mkdtemp(prefix="moorage-oci-", dir=STORE_PARENT))
    folder.chmod(0o755)
    layer = folder / "l"
    for name in ("bin", "etc", "tmp", "home/app"):
        (layer / name).mkdir(parents=True)
    (layer / "tmp").chmod(0o1777)
    os.chown(layer / "home/app", 1000, 1000)
    (layer / "etc/passwd").write_text(PASSWD)
    (layer / "etc/group").write_text(GROUP)
    shutil.copy(BUSYBOX, layer / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (layer / "bin" / applet).symlink_to("busybox")
    yield folder
    shutil.rmtree(folder)


@dataclass
class Room:
    """Makes containers below one top group and knows what must be gone in the end."""

    store: Path
    client: LauncherClient
    cgroups: Cgroups
    top: str
    pids: list[int] = field(default_factory=list)
    made: int = 0

    def bundle(self, *args: str, plan: RootPlan | None = None, **options: object) -> Path:
        """A container's folder; `options` are fields of default.Options."""
        self.made += 1
        name = f"c{self.made}"
        bundle = self.store / name
        bundle.mkdir()
        given = {
            "args": args,
            "hostname": name,
            "cgroups_path": f"{self.top}/team/app/{name}",
            "id_base": 1_000_000 + 65_536 * self.made,
            "env": ("PATH=/bin",),
        } | options
        default(Options(**given)).write(bundle / CONFIG)  # type: ignore[arg-type]
        (plan or self.plan(name)).write(bundle / ROOT)
        return bundle

    def plan(self, name: str) -> RootPlan:
        """An overlay over the busybox layer."""
        for part in ("up", "wk"):
            (self.store / f"{part}-{name}").mkdir(exist_ok=True)
        return RootPlan(
            store_root=str(self.store), lowers=("l",), upper=f"up-{name}", work=f"wk-{name}", options=("volatile",)
        )

    def limit(self, bundle: Path, resources: LinuxResources) -> None:
        """Put limits beside the default device list."""
        spec = Spec.read(bundle / CONFIG)
        resources = replace(resources, devices=spec.linux.resources.devices)
        replace(spec, linux=replace(spec.linux, resources=resources)).write(bundle / CONFIG)

    async def launch(self, bundle: Path, *, log: LogOptions | None = None, stdin: bool = False) -> Launched:
        """Up to the gate."""
        request = LaunchRequest(
            id=bundle.name,
            bundle=bundle,
            attach=bundle / "attach.sock",
            log=log or LogOptions(),
            stdin=stdin,
            stdin_once=True,
        )
        launched = await self.client.launch(request)
        self.pids += [launched.monitor_pid, launched.init_pid]
        return launched

    async def start(self, bundle: Path, *, log: LogOptions | None = None) -> Launched:
        """Running."""
        launched = await self.launch(bundle, log=log)
        await launched.release()
        return launched

    async def run(self, *args: str, **options: object) -> tuple[ExitRecord, str]:
        """Run to the end; returns the record and what was printed (both streams, as logged)."""
        bundle = self.bundle(*args, **options)  # type: ignore[arg-type]
        launched = await self.start(bundle)
        record = await launched.wait()
        launched.close()
        return record, output(bundle)

    def group(self, bundle: Path) -> str:
        """Its cgroup."""
        return Spec.read(bundle / CONFIG).linux.cgroups_path

    def leftovers(self) -> list[str]:
        """Everything of ours that should be gone."""
        left = [f"group {name}" for name in self.cgroups.list(self.top) if name.count("/") > 2]
        left += [f"process {pid}" for pid in self.pids if start_ticks(pid) is not None]
        left += [f"loop {name}" for name in loop.of_folder(self.store)]
        left += [f"socket {path}" for path in self.store.glob("*/attach.sock")]
        mounts = Path("/proc/self/mountinfo").read_text()
        return left + [f"mount {line}" for line in mounts.splitlines() if str(self.store) in line]


def output(bundle: Path) -> str:
    """The text of the log, without stamps and tags, up to the last line that is whole."""
    lines = (bundle / "log/current").read_text().split("\n")[:-1]
    return "\n".join(line[22:] for line in lines if line[20] != "m")


async def until(done: Callable[[], bool], seconds: float = 20) -> None:
    """Look again until true: what a program has written so far sends no event to a test."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


@pytest.fixture
async def room(store: Path) -> AsyncIterator[Room]:
    """A launcher and a top group; fails the test when anything is left at its end."""
    client = LauncherClient()
    top = f"moorage-test{os.getpid()}"
    room = Room(store, client, detect(), top)
    yield room
    await client.close()
    left = room.leftovers()
    for pid in room.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    room.cgroups.kill(top)
    room.cgroups.remove(top)
    for path in store.iterdir():
        if path.name != "l":
            shutil.rmtree(path)
    assert left == []
