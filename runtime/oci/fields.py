"""Frozen dataclasses from and to JSON under the OCI's camelCase names, strict about types."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from runtime.errors import RuntimeFault


class SpecFault(RuntimeFault):
    """A configuration that is not one: the message names the field."""


_hints: dict[type[Any], dict[str, Any]] = {}


def json_name(field: dataclasses.Field[Any]) -> str:
    """The OCI name of a field: `metadata["name"]`, else the name in camelCase."""
    given = field.metadata.get("name")
    if given is not None:
        return str(given)
    head, *rest = field.name.split("_")
    return head + "".join(word.title() for word in rest)


def decode[T](kind: type[T], data: Any, where: str) -> T:
    """Build a dataclass from a JSON object; unknown keys are ignored, wrong types raise SpecFault."""
    if not isinstance(data, dict):
        raise SpecFault(f"{where} is {type(data).__name__}, not an object.")
    if kind not in _hints:
        _hints[kind] = typing.get_type_hints(kind)
    hints = _hints[kind]
    found = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = json_name(field)
        if data.get(name) is not None:
            found[field.name] = _value(hints[field.name], data[name], f"{where}.{name}")
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
        return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
            raise SpecFault(f"{where} is not an object of strings.")
        return dict(data)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return decode(kind, data, where)
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
