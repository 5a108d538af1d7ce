"""`docker run`, `exec` and `attach` with a terminal, by the real command line in a terminal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from tests.runtime.root.engine.conftest import PATIENCE_S, Engine, eventually

CTRL_C, CTRL_P, CTRL_Q = b"\x03", b"\x10", b"\x11"
SIZES = (
    "trap 'stty size' WINCH; trap 'exit 9' INT; stty -echo; tty; echo $TERM; stty size; while :; do read -r word; done"
)


class Terminal:
    """A docker command in the foreground of a terminal."""

    def __init__(self, engine: Engine, *arguments: str, size: tuple[int, int] = (37, 101)) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(*size)
        self.seen = b""
        command = ["setsid", "--ctty", "docker", "-H", f"unix://{engine.socket}", *arguments]
        self.process = subprocess.Popen(command, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs)

    def resize(self, height: int, width: int) -> None:
        """What a window does; whoever is in the foreground gets SIGWINCH."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, keys: bytes) -> None:
        """Press keys once the command takes every key as it is, and wait until it has read them."""
        eventually(lambda: not termios.tcgetattr(self.theirs)[3] & termios.ICANON, "a raw terminal")
        os.write(self.ours, keys)
        eventually(lambda: not self._unread(), f"the reading of {keys!r}")

    def _unread(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self.theirs, termios.FIONREAD, bytes(4)))[0])

    def until(self, text: bytes, *, nudge: bool = False) -> bytes:
        """Everything seen up to a text, which is cut off what was seen. `nudge` tells of the size again: a SIGWINCH before the
        command listens for it goes unheard."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            assert time.monotonic() < deadline and self.process.poll() is None, (text, self.seen)
            if not self._take(0.5) and nudge:
                self.process.send_signal(signal.SIGWINCH)
        before, text, self.seen = self.seen.partition(text)
        return before + text

    def _take(self, timeout_s: float) -> bool:
        if not select.select([self.ours], [], [], timeout_s)[0]:
            return False
        self.seen += os.read(self.ours, 65_536)
        return True

    def end(self) -> tuple[int, bytes]:
        """Exit status, and what was said till then."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen
            self._take(0.05)
        while self._take(0):
            pass
        return self.process.returncode, self.seen

    def close(self) -> None:
        """Also ends a command that a failed test left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@contextlib.contextmanager
def docker(engine: Engine, *arguments: str) -> Iterator[Terminal]:
    """A docker command in a terminal of 37 rows and 101 columns."""
    with contextlib.closing(Terminal(engine, *arguments)) as terminal:
        yield terminal


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_the_terminal_has_the_windows_size_and_ctrl_c_reaches_the_program(engine: Engine, verb: str) -> None:
    where = ["run", "-it", "--rm", "busybox"]
    if verb == "exec":
        engine.docker("run", "-d", "--name", "host", "busybox", "sleep", "600")
        where = ["exec", "-it", "host"]
    with docker(engine, *where, "sh", "-c", SIZES) as terminal:
        assert terminal.until(b"37 101\r\n") == b"/dev/pts/0\r\nxterm\r\n37 101\r\n"
        terminal.resize(50, 90)
        terminal.until(b"50 90\r\n", nudge=True)
        terminal.type(CTRL_C)
        assert terminal.end()[0] == 9


def test_detached_it_runs_on_until_somebody_attaches(engine: Engine) -> None:
    script = "stty -echo; echo ready; read -r word; echo got $word; exit 5"
    with docker(engine, "run", "-it", "--name", "kept", "busybox", "sh", "-c", script) as terminal:
        terminal.until(b"ready\r\n")
        terminal.type(CTRL_P)
        terminal.type(CTRL_Q)
        assert terminal.end()[0] == 0
    assert engine.status("kept") == "running"
    with docker(engine, "attach", "kept") as terminal:
        terminal.type(b"again\r")
        code, said = terminal.end()
        assert code == 5 and said.startswith(b"got again\r\n")
    assert engine.docker("logs", "kept") == "ready\r\ngot again\r\n"


def test_ctrl_c_ends_an_execs_program(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "host", "busybox", "sleep", "600")
    with docker(engine, "exec", "-it", "host", "sh", "-c", "echo ready; exec sleep 600") as terminal:
        terminal.until(b"ready\r\n")
        terminal.type(CTRL_C)
        assert terminal.end() == (130, b"^C")


def test_output_of_a_terminal_is_raw_and_whole(engine: Engine) -> None:
    numbers = "".join(f"{n}\r\n" for n in range(1, 20_001))
    assert engine.docker("run", "-t", "--name", "prints", "busybox", "seq", "1", "20000") == numbers
    assert engine.docker("logs", "prints") == numbers
    assert engine.inspect("prints")["Config"]["Tty"]
    engine.docker("run", "-dt", "--name", "host", "busybox", "sleep", "600")
    assert engine.docker("exec", "-t", "host", "seq", "1", "20000") == numbers
    assert engine.docker("exec", "host", "tty", code=1) == "not a tty\n"
    assert "not found" in engine.docker("exec", "-t", "host", "nosuch", code=127)


def test_an_exec_that_nobody_watches_has_the_size_it_was_made_with(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "host", "busybox", "sleep", "600")
    command = ["sh", "-c", "stty size > /tmp/size"]
    asked = {"Cmd": command, "AttachStdin": True, "Tty": True, "ConsoleSize": [33, 77]}
    identity = engine.call("POST", "/containers/host/exec", asked)[1]["Id"]
    assert engine.call("POST", f"/exec/{identity}/start", {"Detach": True, "Tty": True})[0] == 200
    eventually(lambda: engine.call("GET", f"/exec/{identity}/json")[1]["ExitCode"] is not None, "the end of the exec")
    assert engine.docker("exec", "host", "cat", "/tmp/size") == "33 77\n"


def test_a_size_is_a_size_and_for_what_runs(engine: Engine) -> None:
    engine.docker("create", "-t", "--name", "still", "busybox", "true")
    assert engine.call("POST", "/containers/still/resize?h=1&w=2")[0] == 409
    for wrong in ("h=1", "h=1&w=70000", "h=x&w=2", "h=-1&w=2"):
        assert engine.call("POST", f"/containers/still/resize?{wrong}")[0] == 400
    code, body = engine.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"ConsoleSize": [1]}})
    assert code == 400 and "height and width" in body["message"]


@pytest.mark.parametrize("verb", ["run", "exec", "attach"])
def test_other_keys_may_let_go_and_the_command_says_so(engine: Engine, verb: str) -> None:
    script = ("sh", "-c", "stty -echo; echo ready; read -r word; echo got $word > /tmp/word; exec sleep 600")
    if verb != "run":
        engine.docker("run", "-dit", "--name", "kept", "busybox", *script)
    where = {"run": ("-it", "--name", "kept", "busybox"), "exec": ("-it", "kept"), "attach": ("kept",)}[verb]
    with docker(engine, verb, "--detach-keys", "ctrl-a,b", *where, *(() if verb == "attach" else script)) as terminal:
        if verb != "attach":
            terminal.until(b"ready\r\n")
        terminal.type(CTRL_P)
        terminal.type(CTRL_Q)
        terminal.type(b"\x01b")
        code, said = terminal.end()
    assert (b"read escape sequence" in said, code) == ((False, 0) if verb == "run" else (True, 1))
    assert engine.status("kept") == "running"


def upgraded(engine: Engine, path: str, body: dict[str, object] | None = None) -> socket.socket:
    """A connection that was taken over for a stream; its answer's head is read."""
    data = json.dumps(body).encode() if body else b""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(str(engine.socket))
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
    )
    sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(data) + data)
    seen = b""
    while not seen.endswith(b"\r\n\r\n"):
        seen += sock.recv(1)
    assert b" 101 " in seen.splitlines()[0]
    return sock


