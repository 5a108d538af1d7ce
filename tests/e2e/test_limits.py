"""The plan holds, and what is hit is said with its figures; seen from inside the container and from the API."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from scripts.trial import Trial

pytestmark = pytest.mark.e2e

APP = "limits"
MB = 1024 * 1024


@pytest.fixture(scope="module")
def app(platform_running: Trial, demo_archive: Path) -> str:
    """An app on the smallest plan."""
    assert platform_running.call("POST", "/api/v1/apps", {"app": APP, "plan": "nano"})[0] == 201
    status, answer = platform_running.deploy(APP, demo_archive)
    assert status == 201, answer
    return APP


def container(platform: Trial) -> str:
    """Name of the app's container."""
    _, answer = platform.call("GET", f"/api/v1/apps/{APP}/instances")
    return str(next(i["id"] for i in answer if i["state"] == "healthy"))


def inside(platform: Trial, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in the app's container through the engine's socket."""
    command = [
        "docker",
        "-H",
        f"unix://{platform.engine_socket}",
        "exec",
        *options,
        container(platform),
        "sh",
        "-c",
        script,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def limit_events(platform: Trial, kind: str, within_s: float = 6) -> list[dict[str, object]]:
    """Events of one kind, once there are any."""
    deadline = time.monotonic() + within_s
    while True:
        _, answer = platform.call("GET", f"/api/v1/apps/{APP}/limit-events")
        found = [event for event in answer["events"] if event["limit"] == kind]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def await_app(platform: Trial, within_s: float = 15) -> None:
    """Until the app answers."""
    deadline = time.monotonic() + within_s
    while platform.get(APP)[0] != 200:
        assert time.monotonic() < deadline, f"no answer within {within_s:.0f} s"
        time.sleep(0.1)


def test_a_container_sees_itself_only(platform: Trial, app: str) -> None:
    said = inside(
        platform,
        "cat /proc/self/uid_map; cat /proc/self/cgroup; ls -d /proc/[0-9]* | wc -l; mount -t tmpfs x /tmp 2>&1; hostname",
    ).stdout
    first_map, *rest = said.splitlines()
    assert int(first_map.split()[1]) > 65535
    assert all(line.endswith(":/") for line in rest if ":" in line and line[0].isdigit())
    assert "denied" in said or "not permitted" in said


def test_a_memory_hog_is_killed_and_the_page_says_the_figures(platform: Trial, app: str) -> None:
    inside(platform, "head -c 300m /dev/zero | tail -c 290m >/dev/null")
    event = limit_events(platform, "memory")[0]
    assert event["allowed"] == platform.call("GET", "/api/v1/plans/nano")[1]["memory_bytes"]
    assert "MB" in str(event["sentence"])
    await_app(platform)


def test_a_plan_change_reaches_the_running_container_within_five_seconds(platform: Trial, app: str) -> None:
    plan = platform.call("GET", "/api/v1/plans/nano")[1]
    name = container(platform)
    wanted = {"memory_bytes": 96 * MB, "cpu_millicores": 300, "disk_bytes": plan["disk_bytes"] + 64 * MB}
    started = time.monotonic()
    status, answer = platform.call("PATCH", "/api/v1/plans/nano", wanted)
    assert status == 200, answer
    try:
        inspect = ["docker", "-H", f"unix://{platform.engine_socket}", "inspect", name]
        while time.monotonic() - started < 5:
            host = json.loads(subprocess.run(inspect, capture_output=True, text=True, check=True).stdout)[0][
                "HostConfig"
            ]
            if host["Memory"] == 96 * MB:
                break
            time.sleep(0.05)
        assert host["Memory"] == 96 * MB
        assert time.monotonic() - started < 5
        assert container(platform) == name
        total = inside(platform, "df -k / | tail -1 | tr -s ' ' | cut -d' ' -f2").stdout
        assert int(total) * 1024 > plan["disk_bytes"]
    finally:
        platform.call("PATCH", "/api/v1/plans/nano", {key: plan[key] for key in wanted})


def test_a_cpu_hog_gets_its_share(platform: Trial, app: str) -> None:
    millicores = platform.call("GET", "/api/v1/plans/nano")[1]["cpu_millicores"]
    script = "cat /proc/self/stat >/dev/null; timeout 6 sh -c 'while :; do :; done'; true"
    name = container(platform)
    stats = ["docker", "-H", f"unix://{platform.engine_socket}", "inspect", "--format", "{{.Id}}", name]
    identity = subprocess.run(stats, capture_output=True, text=True, check=True).stdout.strip()
    before = cpu_ns(platform, identity)
    started = time.monotonic()
    inside(platform, script)
    share = (cpu_ns(platform, identity) - before) / (time.monotonic() - started) / 1e6
    assert share <= millicores * 1.1
    assert share >= millicores * 0.8


def cpu_ns(platform: Trial, identity: str) -> int:
    """CPU time of a container by the engine's counters."""
    url = f"http://engine/containers/{identity}/stats?stream=0&one-shot=1"
    done = subprocess.run(
        ["curl", "-s", "--unix-socket", str(platform.engine_socket), url], capture_output=True, text=True, check=True
    )
    return int(json.loads(done.stdout)["cpu_stats"]["cpu_usage"]["total_usage"])
