"""Placement is pure: which host, and why not the others."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from portal.fleet.placement import Offer, Wanted, choose_host, no_host

WANTED = Wanted(cpu_millicores=500, memory_bytes=1 << 30, disk_bytes=1 << 30)
ROOMY = Offer(name="a", cpu_millicores=4000, memory_bytes=8 << 30, disk_bytes=100 << 30, disk_free_bytes=90 << 30)


def test_the_host_with_most_free_memory_is_chosen() -> None:
    fuller = dataclasses.replace(ROOMY, name="b", memory_promised=2 << 30)
    assert choose_host([fuller, ROOMY], WANTED).host == "a"


def test_one_app_is_spread_before_memory_is_weighed() -> None:
    fuller = dataclasses.replace(ROOMY, name="b", memory_promised=2 << 30)
    assert choose_host([fuller, dataclasses.replace(ROOMY, of_this_app=1)], WANTED).host == "b"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ready": False}, "is being drained"),
        ({"fresh": False}, "has not reported lately"),
        ({"cpu_millicores": 250}, "has 0.25 cores, 0.5 are needed"),
        ({"cpu_promised": 15_900}, "has promised 15.9 of 16 cores"),
        ({"memory_promised": 8 << 30}, "has promised 8 GB of 8 GB memory"),
        ({"disk_free_bytes": 1 << 30}, "has 1 GB of 100 GB disk left"),
    ],
)
def test_each_refusal_has_its_reason_with_figures(change: dict[str, Any], reason: str) -> None:
    choice = choose_host([dataclasses.replace(ROOMY, **change)], WANTED)
    assert (choice.host, choice.refused) == (None, {"a": reason})
    assert reason in no_host(choice).message


def test_a_host_that_has_not_said_what_it_has_is_not_refused_for_it() -> None:
    assert choose_host([Offer(name="new")], WANTED).host == "new"


def test_without_hosts_the_sentence_says_so() -> None:
    assert "there is none" in no_host(choose_host([], WANTED)).message
