"""Limit events of the engine in the words the portal is told."""

from __future__ import annotations

import pytest

from worker.metrics import limit_hit
from worker.protocol import LABEL_APP


def event(**attributes: str) -> dict[str, object]:
    figures = {
        "name": "shop-1",
        "limit": "cpu",
        "level": "team",
        "used": "250",
        "allowed": "250",
        "process": "",
        "sentence": "Slowed.",
    }
    return {"timeNano": 12 * 10**9, "Actor": {"ID": "1", "Attributes": {LABEL_APP: "shop", **figures, **attributes}}}


@pytest.mark.parametrize("limit", ["memory", "swap", "cpu", "pids", "disk", "disk_io", "network"])
def test_every_limit_is_told_with_its_level_and_since_when(limit: str) -> None:
    hit = limit_hit(event(limit=limit, since="2.5"))
    assert hit and (hit.instance, hit.limit, hit.level, hit.when, hit.since) == ("shop-1", limit, "team", 12.0, 2.5)
    assert (hit.used, hit.allowed, hit.sentence) == (250, 250, "Slowed.")


def test_what_happened_once_has_no_since_and_what_is_not_an_apps_is_left_out() -> None:
    hit = limit_hit(event())
    assert hit and hit.since == 0
    assert limit_hit(event(limit="new")) is None
    bare = event()
    bare["Actor"]["Attributes"].pop(LABEL_APP)  # type: ignore[index]
    assert limit_hit(bare) is None
