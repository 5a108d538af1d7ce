"""Limit events: what the hosts say was hit, kept once, shown at once."""

from __future__ import annotations

from collections.abc import Sequence

from portal.fleet.models import Host
from worker.protocol import LimitHit


def record_limit_hits(host: Host, hits: Sequence[LimitHit]) -> int:
    """Keep the hits of a host's instances and hint the pages; how many rows are new.

    A hit of the same instance, limit and level within 30 s updates the row of before. Hits for an instance that is
    not on this host are dropped: a host speaks for itself only.
    """
    raise NotImplementedError
