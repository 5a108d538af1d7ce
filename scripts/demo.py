"""`make demo`: builds a small image from the distribution's busybox and deploys it through the REST call."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scripts.state import PYTHON, ROOT, SetupError, State

APP = "hello"


def call(
    state: State, token: str, method: str, path: str, body: Any = None, kind: str = "application/json"
) -> tuple[int, Any]:
    """One REST call; `body` is JSON or an open binary file. Returns the status and the decoded answer."""
    address = "127.0.0.1" if state.bind == "0.0.0.0" else state.bind
    connection = http.client.HTTPConnection(address, state.port, timeout=120)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": kind, "Host": f"{state.portal_host}:{state.port}"}
    payload = json.dumps(body) if isinstance(body, dict) else body
    try:
        connection.request(method, path, payload, headers)
        answer = connection.getresponse()
        text = answer.read()
    except OSError as error:
        raise SetupError(
            f"{address}:{state.port} does not answer ({error}): run make up first, in another terminal."
        ) from None
    try:
        return answer.status, json.loads(text or b"{}")
    except ValueError:
        return answer.status, {"detail": text.decode(errors="replace")[:300]}


def token_of_admin(state: State) -> str:
    """A fresh token of the operator, as the README makes one."""
    command = [
        str(PYTHON),
        "manage.py",
        "token",
        "--user",
        "admin",
        "--scopes",
        "read,deploy,write",
        "--name",
        "make demo",
    ]
    done = subprocess.run(command, cwd=ROOT, env=state.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"no token could be made: {done.stderr.strip()[-300:]}")
    return done.stdout.split()[-1]


def deploy(state: State) -> str:
    """Build, create the app where it is missing, deploy and wait; returns the app's address."""
    token = token_of_admin(state)
    status, answer = call(state, token, "GET", f"/api/v1/apps/{APP}")
    if status == 404:
        status, answer = call(state, token, "POST", "/api/v1/apps", {"app": APP, "plan": "nano"})
    if status >= 300:
        raise SetupError(f"the app {APP} could not be made: {answer.get('detail', answer)}")
    with tempfile.TemporaryDirectory(prefix="moorage-demo-") as folder:
        archive = Path(folder, "hello.tar")
        subprocess.run([str(PYTHON), str(ROOT / "scripts/demo_image.py"), "--output", str(archive)], check=True)
        print(f"deploying {archive.stat().st_size / 1e6:.1f} MB …", flush=True)
        with archive.open("rb") as file:
            status, answer = call(
                state, token, "POST", f"/api/v1/apps/{APP}/deployments?wait=60", file, "application/x-tar"
            )
    if status != 201:
        raise SetupError(f"the deployment answered {status}: {answer.get('detail') or answer.get('reason') or answer}")
    return f"http://{APP}.{state.domain}:{state.port}/"


def main() -> int:
    """Exit status 1 with one sentence when the demo did not go live."""
    try:
        print(f"live: {deploy(State.from_environment())}")
    except SetupError as error:
        print(f"moorage: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
