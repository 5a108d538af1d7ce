"""Guests that run the same tests side by side deal them out through a folder that they share: who makes a piece's entry first
has it. How each test went is written there as it comes, so that a run that is cut off says what it did."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Protocol

PIECE = 12  # tests of one file that stay together: they share an engine, which takes long to start in a guest
TOLD = re.compile(r"(?:passed|failed|skipped) +[\d.]+ s  (.*)")
COLLECTED, HOST_ONLY, GUEST = "collected", "host-only", "guest-{}"


class Test(Protocol):
    """What is needed of pytest's items."""

    nodeid: str


@dataclass(slots=True)
class Dealer:
    """One guest of those that share `folder`. The first goes from front to back, the second comes to meet it."""

    folder: Path
    guest: int
    _seconds: dict[str, float] = field(default_factory=dict)
    _outcome: dict[str, str] = field(default_factory=dict)

    def deal[T: Test](self, tests: Sequence[T]) -> Iterator[T]:
        """Those that fall to this guest. A piece is taken only when it is asked for."""
        all_of_them = list(pieces(tests))
        for piece in all_of_them if self.guest % 2 else reversed(all_of_them):
            name = hashlib.sha256(piece[0].nodeid.encode()).hexdigest()
            with suppress(FileExistsError):
                (self.folder / name).mkdir()
                yield from piece

    def say(self, line: str) -> None:
        """Write a line into this guest's part of the log."""
        with (self.folder / GUEST.format(self.guest)).open("a") as log:
            log.write(f"{line}\n")

    def note(self, nodeid: str, outcome: str, seconds: float, *, last: bool, why: str = "") -> None:
        """One phase of a test went so; after the last its line is written: the worst outcome, all seconds. `why` it failed is written at once."""
        if why:
            self.say(f"    {nodeid}: {why}")
        self._seconds[nodeid] = self._seconds.get(nodeid, 0) + seconds
        if outcome != "passed" or nodeid not in self._outcome:
            self._outcome[nodeid] = outcome
        if last:
            self.say(f"{self._outcome[nodeid]:7} {self._seconds[nodeid]:6.1f} s  {nodeid}")


def pieces[T: Test](tests: Sequence[T]) -> Iterator[list[T]]:
    """Runs of at most PIECE tests of one file, in their order."""
    for _, of_file in groupby(tests, lambda test: test.nodeid.partition("::")[0]):
        found = list(of_file)
        yield from (found[at : at + PIECE] for at in range(0, len(found), PIECE))


def summary(folder: Path) -> tuple[list[str], list[str]]:
    """The log of all guests, and the tests that were collected and ran in none of them."""
    lines = [line for path in sorted(folder.glob(GUEST.format("*"))) for line in path.read_text().splitlines()]
    ran = {found[1] for line in lines if (found := TOLD.fullmatch(line))}
    collected = _lines(folder / COLLECTED)
    missed = [name for name in collected if name not in ran]
    host = _lines(folder / HOST_ONLY)
    lines += [f"{len(ran)} tests ran, {len(missed)} did not", *(f"not run: {name}" for name in missed)]
    return [*lines, f"{len(host)} tests need the host:", *host], missed


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
