"""Which images a host lets go, and when."""

from __future__ import annotations

import pytest

from worker.pruning import UNUSED_KEPT_S, HostImage, host_image, removable, seen

NOW = 1_000_000_000.0
AMPLE, TIGHT, FULL = 0.5, 0.2, 0.1


def image(number: int, app: str = "shop", *, tagged: bool = False) -> HostImage:
    return HostImage(f"id{number}", {f"portal/acme/{app}": f"sha256:{number}"}, tagged)


IMAGES = [image(number) for number in range(5)]
LAST = {f"id{number}": NOW - 100 + number for number in range(5)}


@pytest.mark.parametrize(
    ("free_share", "gone"),
    [(AMPLE, []), (TIGHT, ["id0", "id1"]), (FULL, ["id0", "id1", "id2", "id3"])],
)
def test_the_fuller_the_disk_the_more_goes_and_never_what_is_needed(free_share: float, gone: list[str]) -> None:
    assert removable(IMAGES, {"sha256:4"}, LAST, NOW, free_share) == gone


def test_what_was_not_needed_for_a_week_goes_from_an_empty_disk() -> None:
    last = LAST | {"id2": NOW - UNUSED_KEPT_S - 1, "id4": NOW - UNUSED_KEPT_S - 1}
    assert removable(IMAGES, {"sha256:4"}, last, NOW, AMPLE) == ["id2"]


def test_each_app_keeps_its_newest_when_it_is_tight() -> None:
    images = [*IMAGES, image(7, "other"), image(8, "other")]
    last = LAST | {"id7": NOW - 900, "id8": NOW - 800}
    assert removable(images, set(), last, NOW, TIGHT) == ["id0", "id1", "id2"]


def test_what_a_person_tagged_stays() -> None:
    images = [image(1, tagged=True)]
    assert seen(images, set(), {}, NOW) == {}
    assert removable(images, set(), {}, NOW, FULL) == []


def test_needed_now_means_seen_now_and_new_ones_count_from_now() -> None:
    found = seen(IMAGES[:3], {"sha256:0"}, {"id1": NOW - 50}, NOW)
    assert found == {"id0": NOW, "id1": NOW - 50, "id2": NOW}


def test_a_row_of_the_engine_is_read() -> None:
    row = {"Id": "sha256:aa", "RepoTags": [], "RepoDigests": ["127.0.0.1:8080/acme/shop@sha256:bb"]}
    assert host_image(row) == HostImage("sha256:aa", {"127.0.0.1:8080/acme/shop": "sha256:bb"})
    assert host_image({"Id": "sha256:aa", "RepoTags": ["busybox:latest"], "RepoDigests": None}).tagged
