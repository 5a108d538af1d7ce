"""Disk rates as a program inside measures them, also where the store lies on no block device."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.root.engine.conftest import SCRATCH, Engine, disk_rates, eventually, running

pytestmark = pytest.mark.host_only("the guest's kernel maps no ids on a tmpfs")

MB = 1 << 20
RATES = {"DiskReadBps": 4 * MB, "DiskWriteBps": 3 * MB, "DiskReadIOps": 150, "DiskWriteIOps": 100}
BYTES, OPERATIONS = "bs=64k count=192", "bs=4k count=400"


@pytest.fixture(scope="module")
def engine(archive: bytes) -> Iterator[Engine]:
    """An engine whose state lies on a tmpfs: not in the guest, whose kernel maps no ids on one (6.3 and later do)."""
    state = Path(tempfile.mkdtemp(prefix="moorage-test-", dir=SCRATCH))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m,mode=0755", "moorage-test", state], check=True)
    try:
        with running(archive, state) as engine:
            yield engine
    finally:
        subprocess.run(["umount", state], check=True)
        state.rmdir()


def start(engine: Engine, name: str, command: str, **host: Any) -> list[str]:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": host}
    code, answer = engine.call("POST", f"/containers/create?name={name}", body)
    assert code == 201, answer
    assert engine.call("POST", f"/containers/{name}/start")[0] == 204
    warnings: list[str] = answer["Warnings"]
    return warnings


def test_each_rate_holds_on_the_loop_device_as_measured_inside(engine: Engine) -> None:
    prepare = "dd if=/dev/zero of=/f bs=1M count=12; sync;"
    for key, before, work in (
        ("DiskReadBps", prepare, f"dd if=/f of=/dev/null iflag=direct {BYTES}"),
        ("DiskWriteBps", "", f"dd if=/dev/zero of=/f oflag=direct {BYTES}"),
        ("DiskReadIOps", prepare, f"dd if=/f of=/dev/null iflag=direct {OPERATIONS}"),
        ("DiskWriteIOps", "", f"dd if=/dev/zero of=/f oflag=direct {OPERATIONS}"),
    ):
        timed = f"{before} read a b < /proc/uptime; {work} || exit; read c d < /proc/uptime; echo took $a $c"
        assert start(engine, key, timed, StorageOpt={"size": "50m"}, **{key: RATES[key]}) == []
    for key, rate in RATES.items():
        eventually(lambda key=key: engine.status(key) == "exited", f"the end of {key}", 60)
        began, ended = engine.docker("logs", key).rpartition("took ")[2].split()
        amount = 400 if key.endswith("IOps") else 12 * MB
        assert amount / (float(ended) - float(began)) == pytest.approx(rate, rel=0.15), key


def test_the_kernel_has_the_rates_of_the_loop_device_and_only_of_it(engine: Engine) -> None:
    start(engine, "rated", "sleep 60", StorageOpt={"size": "50m"}, **RATES)
    (device,) = disk_rates(engine, "rated")
    assert device.startswith("7:") and disk_rates(engine, "rated") == {device: RATES}
    assert engine.call("POST", "/containers/rated/update", {"DiskReadIOps": 77})[0] == 200
    assert disk_rates(engine, "rated") == {device: RATES | {"DiskReadIOps": 77}}
    assert engine.inspect("rated")["State"]["Moorage"]["notes"] == []


def test_rates_that_hold_nowhere_are_said(engine: Engine) -> None:
    (warning,) = start(engine, "free", "sleep 60", DiskWriteBps=MB)
    assert "no block device" in warning and "disk size" in warning
    assert engine.inspect("free")["State"]["Moorage"]["notes"] == [warning]
    said = engine.call("GET", "/info")[1]["Warnings"]
    assert any("only for containers with a disk size" in line for line in said)
    assert "only for containers with a disk size" in engine.docker("info")
