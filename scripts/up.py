"""`make up`: checks the machine, prepares state, and hands over to the foreground process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from scripts import preflight, records, supervise
from scripts.state import ADMIN_PASSWORD, DATABASE_URL, PYTHON, ROOT, SetupError, State

CODE_STAMP = "prepared"


def hold_lock(state: State) -> None:
    """One `up` per state folder; the lock lives as long as this process, exec included."""
    fd = os.open(state.records / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SetupError(
            f"another make up runs on {state.folder}: end it first, or set MOORAGE_STATE and MOORAGE_PORT for a second platform."
        ) from None
    os.set_inheritable(fd, True)


def preparation_stamp(state: State) -> str:
    """Changes when migrations, requirements or the environment that bootstrap reads do."""
    digest = hashlib.sha256((ROOT / "requirements/up.txt").read_bytes())
    for path in sorted((ROOT / "portal").rglob("migrations/*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(os.environ.get(DATABASE_URL, "").encode())
    digest.update(os.environ.get(ADMIN_PASSWORD, "").encode())
    digest.update(state.host.encode())
    return digest.hexdigest()


def prepare(state: State) -> dict[str, str]:
    """Migrate and bootstrap, unless nothing changed since the last time; returns what bootstrap says (`user`, `password`)."""
    stamp, wanted = state.records / CODE_STAMP, preparation_stamp(state)
    if stamp.exists() and stamp.read_text() == wanted:
        return {}
    environment = os.environ | state.settings()
    answer = _run([str(PYTHON), "manage.py", "bootstrap", "--migrate"], environment, "preparing the database")
    stamp.write_text(wanted)
    said: dict[str, str] = json.loads(answer.strip().splitlines()[-1])
    return said


def _run(command: list[str], environment: dict[str, str], doing: str) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise SetupError(f"{doing} failed:\n{tail}")
    return done.stdout


def tell(state: State, said: dict[str, str]) -> None:
    """Print where the portal is and how to sign in."""
    print(f"Moorage: {state.url}  user: {said.get('user', 'admin')}  ", end="")
    if said.get("password"):
        print(f"password: {said['password']}", flush=True)
    else:
        print(
            "password: as set or shown at the first start (manage.py changepassword admin makes a new one)", flush=True
        )


def start(state: State) -> None:
    """Everything up to the point where the foreground process takes over; does not return."""
    if found := preflight.problems(state):
        raise SetupError("\n".join(found))
    state.make_folders()
    hold_lock(state)
    supervise.write_valkey_config(state)
    config = supervise.write_config(state)
    _run([str(PYTHON), "-m", "worker.ingress", "write"], state.plain_environment(), "writing the ingress configuration")
    said = prepare(state)
    tell(state, said)
    supervisord = str(PYTHON.parent / "supervisord")
    arguments = [str(PYTHON), "-I", "-S", str(ROOT / "scripts/foreground.py"), supervisord, str(config)]
    arguments += [
        f"{state.run}/web.sock",
        state.entrance,
        state.portal_host,
        str(state.records / "logs"),
    ]
    records.write(state.records / "up.json", os.getpid(), "")
    os.execve(arguments[0], arguments, state.environment())


def main() -> int:
    """Exit status 1 with one sentence when the platform cannot be started."""
    try:
        state = State.from_environment()
        start(state)
    except SetupError as error:
        print(f"moorage: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"moorage: {Path(error.filename or '.')}: {error.strerror}: make room, or set MOORAGE_STATE to another folder.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
