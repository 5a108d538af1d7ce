"""Images as Docker's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.engine.facts import epoch
from runtime.engine.filters import Filters
from runtime.images.records import ImageRecord

FILTERS = frozenset({"reference", "dangling", "label", "before", "since", "until"})


def row(image: ImageRecord, containers: int) -> dict[str, Any]:
    """One row of GET /images/json."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": epoch(image.created),
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "SharedSize": -1,
        "Labels": dict(image.config.labels) or None,
        "Containers": containers,
    }


def matches(image: ImageRecord, filters: Filters) -> bool:
    """Whether `images --filter` shows it. A reference matches a whole name or its repository."""
    wanted = filters.get("reference")
    names = [*image.repo_tags, *(t.rpartition(":")[0] for t in image.repo_tags)]
    if wanted and not any(_like(w, name) for w in wanted for name in names):
        return False
    dangling = filters.get("dangling")
    if dangling and (dangling[0].lower() in ("true", "1")) != (not image.repo_tags):
        return False
    return filters.labels(dict(image.config.labels))


def _like(wanted: str, name: str) -> bool:
    """`*` alone is a pattern here, at either end: a shell pattern of a stranger may take exponential time."""
    bare = wanted.strip("*")
    if "*" in bare:
        return False
    starts, ends = wanted.endswith("*"), wanted.startswith("*")
    if starts and ends:
        return bare in name
    if starts:
        return name.startswith(bare)
    return name.endswith(bare) if ends else name == bare


def details(image: ImageRecord, driver: str) -> dict[str, Any]:
    """GET /images/{name}/json."""
    c = image.config
    return {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": "",
        "Comment": str(c.history[-1].get("comment") or "") if c.history else "",
        "Created": image.created or None,
        "DockerVersion": "",
        "Author": c.author,
        "Config": {
            "User": c.user,
            "ExposedPorts": {p: {} for p in c.exposed_ports} or None,
            "Env": list(c.env),
            "Entrypoint": list(c.entrypoint) if c.entrypoint is not None else None,
            "Cmd": list(c.cmd) if c.cmd is not None else None,
            "Volumes": {v: {} for v in c.volumes} or None,
            "WorkingDir": c.working_dir,
            "Labels": dict(c.labels) or None,
            "StopSignal": c.stop_signal,
        },
        "Architecture": c.architecture,
        "Variant": c.variant,
        "Os": c.os,
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "GraphDriver": {"Data": None, "Name": driver},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


def history(image: ImageRecord, layer_sizes: Sequence[int]) -> list[dict[str, Any]]:
    """GET /images/{name}/history, newest first; `layer_sizes` in bytes, lowest first. Layers no step names get one of their own."""
    steps = [dict(step) for step in image.config.history]
    layers = sum(not step.get("empty_layer") for step in steps)
    steps[:0] = [{} for _ in range(len(layer_sizes) - layers)]
    sizes = iter(layer_sizes)
    found = []
    for step in steps:
        found.append(
            {
                "Id": "<missing>",
                "Created": epoch(str(step.get("created") or "")),
                "CreatedBy": str(step.get("created_by") or ""),
                "Tags": None,
                "Size": 0 if step.get("empty_layer") else next(sizes, 0),
                "Comment": str(step.get("comment") or ""),
            }
        )
    found.reverse()
    if found:
        found[0] |= {"Id": image.id, "Tags": list(image.repo_tags) or None}
    return found
