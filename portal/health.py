"""`/healthz`: the process answers. `/readyz`: what it needs answers too."""

from __future__ import annotations

from collections.abc import Callable

import redis
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.utils import timezone

from portal.config import config
from portal.fleet.models import Host

HOST_SILENT_S = 45  # three reports missed


def healthz(request: HttpRequest) -> JsonResponse:
    """200 whenever the process can answer at all."""
    return JsonResponse({"status": "ok"})


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        return f"The database does not answer: {error}"
    return ""


def _redis() -> str:
    try:
        with redis.Redis.from_url(config().redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        return f"Redis does not answer: {error}"
    return ""


def _hosts() -> str:
    try:
        hosts = list(Host.objects.all())
    except DatabaseError:
        return "The hosts cannot be read."
    if not hosts:
        return "There is no host. Run `manage.py bootstrap`."
    now = timezone.now()
    silent = [h.name for h in hosts if h.seen_at is None or (now - h.seen_at).total_seconds() > HOST_SILENT_S]
    if silent:
        return f"No report for {HOST_SILENT_S} s from: {', '.join(silent)}."
    mute = [h.name for h in hosts if not h.facts.get("engine_answers")]
    return f"The engine does not answer on: {', '.join(mute)}. Its log says why." if mute else ""


def _ingress() -> str:
    try:
        hosts = list(Host.objects.all())
    except DatabaseError:
        return "The hosts cannot be read."
    behind = [h.name for h in hosts if h.route_reported < h.route_generation]
    return f"The ingress has not got the newest routes on: {', '.join(behind)}." if behind else ""


_CHECKS: dict[str, Callable[[], str]] = {"database": _database, "redis": _redis, "hosts": _hosts, "ingress": _ingress}


def readyz(request: HttpRequest) -> JsonResponse:
    """200 with every part "ok", or 503 with a sentence for each part that is not."""
    parts = {name: check() or "ok" for name, check in _CHECKS.items()}
    ready = all(text == "ok" for text in parts.values())
    response = JsonResponse({"ready": ready, "checks": parts}, status=200 if ready else 503)
    response._has_been_logged = True  # type: ignore[attr-defined]  # not ready is no error: Django would log each 503
    return response
