"""Kill any process of the platform under load: the app loses no request, and afterwards all is as before."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.kernel.process import start_ticks
from scripts import doctor, records
from scripts.trial import Trial

pytestmark = pytest.mark.e2e

APP = "kills"
BACK_WITHIN_S = 30


class Load(threading.Thread):
    """Asks the app in a closed loop; keeps every answer that was not 200."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.sent, self.failed, self.ending = port, 0, list[str](), threading.Event()

    def run(self) -> None:
        while not self.ending.is_set():
            self.sent += 1
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
            try:
                connection.request("GET", "/health", headers={"Host": f"{APP}.localhost"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failed.append(f"{answer.status}")
            except OSError as error:
                self.failed.append(repr(error))
            finally:
                connection.close()
            self.ending.wait(0.005)


@pytest.fixture(scope="module")
def app(platform_running: Trial, demo_archive: Path) -> Iterator[str]:
    """An app that serves during all kills."""
    assert platform_running.call("POST", "/api/v1/apps", {"app": APP, "plan": "nano"})[0] == 201
    status, answer = platform_running.deploy(APP, demo_archive)
    assert status == 201, answer
    yield APP


def supervised(name: str) -> Callable[[Trial], int]:
    """Finds a supervised program's pid through its place below supervisord."""

    def find(platform: Trial) -> int:
        supervisord = int((platform.folder / "run/supervisord.pid").read_text())
        words = {
            "web": "gunicorn",
            "worker": "worker.app",
            "control": "portal.celery",
            "agent": "worker.agent",
            "valkey": "unixsocket:",
        }[name]
        for child in Path(f"/proc/{supervisord}/task/{supervisord}/children").read_text().split():
            if words in Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "):
                return int(child)
        raise AssertionError(f"{name} does not run")

    return find


def recorded(name: str) -> Callable[[Trial], int]:
    """Finds a kept daemon's pid in its record."""

    def find(platform: Trial) -> int:
        record = records.read(platform.folder / "run" / f"{name}.json")
        assert record is not None, f"{name} does not run"
        return record["pid"]

    return find


def launcher(platform: Trial) -> int:
    """The engine's launcher: the child that runs runtime.oci's launcher."""
    engine = recorded("engine")(platform)
    for task in Path(f"/proc/{engine}/task").iterdir():
        for child in (task / "children").read_text().split():
            if "launcher" in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
    raise AssertionError("the engine has no launcher")


def supervisord(platform: Trial) -> int:
    return int((platform.folder / "run/supervisord.pid").read_text())


def kill(pid: int) -> None:
    """kill -9; returns when its children that end with it (gunicorn's workers, who could answer once more) are gone."""
    children = web_workers(pid)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + BACK_WITHIN_S
    while any(start_ticks(child) == ticks for child, ticks in children.items()):
        assert time.monotonic() < deadline, f"workers of {pid} live on"
        time.sleep(0.01)


def web_workers(pid: int) -> dict[int, int | None]:
    """gunicorn's workers below its master, each with its start; nothing for another program."""
    if b"gunicorn" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        return {}
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return {child: start_ticks(child) for child in children}


def await_ready(platform: Trial, find: Callable[[Trial], int], killed: int) -> None:
    """Until another process is in the killed one's place and the portal is ready."""
    deadline = time.monotonic() + BACK_WITHIN_S
    said: object = ""
    while time.monotonic() < deadline:
        try:
            if find(platform) != killed and (said := platform.call("GET", "/readyz", timeout_s=5))[0] == 200:
                return
        except (OSError, AssertionError, http.client.HTTPException) as error:
            said = error
        time.sleep(0.05)
    raise AssertionError(f"not as before {BACK_WITHIN_S} s after the kill: {said}")


def containers(platform: Trial, app: str) -> list[tuple[str, str]]:
    """An app's instances, each with its container."""
    status, answer = platform.call("GET", f"/api/v1/apps/{app}/instances")
    assert status == 200, answer
    return [(instance["id"], instance["container_id"]) for instance in answer]


VICTIMS: dict[str, Callable[[Trial], int]] = {
    "engine": recorded("engine"),
    "launcher": launcher,
    "agent": supervised("agent"),
    "worker": supervised("worker"),
    "control": supervised("control"),
    "web": supervised("web"),
    "valkey": supervised("valkey"),
    "supervisord": supervisord,
    "haproxy": recorded("haproxy"),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_lost_when_a_process_is_killed(platform: Trial, app: str, victim: str) -> None:
    find = VICTIMS[victim]
    before = containers(platform, app)
    load = Load(platform.port)
    load.start()
    pid = find(platform)
    kill(pid)
    await_ready(platform, find, pid)
    sent = load.sent
    deadline = time.monotonic() + 5
    while load.sent < sent + 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    load.ending.set()
    load.join(20)
    if victim != "haproxy":
        assert load.failed == [], f"{len(load.failed)} of {load.sent} failed"
    else:
        assert all("Connection" in reason or "Remote" in reason for reason in load.failed), load.failed[:5]
    assert containers(platform, app) == before
    assert doctor.leftovers(platform.state) == []


def test_no_log_line_is_missing_from_the_view_after_kills(platform: Trial, app: str) -> None:
    """Ask for numbered paths while agent and Valkey are killed: each is in the view once."""
    wanted = [f"/health?n={n}" for n in range(60)]
    for number, path in enumerate(wanted):
        assert platform.get(app, path)[0] == 200
        if number in (20, 40):
            find = VICTIMS["agent" if number == 20 else "valkey"]
            pid = find(platform)
            kill(pid)
            await_ready(platform, find, pid)
    deadline = time.monotonic() + 20
    seen: list[int] = []
    while time.monotonic() < deadline:
        _, answer = platform.call("GET", f"/api/v1/apps/{app}/logs?limit=5000")
        text = [line["text"] for line in answer["lines"]]
        seen = [sum(f"n={n} " in t or t.endswith(f"n={n}") or f'n={n}"' in t for t in text) for n in range(60)]
        if all(seen):
            break
        time.sleep(0.2)
    assert seen == [1] * 60
