"""What `make down` cannot end is one sentence and exit status 1."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest

from scripts import doctor, down, records
from scripts.state import SetupError, State


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setenv("MOORAGE_STATE", str(tmp_path))
    (tmp_path / "run/logs").mkdir(parents=True)
    return State.from_environment()


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[str]]:
    """A process that does not end when it is asked to."""
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


class Refusal(BaseHTTPRequestHandler):
    """An engine that refuses to shut down, with the body of its server."""

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body: bytes = getattr(self.server, "body")  # noqa: B009
        self.send_response(500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a `make down` that did not succeed."""
    assert down.main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("moorage: ") and err.count("\n") == 1
    return err


def test_an_up_that_does_not_end_stops_down_before_the_engine(
    state: State, stubborn: subprocess.Popen[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(down, "UP_WITHIN_S", 0.2)
    monkeypatch.setattr(down, "end_engine", lambda _: pytest.fail("the engine was ended under a living portal"))
    records.write(state.records / "up.json", stubborn.pid, "")
    assert f"make up (process {stubborn.pid}) did not end within 0.2 s" in refused(capsys)


@pytest.mark.parametrize(
    ("body", "words"),
    [(b'{"message": "shop holds its disk"}', "shop holds its disk"), (b"oops", "500 Internal Server Error")],
)
def test_an_engine_that_refuses_is_quoted(
    state: State, stubborn: subprocess.Popen[str], capsys: pytest.CaptureFixture[str], body: bytes, words: str
) -> None:
    records.write(state.records / "engine.json", stubborn.pid, "")
    with UnixStreamServer(str(state.folder / "engine.sock"), Refusal) as server:
        setattr(server, "body", body)  # noqa: B010
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        assert f"the engine did not shut down: {words}" in refused(capsys).replace("it answers ", "")
        server.shutdown()
    assert stubborn.poll() is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SetupError("the engine's count failed: no such table"), "the engine's count failed"),
        (PermissionError(13, "Permission denied", "/var/lib/moorage/run"), "/var/lib/moorage/run: Permission denied"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_an_error_on_the_way_is_one_sentence(
    state: State, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(_: State) -> list[str]:
        raise error

    monkeypatch.setattr(doctor, "leftovers", fail)
    assert words in refused(capsys)
