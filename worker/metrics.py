"""Counters of all instances in one pass every 2 s, from the engine to Redis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from worker.protocol import LABEL_APP, LimitHit, MetricSample

FIELDS = tuple(f.name for f in dataclasses.fields(MetricSample))
LIMITS = frozenset({"memory", "swap", "cpu", "pids", "disk", "disk_io", "network", "log"})


def samples(stats: Mapping[str, Any]) -> dict[str, MetricSample]:
    """By instance, from the answer of `GET /moorage/stats`; containers that are not an app's are left out."""
    return {
        row["name"]: MetricSample(**{name: row[name] for name in FIELDS})
        for row in stats["containers"]
        if LABEL_APP in row["labels"]
    }


def limit_hit(event: Mapping[str, Any]) -> LimitHit | None:
    """A limit that was hit, from the engine's event of Type `moorage`, Action `limit`; None for one that is not an app's."""
    attributes = event["Actor"]["Attributes"]
    if LABEL_APP not in attributes or attributes.get("limit") not in LIMITS:
        return None
    return LimitHit(
        instance=attributes["name"],
        limit=attributes["limit"],
        level=attributes.get("level", "instance"),
        used=float(attributes.get("used", 0)),
        allowed=float(attributes.get("allowed", 0)),
        when=event["timeNano"] / 1e9,
        since=float(attributes.get("since", 0)),
        process=attributes.get("process", ""),
        sentence=attributes.get("sentence", ""),
    )
