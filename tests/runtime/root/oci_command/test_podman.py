"""podman and runc's other callers drive the command line: Debian's podman with conmon."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.kernel.cgroups import detect
from tests.runtime.root.oci_command.conftest import RUNTIME, Room

pytestmark = pytest.mark.root


class Podman:
    """podman with stores of its own."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.root = room.folder / "image"
        store = room.folder / "podman"
        self.words = [
            "podman", "--runtime", RUNTIME, "--cgroup-manager", "cgroupfs", "--events-backend", "file",
            "--root", str(store / "root"), "--runroot", str(store / "run"), "--tmpdir", str(store / "tmp"), "--storage-driver", "vfs",
        ]  # fmt: skip

    def call(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        """A command, whatever it answers."""
        given = {"capture_output": True, "text": True, "timeout": 120, "check": False} | options
        return subprocess.run([*self.words, *words], **given)  # type: ignore[call-overload,no-any-return]

    def said(self, *words: str) -> str:
        """One that must succeed."""
        done = self.call(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def options(self, *more: str) -> tuple[str, ...]:
        """For run and create: our own group, no network, a root folder."""
        return (
            "--cgroup-parent",
            f"/{self.room.top}",
            "--network",
            "none",
            *more,
            "--rootfs",
            f"{self.root.resolve()}:O",
        )


@pytest.fixture
def podman(room: Room) -> Iterator[Podman]:
    """Removes everything it made."""
    assert shutil.which("podman"), "podman is missing: sh scripts/setup.sh dev installs it"
    found = Podman(room)
    yield found
    found.call("pod", "rm", "--all", "--force", "--time", "0")
    found.call("rm", "--all", "--force", "--time", "0")
    mounts = Path("/proc/self/mountinfo").read_text()
    for line in mounts.splitlines():
        point = line.split()[4]
        if point.startswith(str(room.folder / "podman")):
            subprocess.run(["umount", point], check=True)


def test_run_and_exit_codes(podman: Podman) -> None:
    said = podman.said("run", "--rm", *podman.options(), "sh", "-c", "id -u; hostname; cat /proc/1/comm")
    assert said.split()[0] == "0"
    assert podman.call("run", "--rm", *podman.options(), "sh", "-c", "exit 9").returncode == 9
    assert podman.call("run", "--rm", *podman.options(), "/nowhere").returncode == 127
    assert podman.call("run", "--rm", *podman.options(), "/etc/passwd").returncode == 126


def test_a_container_is_started_looked_at_entered_and_stopped(podman: Podman) -> None:
    options = podman.options(
        "--memory", "64m", "--pids-limit", "50", "--user", "1000:1000", "--env", "A=b", "--name", "web"
    )
    podman.said("run", "--detach", *options, "sh", "-c", "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done")
    assert podman.said("exec", "web", "sh", "-c", "id -u; echo $A").split() == ["1000", "b"]
    assert podman.call("exec", "web", "sh", "-c", "exit 6").returncode == 6
    assert podman.call("exec", "web", "/nowhere").returncode == 127
    inspected = json.loads(podman.said("inspect", "web"))[0]
    assert inspected["State"]["Status"] == "running"
    assert inspected["OCIRuntime"] == RUNTIME
    assert Path(f"/proc/{inspected['State']['Pid']}/comm").read_text() == "sh\n"
    podman.said("pause", "web")
    podman.said("unpause", "web")
    podman.said("stop", "--time", "10", "web")
    assert podman.said("logs", "web") == "up"
    assert podman.said("wait", "web") == "4"
    podman.said("start", "web")
    podman.said("kill", "web")
    podman.said("rm", "--force", "--time", "0", "web")
    assert [name for name in detect().list(podman.room.top) if "/libpod-" in name] == []


def test_a_terminal(podman: Podman) -> None:
    said = podman.said("run", "--rm", "--tty", *podman.options(), "sh", "-c", "tty; test -t 0 && echo yes")
    assert said.split() == ["/dev/pts/0", "yes"]


def test_a_user_namespace_devices_and_tmpfs(podman: Podman) -> None:
    more = (
        "--uidmap",
        "0:400000:65536",
        "--gidmap",
        "0:400000:65536",
        "--tmpfs",
        "/scratch:size=1m",
        "--device",
        "/dev/zero:/dev/mine",
    )
    script = "head -n1 /proc/self/uid_map; head -c 2 /dev/mine | wc -c; df /scratch | tail -n1"
    archive = podman.room.folder / "box.tar"
    subprocess.run(["tar", "-C", podman.root.resolve(), "-cf", archive, "."], check=True)
    podman.said("import", "--quiet", str(archive), "box")
    image = ("--cgroup-parent", f"/{podman.room.top}", "--network", "none", *more, "box")
    said = podman.said("run", "--rm", *image, "sh", "-c", script).split("\n")
    assert said[0].split() == ["0", "400000", "65536"]
    assert said[1] == "2"
    assert "1024" in said[2]


def test_capabilities_and_privileged(podman: Podman) -> None:
    script = "grep CapEff /proc/self/status"
    usual = podman.said("run", "--rm", *podman.options(), "sh", "-c", script).split()[1]
    dropped = podman.said("run", "--rm", *podman.options("--cap-drop", "all"), "sh", "-c", script).split()[1]
    everything = podman.said("run", "--rm", *podman.options("--privileged"), "sh", "-c", script).split()[1]
    assert int(dropped, 16) == 0 < int(usual, 16) < int(everything, 16)


def test_a_pod_shares_namespaces(podman: Podman) -> None:
    name = podman.said("run", "--detach", *podman.options("--name", "first"), "sleep", "600")
    assert name
    options = (
        "--cgroup-parent",
        f"/{podman.room.top}",
        "--network",
        "container:first",
        "--ipc",
        "container:first",
        "--pid",
        "container:first",
    )
    said = podman.said(
        "run",
        "--rm",
        *options,
        "--rootfs",
        f"{podman.root.resolve()}:O",
        "sh",
        "-c",
        "cat /proc/1/comm; readlink /proc/self/ns/net",
    )
    pid = podman.said("inspect", "--format", "{{.State.Pid}}", "first")
    assert said.split() == ["sleep", str(Path(f"/proc/{pid}/ns/net").readlink())]
