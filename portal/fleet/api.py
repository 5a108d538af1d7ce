"""`/hosts`: operators."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from portal.accounts.access import require_operator
from portal.api_auth import acting
from portal.fleet.access import get_host
from portal.fleet.models import Host

router = Router(tags=["hosts"])


class HostOut(Schema):
    """A host with what it last said."""

    host: str
    state: str
    seen_at: dt.datetime | None
    facts: dict[str, Any]
    route_generation: int
    route_reported: int
    labels: dict[str, Any]


def host_body(row: Host) -> dict[str, Any]:
    """A host row as HostOut."""
    names = ("state", "seen_at", "facts", "route_generation", "route_reported", "labels")
    return {"host": row.name} | {name: getattr(row, name) for name in names}


@router.get("/hosts", response=list[HostOut], operation_id="list_hosts")
def hosts(request: HttpRequest) -> list[dict[str, Any]]:
    """Every host."""
    require_operator(acting(request))
    return [host_body(row) for row in Host.objects.order_by("name")]


@router.get("/hosts/{host}", response=HostOut, operation_id="get_host")
def host_detail(request: HttpRequest, host: str) -> dict[str, Any]:
    """One host."""
    return host_body(get_host(acting(request), host))
