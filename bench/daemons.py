"""The two engines that are compared: ours, and the distribution's dockerd where it is installed."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.state import PYTHON, ROOT

IMAGE = "hello"


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running engine: its socket and the pid of its process."""

    name: str
    socket: Path
    pid: int

    def docker(self, *arguments: str, input_path: Path | None = None) -> str:
        """Run the docker CLI against it; returns what it printed, raises with its error."""
        with contextlib.ExitStack() as stack:
            stdin = stack.enter_context(input_path.open("rb")) if input_path else subprocess.DEVNULL
            command = [docker_cli(), "-H", f"unix://{self.socket}", *arguments]
            done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"docker {arguments[0]} at {self.name} failed: {done.stderr[-400:]}")
        return done.stdout

    def timed(self, *arguments: str) -> float:
        """Seconds one CLI call takes as a whole process."""
        started = time.perf_counter()
        self.docker(*arguments)
        return time.perf_counter() - started


def docker_cli() -> str:
    """Path of the docker command line."""
    found = os.environ.get("MOORAGE_BENCH_DOCKER") or shutil.which("docker")
    if not found:
        raise SystemExit("the docker command line is needed to compare engines: install docker.io or docker-cli.")
    return found


def await_socket(path: Path, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Until a daemon answers on its socket."""
    command = [docker_cli(), "-H", f"unix://{path}", "version"]
    fd = os.pidfd_open(process.pid)
    deadline = time.monotonic() + timeout_s
    with contextlib.closing(os.fdopen(fd)):
        while time.monotonic() < deadline:
            if path.exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return
            if select.select([fd], [], [], 0.05)[0]:
                raise RuntimeError(f"the daemon ended with {process.wait()}")
    raise RuntimeError(f"the daemon did not answer within {timeout_s:.0f} s")


def build_image(folder: Path, *options: str) -> Path:
    """The demo image as an archive."""
    path = folder / "image.tar"
    subprocess.run([str(PYTHON), str(ROOT / "scripts/demo_image.py"), "--output", str(path), *options], check=True)
    return path


@contextlib.contextmanager
def moorage() -> Iterator[Daemon]:
    """Our engine on a state folder of its own, with the demo image loaded; everything goes with the block."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-bench-", dir="/var/tmp")))
        command = [str(PYTHON), "-m", "runtime.engine", "--state", str(folder), "--subnet-pool", "10.236.0.0/16"]
        with (folder / "engine.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
            )
        stack.callback(process.wait, 30)
        stack.callback(process.send_signal, signal.SIGTERM)
        socket = folder / "engine.sock"
        await_socket(socket, process, 30)
        shutdown = [
            "curl",
            "--silent",
            "--show-error",
            "--unix-socket",
            str(socket),
            "-X",
            "POST",
            "http://e/moorage/shutdown?remove=containers",
        ]
        stack.callback(subprocess.run, shutdown, capture_output=True, check=False)
        daemon = Daemon("moorage", socket, process.pid)
        daemon.docker("load", input_path=build_image(folder))
        yield daemon


@contextlib.contextmanager
def dockerd() -> Iterator[Daemon | None]:
    """The distribution's dockerd in network and mount namespaces of its own; None where it is not installed."""
    binary = shutil.which(os.environ.get("MOORAGE_BENCH_DOCKERD", "dockerd"))
    if binary is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dockerd-bench-", dir="/var/tmp")))
        socket = folder / "docker.sock"
        options = f"--data-root {folder}/data --exec-root {folder}/exec --pidfile {folder}/pid --bip 10.237.0.1/24"
        inner = f"ip link set lo up && exec {binary} -H unix://{socket} {options} >{folder}/log 2>&1"
        path = f"{Path(binary).parent}:{Path(binary).parent.parent}/bin:{os.environ['PATH']}"
        process = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", inner], env=os.environ | {"PATH": path})
        stack.callback(process.wait, 30)
        stack.callback(process.send_signal, signal.SIGTERM)
        await_socket(socket, process, 60)
        daemon = Daemon("dockerd", socket, process.pid)
        daemon.docker("load", input_path=build_image(folder))
        yield daemon
