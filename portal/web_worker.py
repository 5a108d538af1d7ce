"""gunicorn's worker class: uvicorn with our options."""

from __future__ import annotations

from typing import Any

from uvicorn_worker import UvicornWorker


class PortalWorker(UvicornWorker):  # type: ignore[misc]  # uvicorn-worker ships no types
    """Compression of websocket messages triples their CPU; the peer is always HAProxy, so its headers are believed."""

    CONFIG_KWARGS: dict[str, Any] = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "websockets-sansio",
        "ws_per_message_deflate": False,
        "ws_max_size": 1 << 20,
        "lifespan": "off",
        "proxy_headers": True,
        "forwarded_allow_ips": "*",
        "server_header": False,
    }
