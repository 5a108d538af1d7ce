"""Our `dataclass` beside the standard library's: the same classes behave the same."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runtime.dataclass

ROOT = Path(__file__).resolve().parents[2]


def classes(decorate: Callable[..., Any]) -> tuple[type[Any], type[Any], type[Any]]:
    """A frozen one, one of keywords alone, one that can be changed."""

    @decorate(frozen=True, slots=True)
    class Frozen:
        """Frozen."""

        a: int
        b: tuple[int, ...] = ()
        c: dict[str, int] = dataclasses.field(default_factory=dict, compare=False, repr=False)

        def double(self) -> int:
            """Methods stay."""
            return 2 * self.a

    @decorate(frozen=True, slots=True, kw_only=True)
    class Keywords:
        """By keyword."""

        a: int = 1
        b: str

    @decorate(slots=True)
    class Open:
        """Can be changed."""

        a: int

    return Frozen, Keywords, Open


BOTH = (classes(dataclasses.dataclass), classes(runtime.dataclass.dataclass))


@pytest.mark.parametrize(
    "look",
    [
        lambda f, k, o: repr(f(1)).rpartition(".")[2],
        lambda f, k, o: repr(f(1, (2,), {"x": 1})).rpartition(".")[2],
        lambda f, k, o: (f(1, b=(2,)).b, f(1).c, f(3).double()),
        lambda f, k, o: f(1).c is f(1).c,
        lambda f, k, o: (f(1, c={"x": 1}) == f(1), f(1) == f(2), f(1) == (1, ()), hash(f(1)) == hash(f(1, c={"x": 1}))),
        lambda f, k, o: (f(1) == k(b=""), k(b="x") == k(a=1, b="x"), k(b="x") != k(b="y")),
        lambda f, k, o: dataclasses.asdict(f(1, (2,), {"x": 1})),
        lambda f, k, o: dataclasses.replace(k(b="x"), a=5).a,
        lambda f, k, o: [field.name for field in dataclasses.fields(k)],
        lambda f, k, o: (f.__match_args__, k.__match_args__, f.__slots__, f.__doc__, f.__hash__ is None),
        lambda f, k, o: (o.__hash__, o(1) == o(1)),
        lambda f, k, o: {f(1): 1}[f(1)],
    ],
)
def test_it_is_as_the_standard_librarys(look: Callable[..., Any]) -> None:
    theirs, ours = (look(*three) for three in BOTH)
    assert ours == theirs


@pytest.mark.parametrize(
    "call",
    [
        lambda f, k, o: f(),
        lambda f, k, o: f(1, 2, 3, 4),
        lambda f, k, o: f(1, a=1),
        lambda f, k, o: f(1, d=1),
        lambda f, k, o: k("x"),
        lambda f, k, o: k(),
        lambda f, k, o: setattr(f(1), "a", 2),
        lambda f, k, o: delattr(f(1), "a"),
        lambda f, k, o: setattr(o(1), "new", 2),
        lambda f, k, o: hash(o(1)),
    ],
)
def test_it_refuses_what_the_standard_librarys_refuses(call: Callable[..., Any]) -> None:
    kinds = []
    for three in BOTH:
        with pytest.raises((TypeError, AttributeError)) as found:
            call(*three)
        kinds.append(found.type)
    assert kinds[0] is kinds[1]


def test_what_can_be_changed_is() -> None:
    for *_, kind in BOTH:
        made = kind(1)
        made.a = 2
        assert made == kind(2)


def test_no_command_loads_what_dataclasses_would(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv.pop(1)); from runtime.oci.command import boot\n"
        "os._exit = lambda status: print(status, 'tokenize' in sys.modules, 'runtime.oci.lifecycle' in sys.modules)\n"
        "boot.main(sys.argv[1:])"
    )
    call = [sys.executable, "-I", "-S", "-c", code, str(ROOT), "--root", str(tmp_path), "list", "-q"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-3:] == ["0", "False", "False"]
