"""What the kernel and the disk hold of one state directory though no container asks for it. Needs no running engine."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from runtime.engine import records
from runtime.engine.config import EngineConfig
from runtime.engine.containers import is_id
from runtime.engine.orphans import orphans
from runtime.engine.records import Record
from runtime.kernel.cgroups import Cgroups
from runtime.oci.state import State as OciState

LINKS_S = 3.0

type Found = dict[str, list[str]]
KINDS = ("mounts", "cgroups", "links", "netns", "tables", "loops", "processes", "layers", "folders", "id_ranges")


def find(config: EngineConfig, cgroups: Cgroups) -> Found:
    """Every kind with the names of what is left over, empty lists when nothing is. Blocks: call it in a thread."""
    known = {r.id: r for r in _records(config.containers)}
    living = {identity for identity in known if _lives(config.containers / identity)}
    expected = living | {i for i, r in known.items() if r.life.state in ("restarting", "removing")}
    abandoned = not known and not engine_runs(config)  # no network has anybody to serve, though it be on record
    members = set[str]() if abandoned else _endpoint_links(config)
    return {
        "mounts": _mounts(config, expected),
        "cgroups": _cgroups(config, cgroups, expected, known),
        "links": _links(config, members),
        "netns": _netns(config, expected),
        "tables": [] if _networks(config) and not abandoned else _tables(config),
        "loops": _loops(config, expected, {v.name for i in expected for v in known[i].host.volumes}),
        "processes": _processes(config, cgroups, living),
        "layers": _layers(config, known),
        "folders": _folders(config.containers),
        "id_ranges": _shared_ranges(known.values()),
    }


def _records(folder: Path) -> Iterable[Record]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if is_id(path.name):
            try:
                yield records.load(path)
            except (FileNotFoundError, ValueError):
                continue


def _lives(folder: Path) -> bool:
    state = OciState.read(folder)
    return state is not None and any(process.alive() for process in (state.monitor, state.init) if process)


def _mounts(config: EngineConfig, expected: set[str]) -> list[str]:
    """Mounts of the host below state and run, but for the network namespaces of living containers."""
    shorts = {identity[:12] for identity in expected}
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].replace("\\040", " ")
        below = any(point == str(root) or point.startswith(f"{root}/") for root in (config.home, config.run))
        if below and not (
            point.startswith(f"{config.run}/netns") and (point.endswith("/netns") or Path(point).name in shorts)
        ):
            found.append(point)
    return found


def _cgroups(config: EngineConfig, cgroups: Cgroups, expected: set[str], known: dict[str, Record]) -> list[str]:
    """Instances that no container lives in, and parents that neither hold one nor have limits of their own.

    `default` and the root itself are the engine's: they count when no engine runs and no container is left."""
    root = f"moorage-{config.short}"
    groups = cgroups.list(root)
    if not known and not engine_runs(config):
        return [*groups, *([root] if exists(cgroups, root) else [])]
    kept = _groups(config) | {r.host.cgroup_parent for r in known.values()} | {"default"}
    found = []
    for path in groups:
        rest = path.removeprefix(root).strip("/")
        name = rest.rsplit("/", 1)[-1]
        if is_id(name):
            if name not in expected:
                found.append(path)
        elif rest and not any(k == rest or k.startswith(f"{rest}/") for k in kept):
            found.append(path)
    return found


def exists(cgroups: Cgroups, root: str) -> bool:
    """Whether a group of that name is in any hierarchy (v1 mounts them one beside another)."""
    base = Path("/sys/fs/cgroup")
    places = [base] if cgroups.version == 2 else [p for p in base.iterdir() if p.is_dir()]
    return any((place / root).is_dir() for place in places)


def engine_runs(config: EngineConfig) -> bool:
    """Whether an engine holds this state."""
    return engine_pid(config) != 0


