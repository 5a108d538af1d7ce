"""A whole host for these tests: a real engine, a real HAProxy, the convergence, and a small real portal with a registry."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.worker.haproxy import PORTS, Host
from tests.worker.platform import PULL_TOKEN, TOKEN, SmallPortal, small_portal
from worker.config import WorkerConfig, load
from worker.converge import Converger
from worker.engine import Engine
from worker.ingress import gateway
from worker.portal import Portal
from worker.protocol import DesiredInstance, HealthCheck, ImageRef, Limits

ROOT = Path(__file__).resolve().parents[3]
POOL = "10.233.0.0/16"


class RealEngine:
    """The engine of this repository in a folder of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "runtime.engine", "--state", str(self.state), "--subnet-pool", POOL]
        with (self.state / "engine.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log)
        deadline = time.monotonic() + 15
        while True:
            try:
                self.client().ping()
                return
            except (docker.errors.DockerException, OSError):
                assert self.process.poll() is None, (self.state / "engine.log").read_text()
                assert time.monotonic() < deadline, "the engine did not come up"
                time.sleep(0.02)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> docker.APIClient:
        return docker.APIClient(base_url=f"unix://{self.state}/engine.sock", version="1.44", timeout=30)

    def end(self) -> dict[str, int]:
        """Remove everything and end it; what it says is left over."""
        if self.process is None:
            self.start()
        api = self.client()
        answer = api.post(f"{api.base_url}/moorage/shutdown?remove=containers", timeout=60)
        assert self.process
        self.process.wait(30)
        return dict(answer.json()["leftovers"])


class Worker:
    """The convergence in a thread, as the Celery worker runs it; may be ended and begun again."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self._loop: asyncio.AbstractEventLoop | None = None
        self.converger: Converger | None = None

    def start(self) -> None:
        started = threading.Event()

        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            c = self.config
            self.converger = Converger(c, Engine(c.engine_socket), Portal(c), gateway(c))
            self._task = asyncio.ensure_future(self.converger.run())
            self._loop.call_soon(started.set)
            await asyncio.wait((self._task,))

        self._thread = threading.Thread(target=lambda: asyncio.run(run()))
        self._thread.start()
        assert started.wait(10)

    def hint(self) -> None:
        assert self.converger
        self.converger.hint()

    def stop(self) -> None:
        if self._loop:
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(30)
            self._loop = None


class Rig:
    """All of it, and short words for tests."""

    def __init__(self, folder: Path, portal: SmallPortal, engine: RealEngine, digest: str) -> None:
        port = next(PORTS)
        run = folder / "run"
        run.mkdir()
        token = folder / "token"
        token.write_text(TOKEN)
        environment = {
            "MOORAGE_STATE": str(engine.state), "MOORAGE_RUN": str(run), "MOORAGE_PORT": str(port),
            "MOORAGE_PORTAL_URL": f"http://127.0.0.1:{portal.port}", "MOORAGE_HOST_TOKEN_FILE": str(token),
            "MOORAGE_REGISTRY": f"127.0.0.1:{portal.port}",
        }  # fmt: skip
        self.config = load(environment)
        self.portal, self.engine, self.digest = portal, engine, digest
        self.ingress = Host(self.config)
        self.worker = Worker(self.config)
        self.serial = 0

    def instance(self, name: str = "", **fields: object) -> DesiredInstance:
        """A new instance of the demo app, under a small plan."""
        self.serial += 1
        base: dict[str, object] = {
            "id": name or f"hello-{self.serial}", "app": "hello", "team": "acme", "release": self.serial, "process": "web", "ordinal": 1,
            "image": ImageRef(repository=f"127.0.0.1:{self.portal.port}/acme/hello", digest=self.digest, pull_token=PULL_TOKEN),
            "health": HealthCheck(kind="http", path="/health"), "grace_s": 1,
            "limits": Limits(cpu_millicores=500, memory_bytes=64 << 20, pids=64, disk_bytes=64 << 20, log_bytes=1 << 20),
        }  # fmt: skip
        return DesiredInstance(**(base | fields))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def demo_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("demo") / "demo.tar"
    subprocess.run(
        [sys.executable, "-m", "scripts.demo_image", "--output", str(archive)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return archive


@pytest.fixture
def rig(demo_archive: Path) -> Iterator[Rig]:
    """A fresh host; at its end nothing may be left of it."""
    assert os.geteuid() == 0, "these tests need root: they make real containers"
    folder = Path(tempfile.mkdtemp(prefix="mw-", dir="/var/tmp"))
    engine = RealEngine(folder / "s")
    engine.state.mkdir()
    try:
        with small_portal() as portal:
            digest = portal.load(demo_archive)
            engine.start()
            found = Rig(folder, portal, engine, digest)
            found.ingress.gateway.write()
            found.ingress.start()
            try:
                found.worker.start()
                yield found
            finally:
                found.worker.stop()
                found.ingress.stop()
        assert {k: v for k, v in engine.end().items() if v} == {}
    finally:
        engine.kill()
        print((engine.state / "engine.log").read_text()[-6000:])  # shown with a failure
        shutil.rmtree(folder, ignore_errors=True)
