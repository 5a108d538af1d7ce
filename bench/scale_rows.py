"""Rows of many apps: the list of a thousand while it is asked for 50 times a second, and a hundred that start at once."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.daemons import build_image
from bench.rows import Row, percentile
from scripts.trial import Trial

LISTED = 1000
PER_S = 50
LIST_SECONDS = 10
STARTED = 100
AT_ONCE = 8
SERVING_WITHIN_S = 120.0
PLAN = {"slug": "tiny", "cpu_millicores": 75, "memory_bytes": 32 << 20, "disk_bytes": 64 << 20, "pids": 32}
QUOTA = {
    "apps": 2000, "instances": 4000, "cpu_millicores": 2_000_000, "memory_bytes": 1 << 42, "disk_bytes": 1 << 44, "image_bytes": 1 << 40,
}  # fmt: skip


def at_once(work: Callable[[int], object], count: int) -> None:
    """The work of 0 … count - 1, some at a time; the first failure is raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(work, range(count)):
            pass


def expect(answered: tuple[int, object], *statuses: int) -> None:
    """Raise unless a call was answered as it should be."""
    if answered[0] not in statuses:
        raise RuntimeError(f"the portal answered {answered[0]}: {answered[1]}")


def add_apps(platform: Trial, prefix: str, count: int) -> None:
    """Apps on a plan of which this machine holds a hundred."""
    expect(platform.call("PUT", "/api/v1/teams/admin/quota", QUOTA), 200)
    expect(platform.call("POST", "/api/v1/plans", PLAN), 201, 409)

    def add(number: int) -> None:
        expect(platform.call("POST", "/api/v1/apps", {"app": f"{prefix}-{number}", "plan": PLAN["slug"]}), 201)

    at_once(add, count)


class Asker:
    """Asks at fixed times, late or not: a slow answer counts with the wait it caused those after it."""

    def __init__(self, platform: Trial, path: str) -> None:
        self._headers = {"Authorization": f"Bearer {platform.token}", "Host": f"localhost:{platform.port}"}
        self._port, self._path = platform.port, path
        self._kept = threading.local()

    def ask(self, due: float) -> float:
        """Seconds from when it was due to the last byte."""
        time.sleep(max(0.0, due - time.perf_counter()))
        if not hasattr(self._kept, "connection"):
            self._kept.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        self._kept.connection.request("GET", self._path, headers=self._headers)
        answer = self._kept.connection.getresponse()
        answer.read()
        expect((answer.status, self._path), 200)
        return time.perf_counter() - due

    def answers(self, seconds: float) -> list[float]:
        """Of PER_S a second."""
        began = time.perf_counter() + 0.1
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self.ask, (began + n / PER_S for n in range(int(seconds * PER_S)))))


def list_rows(platform: Trial, _: Path) -> Iterator[Row]:
    """The page of 100 apps from the middle of a thousand."""
    add_apps(platform, "listed", LISTED)
    cursor = platform.call("GET", "/api/v1/apps?limit=100")[1]["next"]
    asker = Asker(platform, f"/api/v1/apps?limit=100&cursor={cursor}")
    asker.answers(2)
    value = 1000 * percentile(asker.answers(LIST_SECONDS), 0.99)
    yield Row(name=f"API list of 100 of {LISTED:,} apps, p99 at {PER_S}/s", value=value, unit="ms", budget=50)


def await_serving(platform: Trial, names: list[str], deadline: float) -> None:
    """Until each answered through the ingress; raises with those that do not."""
    while names:
        names = [name for name in names if not serves(platform, name)]
        if names and time.monotonic() > deadline:
            raise RuntimeError(f"{len(names)} apps do not serve, {names[0]} among them")


def serves(platform: Trial, name: str) -> bool:
    """Whether an app's own answer comes."""
    with contextlib.suppress(OSError):
        return platform.get(name, "/health") == (200, b"ok\n")
    return False


def hundred_rows(platform: Trial, folder: Path) -> Iterator[Row]:
    """From the first of a hundred pipelines' calls, uploads included, to the last app's answer."""
    archive = build_image(folder)
    add_apps(platform, "small", STARTED)
    began = time.monotonic()

    def deploy(number: int) -> None:
        expect(platform.deploy(f"small-{number}", archive, wait_s=120), 201)

    at_once(deploy, STARTED)
    names = [f"small-{number}" for number in range(STARTED)]
    await_serving(platform, names, began + SERVING_WITHIN_S)
    name = f"{STARTED} small apps, from the first call to all serving"
    yield Row(name=name, value=time.monotonic() - began, unit="s", budget=30)
    at_once(lambda n: platform.call("POST", f"/api/v1/apps/small-{n}/stop"), STARTED)
