"""Addresses of the websockets."""

from __future__ import annotations

from typing import Any

from django.urls import re_path

from portal.telemetry.sockets import EventsSocket, LogsSocket, MetricsSocket, NoSocket

_APP = r"^ws/apps/(?P<app>[a-z0-9-]{1,40})"

websocket_urlpatterns: list[Any] = [
    re_path(rf"{_APP}/logs$", LogsSocket.as_asgi()),
    re_path(rf"{_APP}/metrics$", MetricsSocket.as_asgi()),
    re_path(rf"{_APP}/events$", EventsSocket.as_asgi()),
    re_path(r"", NoSocket.as_asgi()),
]
