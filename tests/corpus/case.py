"""The corpus of hostile archives: what a case is, and how builders get into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.corpus import tar


@dataclass(frozen=True)
class Case:
    """One hostile archive and a part of the sentence that refuses it."""

    name: str
    build: Callable[[], bytes]
    sentence: str


CASES: list[Case] = []
type Build = Callable[[], bytes]


def refused(sentence: str) -> Callable[[Build], Build]:
    """Put a builder of a whole archive into the corpus."""

    def add(build: Build) -> Build:
        CASES.append(Case(build.__name__, build, sentence))
        return build

    return add


def layer_refused(sentence: str) -> Callable[[Build], Build]:
    """Put a builder of one layer into the corpus, inside an otherwise good archive."""

    def add(build: Build) -> Build:
        CASES.append(Case(build.__name__, lambda: tar.docker_archive([build()]), sentence))
        return build

    return add


GOOD_LAYER = tar.layer(tar.folder("etc"), tar.entry("etc/motd", b"hello\n"))
