"""Whoever is killed at whichever step of an end and of a removal: nothing leaks, and how it ended is said as far as it was seen."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.runtime.root.engine.conftest import PATIENCE_S, eventually
from tests.runtime.root.steps import places
from tests.runtime.root.steps.conftest import NAME, Stage

pytestmark = [pytest.mark.root]

SEEN = places.OF_END[places.OF_END.index("monitor: clients") :]  # from here on the exit record is on disk
KILLED = 128 + signal.SIGKILL
BY_ITSELF = ("engine: end", "engine: record", "engine: leave")  # after these it is one removal like another
ENDS = [
    *((place, "monitor") for place in places.OF_END),
    *((place, "engine") for place in ("monitor: drain", "monitor: write", "monitor: cgroup")),
    ("monitor: drain", "launcher"),
]


def running(stage: Stage, **host: object) -> None:
    """The container runs, and the next crew is parked."""
    stage.settled()
    stage.create(**host)
    code, said = stage.engine.call("POST", f"/containers/{NAME}/start")
    assert code == 204, said


@pytest.mark.parametrize(("place", "who"), ENDS)
def test_who_is_killed_while_a_container_ends_costs_no_exit_code_that_was_seen(
    stage: Stage, place: str, who: str
) -> None:
    running(stage)
    status = stage.kill_at(place, who, "POST", f"/containers/{NAME}/stop?t=0")
    assert status == (0 if who == "engine" else 204)
    eventually(lambda: stage.state()["Status"] == "exited", "the end")
    lost = who == "monitor" and place not in SEEN
    assert stage.state()["ExitCode"] == (-1 if lost else KILLED)
    eventually(lambda: not stage.leftovers(), "what the monitor takes away")
    stage.says_the_truth()
    stage.starts_and_goes()


@pytest.mark.parametrize("place", places.OF_REMOVAL)
def test_an_engine_killed_while_it_removes_finishes_later_or_has_not_begun(stage: Stage, place: str) -> None:
    running(stage)
    pid = stage.state()["Pid"]
    stage.kill_at(place, "engine", "DELETE", f"/containers/{NAME}?force=1")
    state = stage.state()
    if place == "engine: kill":
        assert (state["Status"], state["Pid"]) == ("running", pid)  # it had not been told to end
    elif state:  # its end was known, its removal not yet on disk
        assert (state["Status"], state["ExitCode"]) == ("exited", KILLED)
        assert place in ("engine: end", "engine: record", "engine: leave")
    stage.says_the_truth()
    stage.starts_and_goes()


@pytest.mark.parametrize("place", BY_ITSELF)
def test_a_container_that_goes_by_itself_goes_though_the_engine_is_killed_meanwhile(stage: Stage, place: str) -> None:
    running(stage, AutoRemove=True)
    stage.kill_at(place, "engine", "POST", f"/containers/{NAME}/kill")
    eventually(lambda: not stage.state(), "the removal")
    stage.says_the_truth()
    stage.starts_and_goes()


@pytest.mark.parametrize("who", ["monitor", "launcher"])
@pytest.mark.parametrize("place", places.OF_END)
def test_a_removal_by_force_is_whole_though_others_are_killed(stage: Stage, place: str, who: str) -> None:
    running(stage)
    assert stage.kill_at(place, who, "DELETE", f"/containers/{NAME}?force=1") == 204
    assert stage.state() == {}
    eventually(lambda: not stage.leftovers(), "what the monitor takes away")
    stage.starts_and_goes()


def test_an_end_that_no_engine_saw_is_known_to_the_next_one_with_a_monitor_that_stands(stage: Stage) -> None:
    """The engine comes back while the monitor has not written the exit record yet: it waits for it, and says that it runs."""
    running(stage)
    folder = stage.engine.containers / stage.engine.call("GET", f"/containers/{NAME}/json")[1]["Id"]
    init = json.loads((folder / "state.json").read_text())["init"]["pid"]
    stage.board.arm("monitor: write")
    stage.engine.end(signal.SIGKILL)
    os.kill(init, signal.SIGKILL)
    assert stage.board.reached(PATIENCE_S)
    stage.engine.start()
    assert stage.state()["Status"] == "running"
    stage.board.let_go()
    eventually(lambda: stage.state()["Status"] == "exited", "the end")
    assert stage.state()["ExitCode"] == KILLED
    eventually(lambda: not stage.leftovers(), "what the monitor takes away")
    stage.starts_and_goes()
