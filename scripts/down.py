"""`make down`: ends everything of one state folder, containers included, and counts what is left."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from scripts import doctor, records, supervise
from scripts.state import ROOT, SetupError, State

ENGINE_WITHIN_S = 30
UP_WITHIN_S = 40.0


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def end_up(state: State) -> None:
    """End the foreground process and all it supervises; raises SetupError when it takes too long."""
    record = records.read(state.records / "up.json")
    if record is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(record["pid"], signal.SIGTERM)
    if not records.wait_for_end(record["pid"], UP_WITHIN_S):
        raise SetupError(
            f"make up (process {record['pid']}) did not end within {UP_WITHIN_S:g} s: end it, and run make down again"
            f" (logs: {state.records / 'logs'})."
        )


def end_engine(state: State) -> None:
    """Let the engine remove every container, mount and network, then end it. One that was killed is started for it."""
    record = records.read(state.records / "engine.json")
    if record is None and holds_something(state):
        record = start_engine(state)
    if record is None:
        return
    connection = EngineConnection(state.folder / "engine.sock", 120)
    try:
        connection.request("POST", "/moorage/shutdown?remove=containers")
        answer = connection.getresponse()
        if answer.status >= 300:
            raise SetupError(f"the engine did not shut down: {_message(answer)}")
    except (OSError, http.client.HTTPException) as error:
        print(f"moorage: the engine does not answer ({error}); ending it.", file=sys.stderr)
    finally:
        connection.close()  # the engine waits for its clients
    records.wait_for_end(record["pid"], 30)
    records.end(record)


def _message(answer: http.client.HTTPResponse) -> str:
    body = answer.read()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["message"])
    return f"it answers {answer.status} {answer.reason}"


def holds_something(state: State) -> bool:
    """Whether an engine that is not there has left containers, or anything that belongs to none."""
    containers = state.folder / "engine/containers"
    return containers.is_dir() and (any(containers.iterdir()) or bool(doctor.leftovers(state)))


def start_engine(state: State) -> records.Record | None:
    """Start the engine and wait until it answers; None, and said, when it does not."""
    state.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = state.records / "logs/engine.log"
    with log.open("ab") as output:
        engine = subprocess.Popen(
            supervise.engine_command(state), cwd=ROOT, env=state.plain_environment(), stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    records.write(state.records / "engine.json", engine.pid, "down")
    deadline = time.monotonic() + ENGINE_WITHIN_S
    while engine.poll() is None and time.monotonic() < deadline:
        try:
            EngineConnection(state.folder / "engine.sock", 1).connect()
        except OSError:
            time.sleep(0.05)  # it says "ready" by its socket alone
        else:
            return records.read(state.records / "engine.json")
    print(f"moorage: the engine was not there and did not start; {log} says why.", file=sys.stderr)
    return records.read(state.records / "engine.json")


def end_all(state: State) -> list[str]:
    """End portal, ingress and engine, in this order; returns what is left, as `doctor.leftovers` does."""
    end_up(state)
    if (haproxy := records.read(state.records / "haproxy.json")) is not None:
        records.end(haproxy)
    end_engine(state)
    left = doctor.leftovers(state)
    if not left:
        shutil.rmtree(state.run, ignore_errors=True)
    return left


def main() -> int:
    """Exit status 1 when something is left, or one sentence says what could not be ended."""
    try:
        left = end_all(State.from_environment())
    except SetupError as error:
        print(f"moorage: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"moorage: {where}{error.strerror or error}: make down did not finish; run it again.", file=sys.stderr)
        return 1
    print("down: " + ("nothing is left." if not left else "left behind: " + ", ".join(left)))
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
