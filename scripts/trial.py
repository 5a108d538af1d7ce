"""A whole platform of its own for tests and benchmarks: `make up` on a temporary state folder, ended by `make down`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.state import ROOT, State

READY_WITHIN_S = 120.0
INHERITED = ("MOORAGE_SUBNET_POOL", "MOORAGE_PYTHON")  # everything else a trial sets itself


def outer_environment() -> dict[str, str]:
    """This process's environment without the settings of another platform (a test run's, say)."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MOORAGE_") or key in INHERITED}


@dataclass(slots=True)
class Trial:
    """A running platform: its doors, its operator's password and what it printed so far."""

    folder: Path
    port: int
    password: str
    environment: dict[str, str]
    process: subprocess.Popen[str]
    printed: list[str]
    ready_after_s: float = 0.0
    token: str = ""
    root: Path = ROOT  # the checkout it runs from

    @property
    def url(self) -> str:
        """The portal for a browser on this machine."""
        return f"http://localhost:{self.port}"

    @property
    def state(self) -> State:
        """The state folder with what is derived from it."""
        return State(self.folder, "127.0.0.1", self.port, "localhost", "localhost", "", "local")

    @property
    def engine_socket(self) -> Path:
        """Where the Docker CLI finds the engine."""
        return self.folder / "engine.sock"

    def manage(self, *arguments: str) -> str:
        """Run manage.py on this platform; returns what it printed."""
        command = [str(self.root / ".venv/bin/python"), "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=self.state_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"manage.py {arguments[0]} failed: {done.stderr[-600:]}")
        return done.stdout

    def state_environment(self) -> dict[str, str]:
        """What the platform's own processes get."""
        return outer_environment() | self.state.settings() | {"PYTHONPATH": str(self.root)} | self.environment

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout_s: float = 90
    ) -> tuple[int, Any]:
        """One REST call with the operator's token; `body` is a dict, bytes or an open file. Returns status and decoded answer."""
        if not self.token:
            self.token = self.manage("token", "--user", "admin", "--scopes", "read,deploy,write,operator").split()[-1]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        sent = {"Authorization": f"Bearer {self.token}", "Host": f"localhost:{self.port}"} | (headers or {})
        if isinstance(body, dict):
            sent.setdefault("Content-Type", "application/json")
            body = json.dumps(body)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text or b"null")
        return answer.status, text.decode(errors="replace")

    def deploy(self, app: str, archive: Path, wait_s: int = 60) -> tuple[int, Any]:
        """The pipeline's call: upload an archive, wait, answer."""
        with archive.open("rb") as file:
            path = f"/api/v1/apps/{app}/deployments?wait={wait_s}"
            return self.call("POST", path, file, {"Content-Type": "application/x-tar"}, timeout_s=wait_s + 30)

    def get(self, app: str, path: str = "/", timeout_s: float = 10) -> tuple[int, bytes]:
        """Ask an app through the ingress, by its Host header."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": f"{app}.localhost:{self.port}"})
            answer = connection.getresponse()
            return answer.status, answer.read()


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_until(process: subprocess.Popen[str], words: tuple[str, ...], printed: list[str], timeout_s: float) -> str:
    """Collect a process's lines until one begins with one of the words; returns it, or raises with what was printed."""
    deadline = time.monotonic() + timeout_s
    assert process.stdout is not None
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        line = process.stdout.readline()
        if not line:
            break
        printed.append(line.rstrip("\n"))
        if line.startswith(words):
            return line
    raise RuntimeError("the platform did not get ready:\n" + "\n".join(printed[-30:]))


def up(folder: Path, port: int, *, root: Path = ROOT, **environment: str) -> Trial:
    """`make up` in a checkout; returns once it says ready. The caller ends it with `interrupt` or `down`."""
    own = {"MOORAGE_STATE": str(folder), "MOORAGE_PORT": str(port), **environment}
    started = time.monotonic()
    process = subprocess.Popen(
        ["make", "--silent", "up"], cwd=root, env=outer_environment() | own, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1, start_new_session=True,
    )  # fmt: skip
    trial = Trial(folder, port, "", own, process, [], root=root)
    try:
        await_ready(trial)
    except RuntimeError:
        down(trial)
        raise
    trial.password = next((text.rpartition("password: ")[2] for text in trial.printed if "password: " in text), "")
    trial.ready_after_s = time.monotonic() - started
    return trial


def await_ready(trial: Trial) -> None:
    """Read what `make up` prints up to "ready"; raises RuntimeError with all of it when that is not said."""
    words, process = ("ready", "not ready", "moorage: "), trial.process
    line = read_until(process, words, trial.printed, READY_WITHIN_S)
    while line.startswith("moorage: ") and process.poll() is None:  # set-up says what it installs
        line = read_until(process, words, trial.printed, READY_WITHIN_S)
    if not line.startswith("ready"):
        raise RuntimeError("the platform did not get ready:\n" + "\n".join(trial.printed[-30:]))


def interrupt(trial: Trial) -> None:
    """Ctrl-C: the foreground ends, engine, apps and HAProxy go on."""
    os.killpg(trial.process.pid, signal.SIGINT)
    trial.process.communicate(timeout=60)


def down(trial: Trial) -> str:
    """`make down`; returns what it printed and raises when something is left."""
    command = ["make", "--silent", "down"]
    done = subprocess.run(
        command,
        cwd=trial.root,
        env=outer_environment() | trial.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if trial.process.poll() is None:
        trial.process.wait(timeout=60)
    if done.returncode:
        raise RuntimeError(f"make down: {done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def platform(**environment: str) -> Iterator[Trial]:
    """A platform for the length of a block; its folder goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-trial-", dir="/var/tmp"))
    trial = None
    try:
        trial = up(folder, free_port(), root=ROOT, **environment)
        yield trial
    finally:
        if trial is not None:
            down(trial)
        shutil.rmtree(folder, ignore_errors=True)
