"""A real engine in a state directory of its own, a busybox image, the docker command lines, docker-py, and the doctor at the end."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.root.engine.warm import Forked, warm

ROOT = Path(__file__).resolve().parents[4]
POOL = "10.232.128.0/18"
SCRATCH = os.environ.get("MOORAGE_TEST_STATE", "/var/tmp")
IN_GUEST = bool(os.environ.get("MOORAGE_TEST_VM"))
PATIENCE_S = 120.0 if IN_GUEST else 20.0
LINGERS_S = PATIENCE_S / 4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs root and fails without it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


def busybox_archive(tag: str = "busybox:latest", **config: Any) -> bytes:
    """A `docker save` archive of the distribution's static busybox with all its applets, root its user, sh its command.

    `config` is laid over the image's own."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        _add(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\napp:x:1000:\n")
        _add(tar, "etc/secret", b"not yours\n", 0o600)
        for applet in applets:
            if applet != "busybox":
                info = tarfile.TarInfo(f"bin/{applet}")
                info.type, info.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(info)
    data = layer.getvalue()
    text = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"from": "image"}} | config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        _add(tar, name, text)
        _add(tar, "layer.tar", data)
        _add(tar, "manifest.json", json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode())
    return archive.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


def eventually[T](look: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """The first true answer of `look`; fails after `patience_s`. For what only another process's deed can make true."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail(f"never came: {what}")


class Engine:
    """The daemon as a process, and ways to talk to it."""

    def __init__(self, state: Path, *flags: str, program: tuple[str, ...] = ("-m", "runtime.engine")) -> None:
        self.program = program
        self.state = state
        self.socket = state / "engine.sock"
        self.flags = flags
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self.short = hashlib.sha256(os.path.realpath(state).encode()).hexdigest()[:8]

    @property
    def containers(self) -> Path:
        return self.state / "engine" / "containers"

    def start(self) -> None:
        command = [*self.program, "--state", str(self.state), "--subnet-pool", POOL, *self.flags]
        path = self.state / "engine.log"
        if IN_GUEST:
            self.process = warm().fork(command, path)
        else:
            with path.open("ab") as log:
                command = [sys.executable, *command]
                self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        eventually(self._answers, f"the engine; its log:\n{self.log()}")

    def log(self) -> str:
        path = self.state / "engine.log"
        return path.read_text()[-4000:] if path.exists() else ""

    def _answers(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            pytest.fail(f"the engine ended:\n{self.log()}")
        try:
            return self.call("GET", "/_ping")[0] == 200
        except OSError:
            return False

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.wait(PATIENCE_S)
            self.process = None

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = UnixConnection(self.socket)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        try:
            return answer.status, json.loads(raw)
        except ValueError:
            return answer.status, raw

    def docker(self, *arguments: str, cli: str = "docker", data: bytes | None = None, code: int | None = 0) -> str:
        """Run the command line; its output, both streams. Fails unless it exits with `code` (None: any)."""
        done = subprocess.run(
            [cli, "-H", f"unix://{self.socket}", *arguments],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S * 3,
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        assert code is None or done.returncode == code, f"docker {arguments}: {done.returncode}\n{text}\n{self.log()}"
        return text

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.docker("inspect", name))[0]
        return found

    def status(self, name: str) -> str:
        code, body = self.call("GET", f"/containers/{name}/json")
        return body["State"]["Status"] if code == 200 else "gone"

    def monitor(self, name: str) -> int:
        identity = self.inspect(name)["Id"]
        pid: int = json.loads((self.containers / identity / "state.json").read_text())["monitor"]["pid"]
        return pid

    def clear(self) -> None:
        """Remove every container."""
        for row in self.call("GET", "/containers/json?all=1")[1]:
            self.call("DELETE", f"/containers/{row['Id']}?force=1")

    def left_over(self) -> dict[str, list[str]]:
        """What the engine that runs finds left over: what the doctor does, without the start of a process."""
        code, found = self.call("GET", "/moorage/leftovers")
        assert code == 200, found
        return {kind: names for kind, names in found.items() if names}

    def leftovers(self) -> dict[str, list[str]]:
        """What the doctor finds."""
        command = [sys.executable, "-m", "runtime.engine.doctor", "--state", str(self.state), "--json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S * 3)
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, list[str]] = json.loads(done.stdout)
        assert done.returncode == int(any(found.values()))
        return {kind: names for kind, names in found.items() if names}


@pytest.fixture(scope="session")
def archive() -> bytes:
    """The busybox image."""
    return busybox_archive()


@pytest.fixture(scope="module")
def engine(archive: bytes) -> Iterator[Engine]:
    """An engine with busybox; at the module's end everything is taken down and nothing may be left over."""
    assert os.geteuid() == 0, "these tests need root"
    with running(archive, Path(tempfile.mkdtemp(prefix="moorage-test-", dir=SCRATCH))) as engine:
        yield engine


@contextmanager
def running(
    archive: bytes, state: Path, *flags: str, program: tuple[str, ...] = ("-m", "runtime.engine")
) -> Iterator[Engine]:
    """An engine with busybox in `state`, which goes with it. `program` is what its interpreter is told to run."""
    engine = Engine(state, "--max-disk", str(1 << 30), *flags, program=program)
    engine.start()
    try:
        code, body = engine.call("POST", "/images/load?quiet=1", archive)
        assert code == 200, body
        yield engine
        code, body = engine.call("POST", "/moorage/shutdown?remove=containers")
        assert code == 200 and not any(body["leftovers"].values()), body
        assert engine.process
        assert engine.process.wait(PATIENCE_S) == 0
        assert engine.leftovers() == {}
        links = [p.name for p in Path("/sys/class/net").iterdir() if p.name.startswith(f"m{engine.short[:4]}")]
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        assert links == [] and engine.short not in tables
    finally:
        if engine.process and engine.process.poll() is None:
            engine.process.kill()
            engine.process.wait()
        shutil.rmtree(state, ignore_errors=True)
        shutil.rmtree(Path("/run/moorage") / engine.short, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_containers_stay(engine: Engine) -> Iterator[None]:
    """Each test begins and ends without containers, and the kernel holds nothing of those that were."""
    yield
    engine.clear()
    with suppress(pytest.fail.Exception):
        eventually(lambda: not engine.left_over(), "the end of what the kernel takes away in its own time", LINGERS_S)
    assert engine.left_over() == {}


def disk_rates(engine: Engine, name: str) -> dict[str, dict[str, int]]:
    """What the kernel holds a container to, by device and Moorage's names of the four rates."""
    group = f"moorage-{engine.short}/default/{engine.inspect(name)['Id']}"
    names = {
        "read_bps": "DiskReadBps",
        "write_bps": "DiskWriteBps",
        "read_iops": "DiskReadIOps",
        "write_iops": "DiskWriteIOps",
    }
    found: dict[str, dict[str, int]] = {}
    if engine.call("GET", "/info")[1]["CgroupVersion"] == "2":
        for line in Path("/sys/fs/cgroup", group, "io.max").read_text().splitlines():
            device, *pairs = line.split()
            values = dict(pair.split("=") for pair in pairs)
            found[device] = {
                names[f"{way}_{unit}"]: int(values[f"{way[0]}{unit}"])
                for unit in ("bps", "iops")
                for way in ("read", "write")
            }
        return found
    for key, rate in names.items():
        for line in Path("/sys/fs/cgroup/blkio", group, f"blkio.throttle.{key}_device").read_text().splitlines():
            device, value = line.split()
            found.setdefault(device, {})[rate] = int(value)
    return found


@cache
def version_of(program: str) -> str:
    """What a docker command line says it is, like 20.10.24+dfsg1."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    return said.removeprefix("Docker version ").partition(",")[0]


OLDER = pytest.mark.host_only(
    "what an older command line asks for does not depend on cgroups, and calling it is slow there"
)


@pytest.fixture(params=["28", pytest.param("20.10", marks=OLDER)])
def cli(request: pytest.FixtureRequest) -> str:
    """Each test by both command lines, which really are of these versions."""
    program = "docker" if request.param == "28" else str(request.getfixturevalue("docker_20"))
    assert version_of(program).startswith(f"{request.param}.")
    return program


@pytest.fixture(scope="session")
def docker_20() -> Iterator[str]:
    """Debian's docker.io command line (20.10 on Debian 12), taken out of its package without installing its daemon."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-docker-", dir=SCRATCH))
    folder.chmod(0o755)
    subprocess.run(["apt-get", "download", "docker.io"], cwd=folder, check=True, capture_output=True, timeout=300)
    package = next(folder.glob("docker.io_*.deb"))
    subprocess.run(["dpkg", "-x", str(package), str(folder / "x")], check=True, timeout=100)
    yield str(folder / "x" / "usr" / "bin" / "docker")
    shutil.rmtree(folder)