def engine_pid(config: EngineConfig) -> int:
    """The engine that holds this state, 0 when none does."""
    try:
        fd = os.open(config.home / "engine.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(fd, 32) or b"-1")  # it writes its pid as soon as it has the lock
    finally:
        os.close(fd)
    return 0


def _groups(config: EngineConfig) -> set[str]:
    try:
        return set(json.loads((config.home / "groups.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return set()


def _networks(config: EngineConfig) -> bool:
    folder = config.home / "networks"
    return folder.is_dir() and any(folder.iterdir())


def _endpoint_links(config: EngineConfig) -> set[str]:
    """Names of links that the network's records ask for."""
    found: set[str] = set()
    for path in [*(config.home / "networks").glob("*.json"), *(config.run / "sandboxes").glob("*.json")]:
        try:
            found |= set(_names(json.loads(path.read_bytes())))
        except (OSError, ValueError):
            continue
    return found


def _names(data: object) -> Iterable[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key in ("bridge", "host_link") and isinstance(value, str):
                yield value
            yield from _names(value)
    elif isinstance(data, list):
        for item in data:
            yield from _names(item)


def _links(config: EngineConfig, wanted: set[str]) -> list[str]:
    """Links of ours that no endpoint or network has. A running engine keeps some in hand, joined to nothing: they end with it."""
    if engine_runs(config):
        return [name for name in _strays(config, wanted) if Path("/sys/class/net", name, "master").exists()]
    deadline = time.monotonic() + LINKS_S
    while (found := _strays(config, wanted)) and time.monotonic() < deadline:
        time.sleep(0.05)  # the kernel takes the links of a namespace that ended along in its own time and tells nobody
    return found


def _strays(config: EngineConfig, wanted: set[str]) -> list[str]:
    prefix = f"m{config.short[:4]}"
    names = (p.name for p in Path("/sys/class/net").iterdir())
    return sorted(name for name in names if name.startswith(prefix) and name not in wanted)


def _netns(config: EngineConfig, expected: set[str]) -> list[str]:
    shorts = {identity[:12] for identity in expected}
    folder = config.run / "netns"
    return sorted(str(p) for p in folder.iterdir() if p.name not in shorts) if folder.is_dir() else []


def _tables(config: EngineConfig) -> list[str]:
    """nft tables of this state."""
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if f"moorage_{config.short}" in line]


def _loops(config: EngineConfig, expected: set[str], volumes: set[str]) -> list[str]:
    """Loop devices of layers that no container lives on, and of volumes that none of them has."""
    used = tuple(f"{config.volumes}/{name}/" for name in volumes)
    found = []
    for node in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = node.read_text().strip()
        except OSError:
            continue  # detached meanwhile
        if f"{config.home}/" in backing and not (
            backing.startswith(used) or any(identity in backing for identity in expected)
        ):
            found.append(f"{node.parent.parent.name} {backing}")
    return found


def _processes(config: EngineConfig, cgroups: Cgroups, living: set[str]) -> list[str]:
    """Processes in groups of instances that do not live, and launchers, monitors and crews that serve nobody."""
    states = {i: OciState.read(config.containers / i) for i in living}
    monitors = {i: state.monitor.pid for i, state in states.items() if state and state.monitor}
    found = orphans(config.short, engine_pid(config), monitors)
    for path in cgroups.list(f"moorage-{config.short}"):
        name = path.rsplit("/", 1)[-1]
        if is_id(name) and name not in living:
            found += [f"{pid} in {path}" for pid in cgroups.pids(path)]
    return sorted(found)


def _layers(config: EngineConfig, known: dict[str, Record]) -> list[str]:
    folder = config.home / "store" / "c"
    return sorted(p.name for p in folder.iterdir() if p.name not in known) if folder.is_dir() else []


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if not is_id(p.name) or not (p / records.RECORD).exists())


def _shared_ranges(known: Iterable[Record]) -> list[str]:
    """Id ranges that two containers have."""
    counted = Counter(r.id_base for r in known)
    return [str(base) for base, count in counted.items() if count > 1]
