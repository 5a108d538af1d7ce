"""Kill any process of the platform under load: the app loses no request, and afterwards all is as before."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from runtime.kernel.process import start_ticks
from scripts import doctor, records
from scripts.trial import Trial
from tests.e2e.conftest import build_demo
from tests.e2e.log_view import LogView

pytestmark = pytest.mark.e2e

APP = "kills"
BACK_WITHIN_S = 30
TICKING = 'i=0; while :; do echo "tick $i"; i=$((i+1)); sleep 0.05; done & exec /app/serve'


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
            self.ending.wait(0.02)

    def end(self) -> None:
        """Ask thirty times more, then no more."""
        sent, deadline = self.sent, time.monotonic() + 5
        while self.sent < sent + 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        self.ending.set()
        self.join(20)


@pytest.fixture(scope="module")
def app(platform_running: Trial, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An app that serves during all kills, and counts aloud."""
    archive = build_demo(tmp_path_factory.mktemp("ticking") / "ticking.tar", "--line", TICKING)
    assert platform_running.call("POST", "/api/v1/apps", {"app": APP, "plan": "nano"})[0] == 201
    status, answer = platform_running.deploy(APP, archive)
    assert status == 201, answer
    return APP


@pytest.fixture(scope="module")
def view(platform_running: Trial, app: str) -> Iterator[LogView]:
    """One viewer, who looks on during all kills."""
    view = LogView(platform_running.url, app, platform_running.token)
    view.start()
    assert view.await_line("tick 0", BACK_WITHIN_S)
    yield view
    view.close()


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


def ticks(texts: Iterable[str]) -> list[int]:
    """What the app has counted, in the order of these lines."""
    return [int(found[1]) for text in texts if (found := re.fullmatch(r"tick (\d+)", text))]


def on_disk(platform: Trial, container: str) -> list[int]:
    """What the app has counted by the log on disk, which a new engine gives out as soon as it answers."""
    command = ["docker", "-H", f"unix://{platform.engine_socket}", "logs", container]
    deadline = time.monotonic() + BACK_WITHIN_S
    while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.05)
    return ticks(done.stdout.splitlines())


def by_rest(platform: Trial, app: str, last: int) -> list[int]:
    """What the app has counted by REST, from the first line that the streams have until `last` is there."""
    texts: list[str] = []
    since, deadline = "1-0", time.monotonic() + BACK_WITHIN_S
    while f"tick {last}" not in texts and time.monotonic() < deadline:
        status, answer = platform.call("GET", f"/api/v1/apps/{app}/logs?limit=5000&since={since}")
        assert status == 200, answer
        texts += [line["text"] for line in answer["lines"]]
        since = answer["next"]
    return ticks(texts)


def assert_every_line_is_everywhere(platform: Trial, app: str, view: LogView, before: int) -> None:
    """On disk, by REST (from `before` on at least: a Valkey that was killed gets the last lines again) and in the view: each number
    once and in order, up to the last one that is written now."""
    written = on_disk(platform, containers(platform, app)[0][1])
    last = written[-1]
    assert written == list(range(last + 1)), "on disk"
    answered = by_rest(platform, app, last)
    assert answered == list(range(answered[0], answered[-1] + 1)), "by REST"
    assert answered[0] <= before and last <= answered[-1]
    assert view.await_line(f"tick {last}", BACK_WITHIN_S), (
        f"not in the view; joined {view.joined} times, {view.refused}"
    )
    seen = ticks(view.texts)
    assert seen == list(range(seen[0], seen[-1] + 1)), "in the view"


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
def test_nothing_is_lost_when_a_process_is_killed(platform: Trial, app: str, view: LogView, victim: str) -> None:
    find = VICTIMS[victim]
    before = containers(platform, app)
    load = Load(platform.port)
    load.start()
    pid, counted = find(platform), ticks(view.texts)[-1]
    kill(pid)
    await_ready(platform, find, pid)
    load.end()
    if victim != "haproxy":
        assert load.failed == [], f"{len(load.failed)} of {load.sent} failed"
    else:
        assert all("Connection" in reason or "Remote" in reason for reason in load.failed), load.failed[:5]
    assert_every_line_is_everywhere(platform, app, view, counted)
    assert containers(platform, app) == before
    assert doctor.leftovers(platform.state) == []
