"""Removed memory groups that still hold pages are counted, and our way to remove one leaves none. Other software of the machine
makes and removes groups meanwhile: many are made, and a few are allowed to be its."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.kernel import cgroups
from runtime.kernel.cgroups import files
from scripts.state import ROOT
from tests.dying import abandon, dying_groups, run_inside

pytestmark = pytest.mark.root

MADE, OTHERS = 30, 6


@pytest.fixture
def parent() -> Iterator[str]:
    """A group of ours."""
    path = f"moorage-dying{os.getpid()}"
    yield path
    cgroups.detect().remove(path)


def none_is_left(before: int) -> bool:
    return files.until(lambda: cgroups.detect().dying() <= before + OTHERS)  # the kernel frees them in its own time


def test_groups_are_counted_as_long_as_they_hold_pages(parent: str) -> None:
    before = cgroups.detect().dying()
    with dying_groups(parent, MADE):
        assert cgroups.detect().dying() >= before + MADE - OTHERS
    assert none_is_left(before)


def forget(sources: list[Path]) -> None:
    """Drop the files from the page cache, so that who reads them next is charged."""
    for source in sources:
        fd = os.open(source, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


@pytest.fixture
def sources() -> Iterator[list[Path]]:
    """Files of this repository that nothing has mapped, none of them in the page cache."""
    found = sorted(ROOT.glob("tests/**/*.py"), key=lambda path: path.stat().st_size)[-MADE:]
    assert len(found) == MADE
    forget(found)
    yield found
    forget(found)


def charge(parent: str, sources: list[Path], remove: Callable[[str], None]) -> None:
    """For each file a group whose process reads it, removed at once."""
    for number, source in enumerate(sources):
        run_inside(f"{parent}/{number}", "cat", str(source))
        remove(f"{parent}/{number}")


def test_a_group_that_we_remove_does_not_live_on_for_the_files_it_read(parent: str, sources: list[Path]) -> None:
    before = cgroups.detect().dying()
    charge(parent, sources, abandon)
    assert cgroups.detect().dying() >= before + MADE - OTHERS
    forget(sources)
    assert none_is_left(before)
    charge(parent, sources, cgroups.detect().remove)
    assert none_is_left(before)


def test_the_pages_of_those_below_are_given_back_with_their_parent(parent: str, sources: list[Path]) -> None:
    before = cgroups.detect().dying()
    charge(parent, sources, abandon)
    cgroups.detect().remove(parent)
    assert none_is_left(before)
