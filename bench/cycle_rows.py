"""Rows of a thousand containers that come and go, eight at a time: no slowdown, and nothing that stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.daemons import IMAGE, moorage
from bench.engine_start import UnixConnection, call
from bench.rows import Row, p50

CYCLES, AT_A_TIME, WARM, HUNDRED = 1000, 8, 50, 100
KERNEL_S = 3.0
BODY = {"Image": IMAGE, "Entrypoint": ["sleep", "60"], "HostConfig": {"Memory": 64 << 20, "PidsLimit": 32}}


def cycle(connection: UnixConnection) -> float:
    """Create, start, kill and remove one container; seconds."""
    began = time.perf_counter()
    path = f"/containers/{call(connection, 'POST', '/containers/create', BODY)['Id']}"
    call(connection, "POST", f"{path}/start")
    call(connection, "POST", f"{path}/kill")
    call(connection, "POST", f"{path}/wait")
    call(connection, "DELETE", path)
    return time.perf_counter() - began


def cycler(socket: Path) -> Callable[[int], float]:
    """`cycle` for a pool of threads, each with a connection of its own."""
    local = threading.local()

    def run(_number: int) -> float:
        if not hasattr(local, "connection"):
            local.connection = UnixConnection(socket)
        return cycle(local.connection)

    return run


def leftovers(connection: UnixConnection) -> list[str]:
    """What is left after the kernel had time to take along the links of namespaces that ended: a worker of its own does so."""
    end = time.monotonic() + KERNEL_S
    while True:
        left = call(connection, "GET", "/moorage/leftovers")
        names = [f"{kind}: {name}" for kind, found in left.items() for name in found]
        if not names or time.monotonic() > end:
            return names
        time.sleep(0.1)


def rows() -> Iterator[Row]:
    """Medians of the first and the last hundred, how many a second, and what is left."""
    with moorage() as ours, ThreadPoolExecutor(AT_A_TIME) as pool:
        run = cycler(ours.socket)
        list(pool.map(run, range(WARM)))
        began = time.perf_counter()
        seconds = list(pool.map(run, range(CYCLES)))
        took = time.perf_counter() - began
        names = leftovers(UnixConnection(ours.socket))
    first, last = (1000 * p50(part) for part in (seconds[:HUNDRED], seconds[-HUNDRED:]))
    what = f"{CYCLES} cycles create, start, kill, remove, {AT_A_TIME} at a time"
    yield Row(
        name=f"{what}: the last hundred, peer the first", value=last, peer=first, unit="ms", budget=1.1, ratio=True
    )
    yield Row(name=f"{what}: a second", value=CYCLES / took, unit="/s", budget=20, at_least=True)
    yield Row(name=f"{what}: left over", value=len(names), unit="", budget=0, note=", ".join(names[:3]))
