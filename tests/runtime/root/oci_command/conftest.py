"""The command line in a room of its own: bundles with the distribution's busybox, and a count of what is left behind."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runtime.kernel.cgroups import detect
from runtime.oci import default
from runtime.oci.default import Options

ROOT = Path(__file__).resolve().parents[4]
RUNTIME = str(ROOT / "scripts/moorage-oci")
STORE_PARENT = os.environ.get("MOORAGE_TEST_STATE", "/var/tmp")
Config = dict[str, Any]


@dataclass
class Room:
    """Bundles and containers below one folder, groups below one top."""

    folder: Path
    top: str
    made: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def states(self) -> Path:
        """--root."""
        return self.folder / "states"

    def config(self, *args: str) -> Config:
        """What `spec` writes, without a terminal, for these words."""
        options = Options(args=args, hostname="box", cgroups_path="", id_base=default.ID_RANGE, env=("PATH=/bin",))
        config = default.default(options).to_json()
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "user"]
        for name in ("uidMappings", "gidMappings", "sysctl"):
            config["linux"].pop(name)
        config["process"]["user"] = {"uid": 0, "gid": 0}
        config["linux"]["resources"]["devices"] = [{"allow": False, "access": "rwm"}]
        return config

    def bundle(self, config: Config) -> Path:
        """A bundle with its own root; returns its folder."""
        self.made += 1
        folder = self.folder / f"b{self.made}"
        shutil.copytree(self.folder / "image", folder / "rootfs", symlinks=True)
        config["linux"].setdefault("cgroupsPath", f"/{self.top}/b{self.made}")
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def call(
        self, *words: str | Path, prefix: tuple[str, ...] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, after `prefix`; its output is text."""
        command = [*prefix, RUNTIME, "--root", str(self.states), *map(str, words)]
        given: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "check": False} | options
        return subprocess.run(command, **given)

    def said(self, *words: str | Path, **options: Any) -> str:
        """The output of a command that must succeed."""
        done = self.call(*words, **options)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def run(self, config: Config, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a configuration to its end."""
        return self.call("run", *words, "--bundle", self.bundle(config), f"c{self.made}", **options)

    def output(self, config: Config, *words: str) -> str:
        """What a configuration that must succeed prints."""
        done = self.run(config, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def started(self, config: Config, *words: str | Path) -> str:
        """A container that runs; its id. Its output goes nowhere."""
        self.created(config, *words)
        self.said("start", f"c{self.made}")
        return f"c{self.made}"

    def created(self, config: Config, *words: str | Path) -> str:
        """A container at its gate. The caller's pipes would be held open by it, so it gets none."""
        with (self.folder / "err").open("w+") as err:
            done = self.call(
                "create", *words, "--bundle", self.bundle(config), f"c{self.made}",
                capture_output=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
            )  # fmt: skip
        assert done.returncode == 0, (self.folder / "err").read_text()
        return f"c{self.made}"

    def state(self, name: str) -> Config:
        """As `state` prints it."""
        found: Config = json.loads(self.said("state", name))
        return found

    def ended(self, pid: int) -> None:
        """Wait for a process that is nobody's child here."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(20_000)
        os.close(pidfd)

    def leftovers(self) -> list[str]:
        """What should be gone."""
        left = [f"state {path.name}" for path in self.states.glob("*")]
        left += [
            f"group {name}" for name in detect().list(self.top) if name.count("/") == 1 and not name.endswith("/conmon")
        ]
        mounts = Path("/proc/self/mountinfo").read_text()
        return left + [line for line in mounts.splitlines() if str(self.folder) in line]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with busybox."""
    if os.geteuid() != 0:
        pytest.fail("These tests make namespaces and cgroups: run them as root.")
    layer = tmp_path_factory.mktemp("image")
    layer.chmod(0o755)
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        (layer / name).mkdir()
    (layer / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")
    shutil.copy("/bin/busybox", layer / "bin/busybox")
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (layer / "bin" / applet).symlink_to("busybox")
    return layer


@pytest.fixture
def room(image: Path) -> Iterator[Room]:
    """Fails the test when anything is left at its end."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-oci-", dir=STORE_PARENT))
    folder.chmod(0o755)
    (folder / "image").symlink_to(image)
    room = Room(folder, f"moorage-test-oci{os.getpid()}")
    yield room
    for path in room.states.glob("*"):
        room.call("delete", "--force", path.name)
    left = room.leftovers()
    detect().kill(room.top)
    detect().remove(room.top)
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture
def console(room: Room) -> Iterator[socket.socket]:
    """A console socket that listens at FOLDER/console."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(room.folder / "console"))
        listening.listen(1)
        listening.settimeout(20)
        yield listening
