"""Frozen dataclasses from and to JSON under the OCI's camelCase names, strict about types."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any

from runtime.errors import RuntimeFault


class SpecFault(RuntimeFault):
    """A configuration that is not one: the message names the field."""


def json_name(field: dataclasses.Field[Any]) -> str:
    """The OCI name of a field: `metadata["name"]`, else the name in camelCase."""
    given = field.metadata.get("name")
    if given is not None:
        return str(given)
    head, *rest = field.name.split("_")
    return head + "".join(word.title() for word in rest)


@cache
def _plan(kind: type[Any]) -> tuple[tuple[str, str, Any], ...]:
    """Name, JSON name and type of each field: looked up once, since each maker reads a whole configuration."""
    hints = typing.get_type_hints(kind)
    return tuple((field.name, json_name(field), hints[field.name]) for field in dataclasses.fields(kind))


def decode[T](kind: type[T], data: Any, where: str) -> T:
    """Build a dataclass from a JSON object; unknown keys are ignored, wrong types raise SpecFault."""
    if not isinstance(data, dict):
        raise SpecFault(f"{where} is {type(data).__name__}, not an object.")
    found = {
        name: _value(hint, data[key], f"{where}.{key}")
        for name, key, hint in _plan(typing.cast(Any, kind))
        if data.get(key) is not None
    }
    try:
        return kind(**found)
    except TypeError as error:
        raise SpecFault(f"{where} lacks a field: {error}.") from None


def _value(kind: Any, data: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _value(next(a for a in args if a is not type(None)), data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise SpecFault(f"{where} is {type(data).__name__}, not a list.")
        if args[0] is str and all(type(item) is str and "\0" not in item for item in data):
            return tuple(data)  # the most of a configuration: lists of names, with nothing to say about any
        return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
            raise SpecFault(f"{where} is not an object of strings.")
        return dict(data)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return decode(kind, data, where)
    return _scalar(kind, data, where)


def _scalar(kind: type[Any], data: Any, where: str) -> Any:
    if type(data) is not kind:
        raise SpecFault(f"{where} is {type(data).__name__}, not {kind.__name__}.")
    if kind is str and "\0" in data:
        raise SpecFault(f"{where} has a NUL byte.")
    return data


def encode(value: Any) -> dict[str, Any]:
    """A dataclass as a JSON object; None and empty tuples, objects and texts are left out (they decode to the same)."""
    return {
        json_name(field): _plain(item)
        for field in dataclasses.fields(value)
        if (item := getattr(value, field.name)) is not None and item != () and item != {} and item != ""
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return encode(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
