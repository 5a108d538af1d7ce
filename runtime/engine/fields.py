"""Reading hostile JSON: every value is asked for by type and bound, and refused with a sentence that names its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.engine.errors import Invalid

MAX_CONSOLE = 0xFFFF  # struct winsize has 16 bits for each


class Fields:
    """A JSON object under inspection. `where` is how it is called in refusals. A null counts as absent, as in Docker."""

    def __init__(self, data: object, where: str) -> None:
        if data is None:
            data = {}
        if not isinstance(data, Mapping):
            raise Invalid(f"{where} must be an object, not {_kind(data)}.")
        self.data: Mapping[str, Any] = data
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def _wrong(self, key: str, wanted: str, value: object) -> Invalid:
        return Invalid(f"{self.where}.{key} must be {wanted}, not {_kind(value)}.")

    def text(self, key: str, default: str = "", *, limit: int = 4096) -> str:
        """A string of at most `limit` characters without NUL."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return bounded(value, f"{self.where}.{key}", limit)

    def integer(self, key: str, default: int = 0, *, low: int, high: int) -> int:
        """An integer in [low, high]; a float with no fraction counts, as some clients send."""
        value = self.data.get(key)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "an integer", value)
        if not low <= value <= high:
            raise Invalid(f"{self.where}.{key} is {value}; it must be {low} to {high}.")
        return value

    def console_size(self) -> tuple[int, int]:
        """`ConsoleSize`: a terminal's height and width in characters, zeros when absent."""
        value = self.data.get("ConsoleSize")
        if value is None:
            return 0, 0
        if not isinstance(value, list) or len(value) != 2:
            raise self._wrong("ConsoleSize", "a list of height and width", value)
        sides = Fields(dict(zip(("height", "width"), value, strict=True)), f"{self.where}.ConsoleSize")
        return sides.integer("height", low=0, high=MAX_CONSOLE), sides.integer("width", low=0, high=MAX_CONSOLE)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A boolean."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def texts(self, key: str, *, limit: int = 1024, each: int = 131_072) -> tuple[str, ...] | None:
        """A list of strings, or one string (Docker lets a command be either); None when absent."""
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise self._wrong(key, "a list of strings", value)
        if len(value) > limit:
            raise Invalid(f"{self.where}.{key} has {len(value)} entries; at most {limit} are taken.")
        for item in value:
            if not isinstance(item, str):
                raise self._wrong(key, "a list of strings", item)
            bounded(item, f"{self.where}.{key}", each)
        return tuple(value)

    def mapping(self, key: str, *, limit: int = 1024, each: int = 65_536) -> dict[str, str]:
        """An object of strings."""
        value = self.data.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._wrong(key, "an object of strings", value)
        if len(value) > limit:
            raise Invalid(f"{self.where}.{key} has {len(value)} entries; at most {limit} are taken.")
        for name, item in value.items():
            if not isinstance(item, str):
                raise self._wrong(f"{key}.{name[:64]}", "a string", item)
            bounded(name, f"{self.where}.{key}", 4096)
            bounded(item, f"{self.where}.{key}.{name[:64]}", each)
        return dict(value)

    def keys(self, key: str, *, limit: int = 256) -> tuple[str, ...]:
        """The names of an object used as a set (`ExposedPorts`, `Volumes`)."""
        value = self.data.get(key)
        if value is None:
            return ()
        if not isinstance(value, Mapping):
            raise self._wrong(key, "an object", value)
        if len(value) > limit:
            raise Invalid(f"{self.where}.{key} has {len(value)} entries; at most {limit} are taken.")
        return tuple(bounded(name, f"{self.where}.{key}", 4096) for name in value)

    def object(self, key: str) -> Fields:
        """A nested object; empty when absent."""
        return Fields(self.data.get(key), f"{self.where}.{key}")

    def objects(self, key: str, *, limit: int = 256) -> list[Fields]:
        """A list of objects."""
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(key, "a list of objects", value)
        if len(value) > limit:
            raise Invalid(f"{self.where}.{key} has {len(value)} entries; at most {limit} are taken.")
        return [Fields(item, f"{self.where}.{key}[{n}]") for n, item in enumerate(value)]


def bounded(value: str, where: str, limit: int) -> str:
    """`value`, or Invalid when it is longer than `limit` characters or holds a NUL."""
    if len(value) > limit:
        raise Invalid(f"{where} has {len(value)} characters; at most {limit} are taken.")
    if "\0" in value:
        raise Invalid(f"{where} holds a NUL character.")
    return value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
