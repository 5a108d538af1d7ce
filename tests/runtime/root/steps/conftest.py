"""One engine whose steps are places to stand at, and who of its processes can be killed there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.kernel.process import start_ticks
from tests.runtime.root.engine.conftest import PATIENCE_S, SCRATCH, Engine, busybox_archive, eventually, running
from tests.runtime.root.steps.board import Board
from tests.runtime.root.steps.places import PROGRAM

NAME = "case"
# The end of a namespace, and with it of the links in it, is the kernel's to come to (cleanup_net); no event tells of it.
KNOWN_S = 30.0 if os.environ.get("MOORAGE_TEST_VM") else 3.0


def children(pid: int) -> list[int]:
    """Pids of a process's children; none of one that is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def named(pid: int, name: str) -> bool:
    """Whether that is what `ps` shows for a process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    return False


def is_init(pid: int) -> bool:
    """Whether a process is the first of a pid namespace of its own."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{pid}/status").read_text()
        return next(line for line in status.splitlines() if line.startswith("NSpid")).split()[2:] == ["1"]
    return False


class Stage:
    """An engine, the board its processes look at, and the container that is made and removed in each case."""

    def __init__(self, engine: Engine, board: Board) -> None:
        self.engine, self.board = engine, board

    def settled(self) -> None:
        """No container is here, also of a case before that failed, and a crew is parked: monitor, maker, init, helper."""
        self.board.let_go()
        if self.engine.process is None:
            self.engine.start()
        self.engine.clear()
        eventually(lambda: len(self._descendants(self.launcher())) == 4, "a parked crew")

    def launcher(self) -> int:
        """Its pid; 0 while there is none."""
        assert self.engine.process
        return next((pid for pid in children(self.engine.process.pid) if named(pid, "moorage-launch")), 0)

    def _descendants(self, pid: int) -> list[int]:
        found = children(pid)
        return found + [below for child in found for below in self._descendants(child)]

    def pid_of(self, who: str) -> int:
        """A process that makes or holds the container, by its part."""
        if who == "engine":
            assert self.engine.process
            return self.engine.process.pid
        if who == "launcher":
            return self.launcher()
        monitor = next(pid for pid in children(self.launcher()) if named(pid, "moorage-monitor"))
        if who == "monitor":
            return monitor
        below = children(monitor)
        if who == "init":  # one that was gathered anew is the younger
            return max(pid for pid in below if is_init(pid))
        maker = max(pid for pid in below if not is_init(pid))
        return maker if who == "maker" else max(children(maker))

    def create(self, **host: Any) -> None:
        """The container, not started. It outlives the test unless it is removed."""
        body = {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": host}
        code, said = self.engine.call("POST", f"/containers/create?name={NAME}", body)
        assert code == 201, said

    def kill_at(self, place: str, who: str, method: str, path: str) -> int:
        """Make a call, and kill somebody when its work is at a place. The answer's status, 0 when the engine was killed."""
        self.board.arm(place)
        answers: list[int] = []
        calling = threading.Thread(target=lambda: answers.append(self._call(method, path)))
        calling.start()
        try:
            assert self.board.reached(PATIENCE_S), f"nobody came to {place}: {answers} {self.engine.log()}"
            pid = self.pid_of(who)
            assert pid > 1, f"there is no {who} at {place}"
            if who == "engine":
                self.engine.end(signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
                eventually(lambda: start_ticks(pid) is None, f"the end of the {who}")
        finally:
            self.board.let_go()
            calling.join(PATIENCE_S)
        assert not calling.is_alive(), f"no answer after the {who} was killed at {place}"
        if self.engine.process is None:
            self.engine.start()
        return answers[0]

    def _call(self, method: str, path: str) -> int:
        try:
            return self.engine.call(method, path)[0]
        except (OSError, ValueError):
            return 0

    def state(self) -> dict[str, Any]:
        """What inspect says, {} when there is no such container."""
        code, body = self.engine.call("GET", f"/containers/{NAME}/json")
        return body["State"] if code == 200 else {}

    def leftovers(self) -> dict[str, list[str]]:
        """What is left over, as the engine sees it."""
        found = self.engine.call("GET", "/moorage/leftovers")[1]
        return {kind: names for kind, names in found.items() if names}

    def says_the_truth(self) -> None:
        """What inspect and ps say is what the kernel has; an end may take a moment to be known."""
        lies: list[str] = []

        def all_true() -> bool:
            lies[:] = self._lies()
            return not lies

        with contextlib.suppress(pytest.fail.Exception):
            eventually(all_true, "the truth", patience_s=KNOWN_S)
        assert lies == []

    def _lies(self) -> list[str]:
        state = self.state()
        rows = {row["Names"][0]: row["State"] for row in self.engine.call("GET", "/containers/json?all=1")[1]}
        found = [f"left over: {self.leftovers()}"] if self.leftovers() else []
        if rows != ({f"/{NAME}": state["Status"]} if state else {}):
            found.append(f"ps says {rows}, inspect {state}")
        lives = bool(state) and start_ticks(state["Pid"]) is not None and named(state["Pid"], "sleep")
        if state and (state["Status"] == "running") != lives:
            found.append(
                f"inspect says {state['Status']}, process {state['Pid']} of it {'lives' if lives else 'is gone'}"
            )
        return found

    def starts_and_goes(self) -> None:
        """The same name lives again, and is removed whole."""
        if not self.state():
            self.create()
        code, said = self.engine.call("POST", f"/containers/{NAME}/start")
        assert code in (204, 304), said
        assert self.state()["Status"] == "running"
        self.says_the_truth()
        code, said = self.engine.call("DELETE", f"/containers/{NAME}?force=1")
        assert code == 204, said
        assert self.state() == {}
        eventually(lambda: not self.leftovers(), "the end of what is left over", patience_s=KNOWN_S)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """For all cases of a module; at the end nothing may be left."""
    assert os.geteuid() == 0, "these tests need root"
    state = Path(tempfile.mkdtemp(prefix="moorage-steps-", dir=SCRATCH))
    board = state / "board"
    program = ("-c", PROGRAM.format(str(board)))
    try:
        with running(busybox_archive(), state, program=program) as engine:
            made = Stage(engine, Board(board))
            yield made
            if engine.process is None:
                engine.start()
    finally:
        shutil.rmtree(state, ignore_errors=True)
