"""gunicorn's configuration: `gunicorn -c portal/gunicorn.py portal.asgi:application`."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import grp
import os
import signal
from typing import Any

from portal.config import config as _config

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_socket = _config().run / "web.sock"
bind = f"unix:{_socket}"
umask = 0o007
workers = int(os.environ.get("MOORAGE_WEB_WORKERS", "2"))
worker_class = "portal.web_worker.PortalWorker"
preload_app = True
control_socket_disable = True
timeout = 60
graceful_timeout = 10
accesslog = None
errorlog = "-"


def when_ready(server: Any) -> None:
    """Before the first fork: the socket is for HAProxy's account too; what is loaded stays shared between the workers."""
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(_socket, -1, grp.getgrnam("haproxy").gr_gid)
    gc.collect()
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:
    """Workers outlive a killed master and would keep old websockets: let the kernel end them."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(0)
