"""Rows that need only an engine: run, exec, memory of idle containers, log lines; ours and dockerd's in turn."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.daemons import IMAGE, Daemon, dockerd, moorage
from bench.engine_start import UnixConnection, call, starts
from bench.rows import Row, p50
from runtime.engine.alarms import PASS_S

RUNS = 50
IDLE_CONTAINERS, AT_A_TIME = 100, 8
WATCHED_PASSES = 10
LOG_LINES = 1_000_000


def in_turn(
    ours: Daemon, peer: Daemon | None, measure: Callable[[Daemon], float], runs: int
) -> tuple[float, float | None]:
    """Medians of `runs` measurements, A B A B, after one warm-up each."""
    daemons = [ours] if peer is None else [ours, peer]
    for daemon in daemons:
        measure(daemon)
    figures: dict[str, list[float]] = {daemon.name: [] for daemon in daemons}
    for _ in range(runs):
        for daemon in daemons:
            figures[daemon.name].append(measure(daemon))
    return p50(figures[ours.name]), p50(figures[peer.name]) if peer else None


def run_row(ours: Daemon, peer: Daemon | None) -> Row:
    """`docker run --rm … true`."""
    value, other = in_turn(ours, peer, lambda d: 1000 * d.timed("run", "--rm", "--entrypoint", "true", IMAGE), RUNS)
    return Row(name="docker run --rm … true", value=value, peer=other, unit="ms", budget=0.25, ratio=True)


def exec_row(ours: Daemon, peer: Daemon | None) -> Row:
    """`docker exec … true` in a running container."""
    names = {}
    for daemon in filter(None, (ours, peer)):
        names[daemon.name] = daemon.docker("run", "-d", "--entrypoint", "sleep", IMAGE, "600").strip()
    value, other = in_turn(ours, peer, lambda d: 1000 * d.timed("exec", names[d.name], "true"), RUNS)
    for daemon in filter(None, (ours, peer)):
        daemon.docker("rm", "-f", names[daemon.name])
    return Row(name="docker exec … true", value=value, peer=other, unit="ms", budget=0.5, ratio=True)


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process (proc_pid_smaps_rollup(5)); 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def parent_of(pid: int) -> int:
    """Pid of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def idle_memory(daemon: Daemon) -> float:
    """Mean PSS in MB of what holds one idle container: the parent of its init."""
    ids = [daemon.docker("run", "-d", "--entrypoint", "sleep", IMAGE, "600").strip() for _ in range(IDLE_CONTAINERS)]
    pids = daemon.docker("inspect", "--format", "{{.State.Pid}}", *ids).split()
    figure = sum(pss_bytes(parent_of(int(pid))) for pid in pids) / len(ids) / 1e6
    daemon.docker("rm", "-f", *ids)
    return figure


def memory_row(ours: Daemon, peer: Daemon | None) -> Row:
    """Monitor beside containerd-shim."""
    other = idle_memory(peer) if peer else None
    name = f"memory per idle container at {IDLE_CONTAINERS}"
    return Row(name=name, value=idle_memory(ours), peer=other, unit="MB PSS", budget=1.2)


def together(daemon: Daemon) -> float:
    """Seconds until the last of many made containers runs, AT_A_TIME calls to start one at a time."""
    connections = threading.local()

    def call_on(path: str) -> None:
        if not hasattr(connections, "own"):
            connections.own = UnixConnection(daemon.socket)
        call(connections.own, "POST", path)

    one = UnixConnection(daemon.socket)
    body = {"Image": IMAGE, "Entrypoint": ["sleep", "600"], "HostConfig": {"Memory": 64 << 20, "PidsLimit": 32}}
    ids = [call(one, "POST", "/containers/create", body)["Id"] for _ in range(IDLE_CONTAINERS)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        started = time.perf_counter()
        list(pool.map(call_on, [f"/containers/{identity}/start" for identity in ids]))
        took = time.perf_counter() - started
    daemon.docker("rm", "-f", *ids)
    return took


def together_row(ours: Daemon, peer: Daemon | None) -> Row:
    """Many at once: what a host does that comes back with its apps."""
    value, other = in_turn(ours, peer, together, 1)
    name = f"{IDLE_CONTAINERS} containers started, {AT_A_TIME} at a time"
    return Row(name=name, value=value, peer=other, unit="s", budget=0.5, ratio=True)


def watching_row(ours: Daemon) -> Row:
    """CPU time that an engine takes which only looks at its containers' limits."""
    ids = [ours.docker("run", "-d", "--entrypoint", "sleep", IMAGE, "600").strip() for _ in range(IDLE_CONTAINERS)]
    time.sleep(PASS_S)  # of the starts nothing is left
    before = cpu_s(ours.pid)
    time.sleep(WATCHED_PASSES * PASS_S)
    spent = cpu_s(ours.pid) - before
    ours.docker("rm", "-f", *ids)
    name = f"looking at the limits of {IDLE_CONTAINERS} containers, CPU every {PASS_S:.0f} s"
    return Row(name=name, value=1000 * spent / WATCHED_PASSES, unit="ms", budget=60)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def log_rate(daemon: Daemon) -> float:
    """Lines per second a container's output takes to reach the log on disk."""
    options = [] if daemon.name == "dockerd" else ["--log-opt", "max-size=1g"]
    script = f"yes 0123456789 | head -n {LOG_LINES}"
    started = time.perf_counter()
    name = daemon.docker("run", "-d", *options, "--entrypoint", "sh", IMAGE, "-c", script).strip()
    daemon.docker("wait", name)
    seconds = time.perf_counter() - started
    daemon.docker("rm", name)
    return LOG_LINES / seconds


def log_row(ours: Daemon, peer: Daemon | None) -> Row:
    """Our log beside json-file."""
    value, other = in_turn(ours, peer, log_rate, 3)
    return Row(name="log lines to disk", value=value, peer=other, unit="lines/s", budget=10, ratio=True, at_least=True)


def start_rows(ours: Daemon) -> Iterator[Row]:
    """The engine's API alone: start with network, from the call to the program."""
    for pause_s, budget in ((0.0, 15), (0.05, 25)):
        _create, start, _both = starts(ours.socket, IMAGE, 50, pause_s)
        yield Row(name=f"engine API: {start.what}, p50", value=start.p50, unit="ms", budget=budget)


def rows() -> Iterator[Row]:
    """All rows, both engines running side by side."""
    with moorage() as ours, dockerd() as peer:
        yield from of_containers(ours, peer)
        yield log_row(ours, peer)


def of_containers(ours: Daemon, peer: Daemon | None) -> Iterator[Row]:
    """Those of starts, execs and what runs; not of images and logs."""
    yield from start_rows(ours)
    for measure in (run_row, exec_row, memory_row, together_row):
        yield measure(ours, peer)
    yield watching_row(ours)


def runtime_rows() -> Iterator[Row]:
    """Of containers alone."""
    with moorage() as ours, dockerd() as peer:
        yield from of_containers(ours, peer)
