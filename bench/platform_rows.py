"""Rows that need the whole platform: deploys, roll backs, the ingress, the control plane's memory, the second start."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.daemons import build_image, docker_cli
from bench.engine_rows import pss_bytes
from bench.images import changed_layer
from bench.rows import Row, p50, percentile
from scripts import records, trial

DEPLOYS = 50
LAYERS = 20
SETTLE_S = 10  # idle time before memory is read


def descendants(pid: int) -> list[int]:
    """A process and everything below it."""
    found, waiting = [], [pid]
    while waiting:
        found.append(current := waiting.pop())
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{current}/task").iterdir():
                waiting += [int(word) for word in (task / "children").read_text().split()]
    return found


def control_plane_bytes(platform: trial.Trial) -> int:
    """PSS of every process `make up` started, without monitors and containers."""
    roots = [platform.process.pid]
    for name in ("engine", "haproxy", "up"):
        if (record := records.read(platform.folder / "run" / f"{name}.json")) is not None:
            roots.append(record["pid"])
    pids = {pid for root in roots for pid in descendants(root)}
    return sum(pss_bytes(pid) for pid in pids)


def deploy_times(platform: trial.Trial, archive: Path) -> tuple[list[float], list[float]]:
    """Seconds from the call to the first 200 of the new release, and of roll backs; the image is on the host."""
    platform.call("POST", "/api/v1/apps", {"app": "bench", "plan": "nano"})
    status, answer = platform.deploy("bench", archive)
    if status != 201:
        raise RuntimeError(f"the first deployment answered {status}: {answer}")
    deploys, rollbacks = [], []
    for _ in range(DEPLOYS):
        started = time.perf_counter()
        status, answer = platform.deploy("bench", archive)
        if status != 201 or platform.get("bench")[0] != 200:
            raise RuntimeError(f"a deployment answered {status}: {answer}")
        deploys.append(time.perf_counter() - started)
        started = time.perf_counter()
        status, answer = platform.call("POST", "/api/v1/apps/bench/rollback?wait=30", {"release": 1})
        if status != 201:
            raise RuntimeError(f"a roll back answered {status}: {answer}")
        rollbacks.append(time.perf_counter() - started)
    return deploys, rollbacks


def layer_row(platform: trial.Trial, folder: Path) -> Row:
    """A pipeline's call with an image of which only a layer of 5 MB is new, to the first 200."""
    found = []
    for number in range(LAYERS):
        archive = changed_layer(folder, number)
        started = time.perf_counter()
        status, answer = platform.deploy("bench", archive)
        if status != 201 or platform.get("bench")[0] != 200:
            raise RuntimeError(f"a deployment answered {status}: {answer}")
        found.append(time.perf_counter() - started)
    return Row(name="changed 5 MB layer, upload to live, p50", value=p50(found), unit="s", budget=2)


class Load(threading.Thread):
    """A closed loop of requests through the ingress that counts what failed."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.sent, self.failed, self.ending = port, 0, 0, threading.Event()

    def run(self) -> None:
        """Ask until told to end."""
        while not self.ending.is_set():
            self.sent += 1
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("GET", "/health", headers={"Host": "bench.localhost"})
                self.failed += connection.getresponse().status != 200
                connection.close()
            except OSError:
                self.failed += 1


def failures_while_deploying(platform: trial.Trial, archive: Path) -> Row:
    """Requests lost during 20 rolling deploys."""
    load = Load(platform.port)
    load.start()
    for _ in range(20):
        platform.deploy("bench", archive)
    load.ending.set()
    load.join()
    return Row(
        name="failed requests during 20 rolling deploys",
        value=load.failed,
        unit="requests",
        budget=0,
        note=f"{load.sent} sent",
    )


def answer_times(platform: trial.Trial, seconds: float) -> list[float]:
    """Seconds each call of the portal's list of apps takes, one after another."""
    found, ends = [], time.perf_counter() + seconds
    while time.perf_counter() < ends:
        started = time.perf_counter()
        platform.call("GET", "/api/v1/apps")
        found.append(time.perf_counter() - started)
    return found


def portal_beside_a_fork_bomb(platform: trial.Trial) -> Row:
    """The portal's p95 while an app tries to fork without end, beside its p95 when idle."""
    instance = platform.call("GET", "/api/v1/apps/bench/instances")[1][0]["id"]
    idle = percentile(answer_times(platform, 5), 0.95)
    bomb = ["exec", instance, "timeout", "8", "sh", "-c", "b() { b | b & }; b; sleep 8"]
    command = [docker_cli(), "-H", f"unix://{platform.engine_socket}", *bomb]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        busy = percentile(answer_times(platform, 5), 0.95)
    name = "portal's p95 during a fork bomb, beside idle"
    return Row(name=name, value=1000 * busy, peer=1000 * idle, unit="ms", budget=2, ratio=True)


def second_up() -> Row:
    """`make up` on a state folder that was up before."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-bench-", dir="/var/tmp"))
    try:
        platform = trial.up(folder, trial.free_port())
        trial.interrupt(platform)
        platform = trial.up(folder, platform.port)
        trial.down(platform)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Row(name="second make up to ready", value=platform.ready_after_s, unit="s", budget=8)


def rows(platform: trial.Trial, folder: Path) -> Iterator[Row]:
    """A fresh platform at rest, then under deploys."""
    time.sleep(SETTLE_S)
    value = control_plane_bytes(platform) / 1e6
    yield Row(name="control plane idle", value=value, unit="MB PSS", budget=420)
    archive = build_image(folder)
    deploys, rollbacks = deploy_times(platform, archive)
    yield Row(name="deploy call to first 200, p50", value=p50(deploys), unit="s", budget=0.5)
    yield Row(name="deploy call to first 200, p95", value=percentile(deploys, 0.95), unit="s", budget=1)
    yield Row(name="roll back, p95", value=percentile(rollbacks, 0.95), unit="s", budget=1)
    yield layer_row(platform, folder)
    yield failures_while_deploying(platform, archive)
    yield portal_beside_a_fork_bomb(platform)
