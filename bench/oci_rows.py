"""The command line of the runtime beside runc's: a bundle that is ready, from the call to its end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rows import Row, p50
from runtime.oci import default
from runtime.oci.default import Options
from scripts.state import PYTHON, ROOT

RUNS = 50


def bundle(folder: Path) -> Path:
    """One that runs `true` of the distribution's busybox, with what both runtimes know."""
    for name in ("bin", "proc", "sys", "dev"):
        (folder / "rootfs" / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", folder / "rootfs/bin/true")
    group = f"/moorage-bench-{os.getpid()}"
    options = Options(
        args=("true",), hostname="bench", cgroups_path=group, id_base=default.ID_RANGE, env=("PATH=/bin",)
    )
    config = default.default(options).to_json()
    linux = config["linux"]
    linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "user"]
    for name in ("uidMappings", "gidMappings", "sysctl"):
        linux.pop(name)
    config["process"]["user"] = {"uid": 0, "gid": 0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def rows() -> Iterator[Row]:
    """`moorage-oci run` and `runc run`, in turn."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        made = bundle(folder / "bundle")
        runtimes = {"ours": str(ROOT / "scripts/moorage-oci")}
        if runc := shutil.which("runc"):
            runtimes["runc"] = runc
        figures: dict[str, list[float]] = {key: [] for key in (*runtimes, "interpreter")}
        for number in range(RUNS + 1):
            for key, runtime in runtimes.items():
                call = [runtime, "--root", f"{folder}/{key}", "run", "--bundle", str(made), f"c{number}"]
                figures[key].append(timed(call))
            figures["interpreter"].append(timed([str(PYTHON), "-I", "-S", "-c", ""]))
        ours, interpreter, *other = (p50(figures[key][1:]) for key in ("ours", "interpreter", *list(runtimes)[1:]))
    note = f"{2 * interpreter:.0f} ms of it are two starts of the interpreter"
    yield Row(
        name="moorage-oci run … true / runc run", value=ours, peer=other[0] if other else None, unit="ms", budget=4,
        ratio=True, note=note,
    )  # fmt: skip


def timed(call: list[str]) -> float:
    """Milliseconds from the call to its end."""
    started = time.perf_counter()
    subprocess.run(call, check=True, capture_output=True)
    return 1000 * (time.perf_counter() - started)