def rest(sock: socket.socket) -> bytes:
    """All that comes until the engine ends it."""
    seen = b""
    while data := sock.recv(65_536):
        seen += data
    sock.close()
    return seen


ASKS = "stty -echo; read -r word; echo got $word >> /tmp/words; exec sleep 600"


@pytest.mark.parametrize(("keys", "typed"), [("", CTRL_P + CTRL_Q), ("x,ctrl-],y", b"x\x1dy")])
def test_the_engine_itself_knows_the_keys(engine: Engine, keys: str, typed: bytes) -> None:
    since = f"{time.time():.6f}"
    engine.docker("run", "-dit", "--name", "kept", "busybox", "sh", "-c", ASKS)
    attached = upgraded(engine, f"/containers/kept/attach?stream=1&stdin=1&stdout=1&detachKeys={keys}")
    attached.sendall(typed[:1] + b"one\r" + typed[:1])
    eventually(lambda: "one" in engine.docker("exec", "kept", "cat", "/tmp/words", code=None), "what was typed")
    attached.sendall(typed[1:] + b"never read")
    rest(attached)
    body = {"Cmd": ["sh", "-c", ASKS], "AttachStdin": True, "AttachStdout": True, "Tty": True, "DetachKeys": keys}
    identity = engine.call("POST", "/containers/kept/exec", body)[1]["Id"]
    started = upgraded(engine, f"/exec/{identity}/start", {"Detach": False, "Tty": True})
    started.sendall(b"two\r" + typed + b"never read")
    rest(started)
    eventually(lambda: "two" in engine.docker("exec", "kept", "cat", "/tmp/words"), "what was typed")
    assert engine.call("GET", f"/exec/{identity}/json")[1]["Running"] and engine.status("kept") == "running"
    words = engine.docker("exec", "kept", "cat", "/tmp/words").encode()
    assert words == b"got " + typed[:1] + b"one\ngot two\n"
    told = engine.docker("events", "--since", since, "--until", f"{time.time():.6f}", "--format", "{{.Action}}").split()
    assert [action for action in told if "detach" in action] == ["detach", "exec_detach"]


def test_keys_that_are_none_are_refused(engine: Engine) -> None:
    engine.docker("run", "-dit", "--name", "kept", "busybox", "sleep", "600")
    for keys in ("ctrl-1", "ab", "ctrl-p,,", ",".join("a" * 17)):
        assert engine.call("POST", f"/containers/kept/attach?detachKeys={keys}")[0] == 400
        assert engine.call("POST", "/containers/kept/exec", {"Cmd": ["sh"], "DetachKeys": keys})[0] == 400


def test_a_terminal_is_resized_and_typed_into_under_the_next_engine(engine: Engine) -> None:
    engine.docker("run", "-dit", "--name", "kept", "busybox", "sh", "-c", SIZES)
    eventually(lambda: "xterm" in engine.docker("logs", "kept"), "the traps")
    engine.end(signal.SIGKILL)
    engine.start()
    assert engine.call("POST", "/containers/kept/resize?h=33&w=77")[0] == 200
    eventually(lambda: "33 77" in engine.docker("logs", "kept"), "the new size")
    with docker(engine, "attach", "kept") as terminal:
        terminal.resize(50, 90)
        terminal.until(b"50 90\r\n", nudge=True)
        terminal.type(CTRL_C)
        assert terminal.end()[0] == 9
