"""Whatever a specification says it is read back the same, and whatever is not one is refused in words that name the place."""

from __future__ import annotations

import dataclasses
import json
import random
import types
import typing
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.oci.fields import SpecFault, json_name
from runtime.oci.spec import Spec
from tests.fuzz import specification

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)
NUMBERS = st.integers(-(2**63), 2**64 - 1)
ROUNDS = 4000


@cache
def values(kind: Any) -> st.SearchStrategy[Any]:
    """Every value a type of the specification can have."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.none() | values(next(a for a in args if a is not type(None)))
    if origin is tuple:
        return st.lists(values(args[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXT, values(args[1]), max_size=2)
    if dataclasses.is_dataclass(kind):
        return objects(kind)
    return {str: TEXT, int: NUMBERS, bool: st.booleans()}[kind]


def objects(kind: Any) -> st.SearchStrategy[Any]:
    """Every instance of a dataclass, with some of its fields left to their defaults."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: values(hints[field.name]) for field in dataclasses.fields(kind)}
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return st.fixed_dictionaries(
        {name: fields[name] for name in needed}, optional={n: v for n, v in fields.items() if n not in needed}
    ).map(lambda given: kind(**given))


@cache
def names(kind: Any = Spec) -> frozenset[str]:
    """All names of the specification's fields."""
    found = set()
    for field, hint in zip(dataclasses.fields(kind), typing.get_type_hints(kind).values(), strict=True):
        found.add(json_name(field))
        for inner in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(inner):
                found |= names(inner)
    return frozenset(found)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(names())) | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=20,
)
NEARLY = st.fixed_dictionaries(
    {"process": st.fixed_dictionaries({"args": st.lists(st.text(max_size=4), max_size=2)})},
    optional=dict.fromkeys(("linux", "hooks", "mounts", "root", "annotations", "hostname"), JSON),
)


@settings(max_examples=300, deadline=None)
@given(objects(Spec))
def test_every_specification_is_read_back_as_it_was_written(spec: Spec) -> None:
    assert Spec.decode(json.dumps(spec.to_json()).encode()) == spec


@settings(max_examples=500, deadline=None)
@given(JSON | NEARLY)
def test_any_json_is_read_or_refused(value: Any) -> None:
    with suppress(SpecFault):
        spec = Spec.parse(value)
        assert Spec.parse(spec.to_json()) == spec


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(SpecFault):
        Spec.decode(data)


@pytest.mark.parametrize("data", [b"[" * 200_000, b"9" * 5000, b"\xff", b"", b'{"process":'])
def test_what_is_no_json_is_refused_by_its_name(data: bytes) -> None:
    with pytest.raises(SpecFault, match=r"config\.json is no JSON"):
        Spec.decode(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hostname": "\ud800"}, "config.hostname has a NUL byte, or half a character"),
        ({"annotations": {"a\0": "b"}}, "config.annotations has a NUL byte"),
        ({"linux": {"timeOffsets": {"\0": {}}}}, "config.linux.timeOffsets has a name with a NUL"),
        ({"linux": {"sysctl": {"net.x": "1\0"}}}, "config.linux.sysctl has a NUL"),
        ({"linux": {"resources": {"pids": {"limit": 10**30}}}}, "limit is 1000.*, which 64 bits cannot hold"),
    ],
)
def test_texts_and_numbers_that_no_system_call_takes_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecFault, match=words):
        Spec.parse({"process": {"args": ["a"]}} | change)


def test_bytes_that_are_no_utf_8_are_kept_as_file_names_have_them() -> None:
    assert Spec.parse({"process": {"args": ["\udcff"]}}).process.args == ("\udcff",)


def test_damaged_configurations_are_read_or_refused_by_all_that_read_them() -> None:
    rng, good = random.Random(specification.SEED), 0
    assert all(specification.read(json.dumps(value).encode()) for value in specification.CORPUS)
    for _ in range(ROUNDS):
        good += specification.one(rng)[1]
    assert ROUNDS // 10 < good < ROUNDS - ROUNDS // 10
