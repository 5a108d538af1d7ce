"""What an app does to itself hurts neither another team's app nor the portal."""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.trial import Trial

pytestmark = pytest.mark.e2e

PATIENCE_S = 60
ROUNDS, CALLS = 7, 60
BOMB = "touch /tmp/bomb; b() { while [ -e /tmp/bomb ]; do b & done; }; b 2>/dev/null"  # a shell that cannot fork ends, and another can


@dataclass(frozen=True, slots=True)
class Tenant:
    """An app with someone who may deploy it."""

    platform: Trial
    app: str
    token: str

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One REST call as this tenant."""
        return self.platform.call(method, path, body, {"Authorization": f"Bearer {self.token}", **headers})

    def deploy(self, archive: Path) -> None:
        """Deploy and wait until it is live and answers."""
        path = f"/api/v1/apps/{self.app}/deployments?wait=60"
        with archive.open("rb") as file:
            status, answer = self.call("POST", path, file, **{"Content-Type": "application/x-tar"})
        assert status == 201, answer
        assert self.platform.get(self.app)[0] == 200

    def docker(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        """A command of docker's on the app's one container."""
        container = self.call("GET", f"/api/v1/apps/{self.app}/instances")[1][0]["id"]
        whole = ["docker", "-H", f"unix://{self.platform.engine_socket}", command, container, *arguments]
        return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def says(self, script: str) -> str:
        """What a shell line in the container prints."""
        return self.docker("exec", "sh", "-c", script).communicate(timeout=PATIENCE_S)[0]

    def inspect(self) -> dict[str, Any]:
        """The container as the engine has it."""
        found: dict[str, Any] = json.loads(self.docker("inspect").communicate(timeout=PATIENCE_S)[0])[0]
        return found


def tenant(platform: Trial, app: str, token: str, archive: Path) -> Tenant:
    """A tenant with an app that runs on the smallest plan."""
    made = Tenant(platform, app, token)
    assert (
        made.call("POST", "/api/v1/apps", {"app": app, "plan": "nano"}, **{"Content-Type": "application/json"})[0]
        == 201
    )
    made.deploy(archive)
    return made


@pytest.fixture(scope="module")
def noisy(platform_running: Trial, demo_archive: Path) -> Tenant:
    """The one who does it."""
    platform_running.call("GET", "/api/v1/apps")
    return tenant(platform_running, "noisy", platform_running.token, demo_archive)


@pytest.fixture(scope="module")
def quiet(platform_running: Trial, demo_archive: Path) -> Tenant:
    """Someone else, of a team of his own."""
    platform_running.manage("adduser", "quentin", "--email", "quentin@example.org")
    platform_running.manage("addteam", "neighbours", "--owner", "quentin")
    token = platform_running.manage("token", "--user", "quentin", "--scopes", "read,deploy,write").split()[-1]
    return tenant(platform_running, "quiet", token, demo_archive)


def writes_and_reads(one: Tenant) -> None:
    """Four megabytes to the disk and back."""
    said = one.says(
        "dd if=/dev/zero of=/tmp/mine bs=1M count=4 conv=fsync 2>&1; busybox md5sum /tmp/mine; rm /tmp/mine"
    )
    assert hashlib.md5(bytes(4 << 20)).hexdigest() in said, said


def test_filling_the_disk_gives_enospc_within_two_percent_of_the_plan_and_hurts_no_one_else(
    platform: Trial, noisy: Tenant, quiet: Tenant, demo_archive: Path
) -> None:
    allowed = platform.call("GET", "/api/v1/plans/nano")[1]["disk_bytes"]
    filling = noisy.docker("exec", "sh", "-c", "dd if=/dev/zero of=/tmp/fill bs=1M 2>&1; stat -c %s /tmp/fill")
    meanwhile = 0
    while filling.poll() is None:
        writes_and_reads(quiet)
        meanwhile += 1
    said = filling.communicate(timeout=PATIENCE_S)[0]
    try:
        assert "No space left" in said and meanwhile
        assert 0.98 * allowed <= int(said.split()[-1]) <= 1.02 * allowed
        assert "No space left" in noisy.says("dd if=/dev/zero of=/tmp/more bs=1M count=16 2>&1")
        writes_and_reads(quiet)
        quiet.deploy(demo_archive)
        assert platform.get(noisy.app)[0] == 200
    finally:
        noisy.says("rm -f /tmp/fill /tmp/more")


def counters(platform: Trial, container: str) -> tuple[int, int]:
    """Processes of a container and its CPU time in ns, by the engine; zeros when it has ended."""
    url = f"http://engine/containers/{container}/stats?stream=0&one-shot=1"
    command = ["curl", "-s", "--unix-socket", str(platform.engine_socket), url]
    stats = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return stats.get("pids_stats", {}).get("current", 0), stats["cpu_stats"]["cpu_usage"]["total_usage"]


def processes(platform: Trial, container: str) -> int:
    """How many a container has; 0 when it has ended."""
    return counters(platform, container)[0]


def goes_off(platform: Trial, container: str, limit: int) -> bool:
    """Wait until the bomb is at the limit; False when its container has ended, since the server in it could not fork either."""
    deadline = time.monotonic() + PATIENCE_S
    while 0 < (count := processes(platform, container)) < limit - 5:
        assert time.monotonic() < deadline, f"{count} of {limit} processes"
    return count > 0


def beside_bomb(one: Tenant, limit: int) -> tuple[float, float] | None:
    """The portal's p95 in seconds while a bomb goes on forking at the pid limit, and the CPUs that this takes; None when the bomb's
    container ended meanwhile."""
    found = one.inspect()
    fuse = Path(f"/proc/{found['State']['Pid']}/root/tmp/bomb")  # nobody inside could remove it: there is no pid left
    bomb = one.docker("exec", "sh", "-c", BOMB)
    try:
        if not goes_off(one.platform, found["Id"], limit):
            return None
        began, (_, before) = time.perf_counter(), counters(one.platform, found["Id"])
        taken = p95_s(one.platform)
        count, after = counters(one.platform, found["Id"])
        assert count <= limit
        return (taken, (after - before) / 1e9 / (time.perf_counter() - began)) if count > limit // 2 else None
    finally:
        fuse.unlink(missing_ok=True)
        bomb.communicate(timeout=PATIENCE_S)
        await_calm(one, limit)


def await_calm(one: Tenant, limit: int) -> None:
    """Until the app answers, and the bomb's processes have ended."""
    deadline = time.monotonic() + PATIENCE_S
    while one.platform.get(one.app)[0] != 200 or processes(one.platform, one.inspect()["Id"]) > limit // 2:
        assert time.monotonic() < deadline, "the app does not come back"
        time.sleep(0.05)


