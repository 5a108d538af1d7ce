"""Memory of idle containers' monitors, and how long a container takes to its gate and to its program: needs root.

`python -m bench.monitor_memory [COUNT]` makes COUNT (50) containers of the distribution's busybox in a throw-away store.
PSS as /proc/PID/smaps_rollup counts it; latencies are p50 and p95 of starts back to back and 50 ms apart.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from runtime.kernel.cgroups import detect
from runtime.oci.client import Launched, LauncherClient, LaunchRequest
from runtime.oci.default import Options, default
from runtime.oci.state import CONFIG, ROOT
from runtime.storage.driver import RootPlan

TOP = f"moorage-bench{os.getpid()}"


def pss_kb(pid: int) -> int:
    """Proportional set size of a process in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def make_bundle(store: Path, number: int) -> LaunchRequest:
    """A container's folder: busybox, sleeping."""
    name = f"c{number}"
    bundle = store / name
    for folder in (bundle, store / f"up{number}", store / f"wk{number}"):
        folder.mkdir()
    plan = RootPlan(
        store_root=str(store), lowers=("l",), upper=f"up{number}", work=f"wk{number}", options=("volatile",)
    )
    plan.write(bundle / ROOT)
    options = Options(
        args=("/busybox", "sleep", "600"),
        hostname=name,
        cgroups_path=f"{TOP}/{name}",
        id_base=10_000_000 + number * 65_536,
    )
    default(options).write(bundle / CONFIG)
    return LaunchRequest(id=name, bundle=bundle, attach=bundle / "a.sock")


async def start_all(client: LauncherClient, requests: list[LaunchRequest], pause_s: float) -> list[Launched]:
    """Start one after the other and print how long each took."""
    made, gate_ms, whole_ms = [], [], []
    for request in requests:
        began = time.perf_counter()
        launched = await client.launch(request)
        gated = time.perf_counter()
        await launched.release()
        whole_ms.append((time.perf_counter() - began) * 1e3)
        gate_ms.append((gated - began) * 1e3)
        made.append(launched)
        await asyncio.sleep(pause_s)
    for name, values in (("launch to gate", gate_ms), ("launch to exec", whole_ms)):
        p95 = statistics.quantiles(values, n=20)[18]
        print(f"{name}, {pause_s * 1e3:.0f} ms apart: p50 {statistics.median(values):.1f} ms, p95 {p95:.1f} ms")
    return made


async def main(count: int) -> None:
    """Measure and clean up."""
    store = Path(tempfile.mkdtemp(prefix="moorage-bench-", dir="/var/tmp"))
    store.chmod(0o755)
    (store / "l").mkdir()
    shutil.copy("/bin/busybox", store / "l/busybox")
    client, groups = LauncherClient(), detect()
    try:
        await client.start()
        half = count // 2
        made = await start_all(client, [make_bundle(store, n) for n in range(half)], 0)
        made += await start_all(client, [make_bundle(store, n) for n in range(half, count)], 0.05)
        sizes = [pss_kb(launched.monitor_pid) for launched in made]
        print(f"monitors: {len(sizes)}, PSS mean {statistics.mean(sizes):.0f} kB, most {max(sizes)} kB")
        print(f"launcher: PSS {pss_kb(client.pid or 0)} kB")
        groups.kill(TOP)
        await asyncio.gather(*(launched.wait() for launched in made))
    finally:
        await client.close()
        groups.kill(TOP)
        groups.remove(TOP)
        shutil.rmtree(store)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
