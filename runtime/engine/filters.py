"""Docker's `filters` query: `{"label": ["a=b"]}` or the older `{"label": {"a=b": true}}`, and what matches them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from runtime.engine.errors import Invalid

MAX_TEXT = 16_384


class Filters:
    """Values asked for by name. A name not given matches everything; several values of a name are alternatives."""

    def __init__(self, values: Mapping[str, tuple[str, ...]]) -> None:
        self._values = values

    @classmethod
    def parse(cls, text: str, known: frozenset[str]) -> Filters:
        """Read the query parameter; raises Invalid for anything but an object of lists or sets, or for an unknown name."""
        if not text:
            return cls({})
        if len(text) > MAX_TEXT:
            raise Invalid(f"filters has {len(text)} characters; at most {MAX_TEXT} are taken.")
        try:
            data = json.loads(text)
        except ValueError as error:
            raise Invalid(f"filters is not JSON: {error}.") from error
        if not isinstance(data, dict):
            raise Invalid("filters must be an object of lists.")
        found: dict[str, tuple[str, ...]] = {}
        for name, values in data.items():
            if name not in known:
                raise Invalid(f"invalid filter '{name[:64]}'.", f"Known here: {', '.join(sorted(known))}.")
            items = [k for k, on in values.items() if on] if isinstance(values, dict) else values
            if not isinstance(items, list) or not all(isinstance(i, str) for i in items):
                raise Invalid(f"the filter '{name}' must be a list of strings.")
            found[name] = tuple(items)
        return cls(found)

    def __bool__(self) -> bool:
        return any(self._values.values())

    def get(self, name: str) -> tuple[str, ...]:
        """The values asked for; empty when the name was not given."""
        return self._values.get(name, ())

    def exact(self, name: str, *candidates: str) -> bool:
        """Whether one candidate equals a wanted value."""
        wanted = self.get(name)
        return not wanted or any(c in wanted for c in candidates)

    def prefix(self, name: str, candidate: str) -> bool:
        """Whether the candidate begins with a wanted value, as ids are matched."""
        wanted = self.get(name)
        return not wanted or candidate.startswith(wanted)

    def pattern(self, name: str, candidate: str) -> bool:
        """Whether a wanted value, as a regular expression or literally, is found in the candidate (Docker's `name`)."""
        wanted = self.get(name)
        return not wanted or any(_found(w, candidate) for w in wanted)

    def labels(self, labels: Mapping[str, str], name: str = "label") -> bool:
        """Whether every wanted `key` or `key=value` is there: labels are a conjunction in Docker."""
        for wanted in self.get(name):
            key, sep, value = wanted.partition("=")
            if key not in labels or (sep and labels[key] != value):
                return False
        return True


def _found(wanted: str, candidate: str) -> bool:
    if wanted in candidate or wanted == "/" + candidate:
        return True
    # A tenant's pattern with nested repeats could run for minutes: only anchors and literal text are read as a pattern.
    bare = wanted.removeprefix("^").removeprefix("/").removesuffix("$")
    if re.search(r"[*+?{(\[|\\]", bare):
        return False
    anchored_start, anchored_end = wanted.startswith("^"), wanted.endswith("$")
    if anchored_start and anchored_end:
        return candidate == bare
    if anchored_start:
        return candidate.startswith(bare)
    return candidate.endswith(bare) if anchored_end else False