def p95_s(platform: Trial) -> float:
    """Of calls of the portal, one after another."""
    found = []
    for _ in range(CALLS):
        started = time.perf_counter()
        assert platform.call("GET", "/api/v1/apps")[0] == 200
        found.append(time.perf_counter() - started)
    return sorted(found)[int(0.95 * CALLS)]


def test_a_fork_bomb_stops_at_the_pid_limit_while_the_portals_p95_stays_within_twice_idle(
    platform: Trial, noisy: Tenant
) -> None:
    """Side by side, and the median of several rounds: what else the machine does meanwhile touches both."""
    plan = platform.call("GET", "/api/v1/plans/nano")[1]
    ratios, cpus = list[float](), list[float]()
    deadline = time.monotonic() + PATIENCE_S
    while len(ratios) < ROUNDS:
        assert time.monotonic() < deadline, ratios
        idle = p95_s(platform)
        if (busy := beside_bomb(noisy, plan["pids"])) is not None:
            ratios.append(busy[0] / idle)
            cpus.append(busy[1])
    assert statistics.median(ratios) <= 2, ratios
    assert statistics.median(cpus) <= 1.5 * plan["cpu_millicores"] / 1000, (
        cpus
    )  # a round ends in the middle of a period
    _, answer = platform.call("GET", f"/api/v1/apps/{noisy.app}/limit-events")
    assert any(event["limit"] == "pids" for event in answer["events"])
