"""Frozen dataclasses from and to JSON under the OCI's camelCase names, strict about types."""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, Self

from runtime.dataclass import parts
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


_LEAST, _GREATEST = -(2**63), 2**64 - 1  # int64 and uint64 are the widest numbers of the specification

type Decoder = Callable[[Any], Any]


class _Wrong(Exception):
    """A value of the wrong kind, `path` below where it was looked for."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words
        self.path = ""

    def below(self, part: str) -> Self:
        self.path = part + self.path
        return self


def loads(data: bytes, name: str) -> Any:
    """The value of a JSON text; raises SpecFault with the file's `name`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SpecFault(f"{name} is no JSON that can be read: {error}.") from error


def decode[T](kind: type[T], data: Any, where: str) -> T:
    """Build a dataclass from a JSON object; unknown keys are ignored, wrong types raise SpecFault."""
    try:
        found: T = _decoder(typing.cast(Any, kind))(data)
    except _Wrong as error:
        raise SpecFault(f"{where}{error.path} {error.words}.") from None
    return found


@cache
def _decoder(kind: Any) -> Decoder:
    """What makes a value of a type; looked up once, since each start reads a whole configuration three times."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _decoder(next(a for a in args if a is not type(None)))
    if origin is tuple:
        return _strings if args[0] is str else _tuple_of(_decoder(args[0]))
    if origin is dict:
        return _texts if args[1] is str else _table_of(_decoder(args[1]))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object_of(kind)
    return _scalar_of(kind)


def _object_of(kind: type[Any]) -> Decoder:
    hints = typing.get_type_hints(kind)
    plan = [
        (json_name(field), _decoder(hints[field.name]), part.put, part.default)
        for field, part in zip(dataclasses.fields(kind), parts(kind), strict=True)
    ]
    new = object.__new__

    def make(data: Any) -> Any:
        if not isinstance(data, dict):
            raise _Wrong(f"is {type(data).__name__}, not an object")
        made = new(kind)
        get = data.get
        for key, decoder, put, default in plan:
            item = get(key)
            if item is not None:
                try:
                    put(made, decoder(item))
                except _Wrong as error:
                    raise error.below(f".{key}") from None
            elif default:
                put(made, default())
            else:
                raise _Wrong(f"lacks a field: {key}")
        return made

    return make


def _tuple_of(decoder: Decoder) -> Decoder:
    def make(data: Any) -> Any:
        if not isinstance(data, list):
            raise _Wrong(f"is {type(data).__name__}, not a list")
        found = []
        for item in data:
            try:
                found.append(decoder(item))
            except _Wrong as error:
                raise error.below(f"[{len(found)}]") from None
        return tuple(found)

    return make


def _plain_text(text: str) -> bool:
    """Whether a file's name or an argument can be this: no NUL, and no half of a pair of code units, which UTF-8 cannot hold.

    Bytes that are no UTF-8 (PEP 383) pass: names of files may be such."""
    if text.isascii():
        return "\0" not in text
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _strings(data: Any) -> tuple[str, ...]:
    """The most of a configuration: lists of names, with nothing to say about any."""
    if isinstance(data, list) and all([type(item) is str for item in data]) and _plain_text("".join(data)):  # noqa: C419
        return tuple(data)
    found: tuple[str, ...] = _tuple_of(_decoder(str))(data)
    return found


def _texts(data: Any) -> dict[str, str]:
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise _Wrong("is not an object of strings")
    if not _plain_text("".join((*data, *data.values()))):
        raise _Wrong("has a NUL byte, or half a character")
    return dict(data)


def _table_of(decoder: Decoder) -> Decoder:
    def make(data: Any) -> Any:
        if not isinstance(data, dict):
            raise _Wrong(f"is {type(data).__name__}, not an object")
        if not _plain_text("".join(data)):
            raise _Wrong("has a name with a NUL byte, or half a character")
        found = {}
        for key, item in data.items():
            try:
                found[key] = decoder(item)
            except _Wrong as error:
                raise error.below(f".{key}") from None
        return found

    return make


def _scalar_of(kind: type[Any]) -> Decoder:
    def make(data: Any) -> Any:
        if type(data) is not kind:
            raise _Wrong(f"is {type(data).__name__}, not {kind.__name__}")
        if kind is str and not _plain_text(data):
            raise _Wrong("has a NUL byte, or half a character")
        if kind is int and not _LEAST <= data <= _GREATEST:
            raise _Wrong(f"is {str(data)[:40]}, which 64 bits cannot hold")
        return data

    return make


def encode(value: Any) -> dict[str, Any]:
    """A dataclass as a JSON object. None is left out, and empty tuples, objects and texts where they are the default."""
    return {
        key: _plain(item)
        for name, key, default in _names(typing.cast(Any, type(value)))
        if (item := getattr(value, name)) is not None and (item not in _EMPTY or item != default)
    }


_EMPTY: tuple[Any, ...] = ((), {}, "")


@cache
def _names(kind: type[Any]) -> tuple[tuple[str, str, Any], ...]:
    """Name, OCI name and default of each field."""
    return tuple(
        (field.name, json_name(field), part.default() if part.default else None)
        for field, part in zip(dataclasses.fields(kind), parts(kind), strict=True)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str | int):
        return value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return encode(value) if dataclasses.is_dataclass(value) else value
