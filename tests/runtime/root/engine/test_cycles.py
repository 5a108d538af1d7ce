"""Two hundred containers come and go, four at a time: nothing stays, not in the kernel and not in the engine's memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.runtime.root.engine.conftest import Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

AT_A_TIME = 4
MB = 1 << 20


def cycle(engine: Engine, number: int) -> None:
    """Create, start and remove one container."""
    body = {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": {"Memory": 64 * MB, "PidsLimit": 32}}
    code, made = engine.call("POST", f"/containers/create?name=cycle{number}", body)
    assert code == 201, made
    code, said = engine.call("POST", f"/containers/{made['Id']}/start")
    assert code == 204, said
    code, said = engine.call("DELETE", f"/containers/{made['Id']}?force=1")
    assert code == 204, said


def resident_bytes(pid: int) -> int:
    """RSS of a process (proc_pid_statm(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_two_hundred_cycles_leave_nothing_and_the_engine_does_not_grow(engine: Engine) -> None:
    assert engine.process
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda n: cycle(engine, n), range(50)))
        after_50 = resident_bytes(engine.process.pid)
        list(pool.map(lambda n: cycle(engine, n), range(50, 200)))
    after_200 = resident_bytes(engine.process.pid)
    assert engine.call("GET", "/containers/json?all=1")[1] == []
    assert engine.leftovers() == {}
    assert after_200 <= after_50 + 2 * MB, f"{after_50 / MB:.1f} MB after 50 cycles, {after_200 / MB:.1f} MB after 200"
