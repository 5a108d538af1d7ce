"""Log lines as they lie in the streams: ids, batches, cursors. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgpack  # type: ignore[import-untyped]

type LineId = tuple[int, int]

ZERO: LineId = (0, 0)
MAX_CURSOR_INSTANCES = 200
_ID = re.compile(r"^(\d{1,15})(?:-(\d{1,20}))?$")


class Line(NamedTuple):
    """One record of a log: id `<ms>-<seq>`, instance, tag (docs/interfaces.md) and text."""

    id: str
    instance: str
    tag: str
    text: str

    @property
    def order(self) -> LineId:
        """What lines sort by, across instances too."""
        return parse_id(self.id)


def parse_id(text: str) -> LineId:
    """`<ms>-<seq>` or `<ms>` as numbers; raises ValueError."""
    match = _ID.match(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is not the id of a log line; one looks like 1732400000000-17")
    return int(match[1]), int(match[2] or 0)


def at_s(line_id: str) -> float:
    """Seconds since 1970 of a line, to the nanosecond its id holds."""
    ms, seq = parse_id(line_id)
    return ms / 1000 + (seq >> 20) / 1e9


def unpack_batch(instance: str, data: bytes) -> list[Line]:
    """The lines of one stream entry (`msgpack` list of `[id, tag, text]`)."""
    return [
        Line(line_id, instance, tag, text) for line_id, tag, text in msgpack.unpackb(data, unicode_errors="replace")
    ]


@dataclass(slots=True)
class Cursor:
    """How far a viewer has read: the last id of each instance, and `floor` for those it has seen nothing of.

    One id for all would lose the line that one host sends later than another host's younger line.
    """

    floor: LineId = ZERO
    seen: dict[str, LineId] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `after=`: `<id>` for all instances, `<instance>@<id>` for one, parted by commas. Raises ValueError."""
        cursor = cls()
        parts = [part for part in text.split(",") if part]
        if len(parts) > MAX_CURSOR_INSTANCES:
            raise ValueError(f"a cursor names at most {MAX_CURSOR_INSTANCES} instances, not {len(parts)}")
        for part in parts:
            instance, _, line_id = part.rpartition("@")
            if instance:
                cursor.seen[instance] = parse_id(line_id)
            else:
                cursor.floor = parse_id(line_id)
        return cursor

    def of(self, instance: str) -> LineId:
        """The id after which this instance's lines are new."""
        return self.seen.get(instance, self.floor)

    def take(self, lines: Iterable[Line]) -> list[Line]:
        """Those lines that are new, marked as read. Lines of one instance come in the order of their ids."""
        fresh = []
        for line in lines:
            order = line.order
            if order > self.of(line.instance):
                self.seen[line.instance] = order
                fresh.append(line)
        return fresh

    def __str__(self) -> str:
        floor = f"{self.floor[0]}-{self.floor[1]}"
        return ",".join([floor, *(f"{name}@{ms}-{seq}" for name, (ms, seq) in self.seen.items())])


def merged(batches: Mapping[str, Iterable[Line]]) -> list[Line]:
    """Lines of several instances in the order of their ids."""
    return sorted((line for lines in batches.values() for line in lines), key=lambda line: (line.order, line.instance))
