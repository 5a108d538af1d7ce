"""Three hundred containers come and go, eight at a time: nothing stays, not in the kernel and not in the engine's memory.

`python -m bench cycles` has a thousand.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest

from tests.runtime.root.engine.conftest import Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

AT_A_TIME = 8
MB = 1 << 20


def cycle(engine: Engine, number: int) -> float:
    """Create, start, kill and remove one container; seconds."""
    began = time.perf_counter()
    body = {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": {"Memory": 64 * MB, "PidsLimit": 32}}
    code, made = engine.call("POST", f"/containers/create?name=cycle{number}", body)
    assert code == 201, made
    code, said = engine.call("POST", f"/containers/{made['Id']}/start")
    assert code == 204, said
    code, said = engine.call("POST", f"/containers/{made['Id']}/kill")
    assert code == 204, said
    code, said = engine.call("POST", f"/containers/{made['Id']}/wait")
    assert (code, said["StatusCode"]) == (200, 137), said
    code, said = engine.call("DELETE", f"/containers/{made['Id']}")
    assert code == 204, said
    return time.perf_counter() - began


def resident_bytes(pid: int) -> int:
    """RSS of a process (proc_pid_statm(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_three_hundred_cycles_leave_nothing_and_neither_slow_down_nor_grow(engine: Engine) -> None:
    assert engine.process
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        first = list(pool.map(lambda n: cycle(engine, n), range(100)))
        early = resident_bytes(engine.process.pid)
        last = list(pool.map(lambda n: cycle(engine, n), range(100, 300)))[-100:]
    late = resident_bytes(engine.process.pid)
    assert engine.call("GET", "/containers/json?all=1")[1] == []
    assert engine.leftovers() == {}
    assert late <= early + 2 * MB, f"{early / MB:.1f} MB after 100 cycles, {late / MB:.1f} MB after 300"
    before, after = median(first), median(last)
    assert after < 1.5 * before, (
        f"{1000 * before:.0f} ms a cycle in the first hundred, {1000 * after:.0f} ms in the last"
    )
