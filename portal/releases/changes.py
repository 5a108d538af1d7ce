"""How two releases differ, in the words of the roll-back dialog. Values of variables never stand in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from portal.hosting.environment import unseal
from portal.releases.models import Release


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the difference; `css` is add, del or same."""

    css: str
    text: str


def _image_lines(old: Release, new: Release) -> list[Change]:
    if old.image.digest == new.image.digest:
        return [Change("same", f"image {new.image.digest[:19]}, the same")]
    return [Change("del", f"image {_image(old)}"), Change("add", f"image {_image(new)}")]


def _image(release: Release) -> str:
    name = release.image.reference or release.image.repository
    return f"{name} {release.image.digest[:19]}"


def environment_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """Variables that come, go or change, by name."""
    lines = [Change("del", f"{key}, removed") for key in sorted(old.keys() - new.keys())]
    lines += [Change("add", f"{key}, added") for key in sorted(new.keys() - old.keys())]
    lines += [Change("add", f"{key}, another value") for key in sorted(old.keys() & new.keys()) if old[key] != new[key]]
    return lines or [
        Change("same", f"environment, the same {len(new)} variables" if new else "environment, empty in both")
    ]


def _process_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name) or {}, new.get(name) or {}
        for key in ("command", "port", "health"):
            if before.get(key) != after.get(key):
                lines += [
                    Change("del", f"{name} {key} {_said(before.get(key))}"),
                    Change("add", f"{name} {key} {_said(after.get(key))}"),
                ]
    return lines


def _said(value: Any) -> str:
    if value is None:
        return "as the image says"
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={part}" for key, part in value.items() if part not in ("", None))
    return str(value)


def changes(old: Release | None, new: Release) -> list[Change]:
    """What moving from `old` (None: nothing serves) to `new` changes."""
    if old is None:
        return [Change("add", f"image {_image(new)}")]
    lines = _image_lines(old, new) + _process_lines(old.processes, new.processes)
    return lines + environment_changes(unseal(old.environment_encrypted), unseal(new.environment_encrypted))
