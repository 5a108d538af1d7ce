"""Whoever is killed at whichever step of a start: nothing leaks, the next call says the truth, the next start succeeds."""

from __future__ import annotations

import pytest

from tests.runtime.root.steps import places
from tests.runtime.root.steps.conftest import NAME, Stage

pytestmark = [pytest.mark.root]

CASES = [  # who carries a step out, who waits for it, and the engine where its end finds another state of things
    *((place, who, False) for place in places.OF_MAKER for who in ("maker", "monitor", "engine")),
    *((place, who, True) for place in places.OF_GATHER for who in ("maker", "monitor")),
    *((place, who, False) for place in places.OF_HELPER for who in ("helper", "maker", "monitor")),
    *((place, who, False) for place in places.OF_INIT for who in ("init", "monitor")),
    *((place, "engine", False) for place in ("helper: mounts", "init: 3 root", "init: 5 exec")),
    *((place, who, False) for place in places.OF_LAUNCHER for who in ("launcher", "engine")),
    *((place, who, False) for place in places.OF_MONITOR for who in ("monitor", "launcher", "engine")),
    *((place, who, False) for place in places.OF_ENGINE for who in ("launcher", "engine")),
]
ANEW = {"ShmSize": 1 << 20}  # for which the parked crew does not fit


@pytest.mark.parametrize(("place", "who", "anew"), CASES, ids=[f"{place}-{who}" for place, who, _ in CASES])
def test_who_is_killed_in_a_start_leaves_nothing(stage: Stage, place: str, who: str, anew: bool) -> None:
    stage.settled()
    stage.create(**(ANEW if anew else {}))
    status = stage.kill_at(place, who, "POST", f"/containers/{NAME}/start")
    stage.says_the_truth()
    if who == "launcher":
        assert status == 204  # the engine starts another, and who is at work already goes on
    if status == 204 and who in ("launcher", "engine"):
        assert stage.state()["Status"] == "running"
    stage.starts_and_goes()
