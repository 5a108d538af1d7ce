"""The worker as `make up` starts it: a Celery process that hears hints, and converges without its broker too."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from tests.root.worker.conftest import ROOT, Rig
from tests.worker.redis_server import OwnValkey
from worker.protocol import TASK_CONVERGE, host_queue

pytestmark = pytest.mark.root


class Process:
    """`celery -A worker.app worker …` for a rig whose own convergence is stopped."""

    def __init__(self, rig: Rig, valkey: OwnValkey) -> None:
        c = rig.config
        self.rig, self.valkey = rig, valkey
        self._environment = os.environ | {
            "MOORAGE_STATE": str(c.state), "MOORAGE_RUN": str(c.run), "MOORAGE_PORT": str(c.port), "MOORAGE_REDIS_URL": valkey.url,
            "MOORAGE_PORTAL_URL": c.portal_url, "MOORAGE_HOST_TOKEN_FILE": str(c.token_file), "MOORAGE_REGISTRY": c.registry,
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "worker.app",
            "worker",
            "-Q",
            "host.local",
            "-P",
            "threads",
            "-c",
            "2",
        ]
        command += ["-n", "host@local", "-l", "info", "--without-gossip", "--without-mingle"]
        with (self.rig.config.run / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)

    def end(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(20)

    def hint(self) -> None:
        """As the portal sends it."""
        client = Celery(broker=self.valkey.url.replace("unix://", "redis+socket://"))
        client.send_task(TASK_CONVERGE, queue=host_queue("local"))

    def pss_mb(self) -> float:
        assert self.process
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:"))) / 1024


@pytest.fixture
def process(rig: Rig) -> Iterator[Process]:
    rig.worker.stop()
    with tempfile.TemporaryDirectory(prefix="mw-", dir="/tmp") as folder:
        valkey = OwnValkey(Path(folder))
        found = Process(rig, valkey)
        try:
            yield found
        finally:
            found.end()
            valkey.kill()


def test_a_hint_through_the_queue_converges_within_a_moment_and_the_process_stays_small(process: Process) -> None:
    rig = process.rig
    process.valkey.start()
    process.start()
    rig.portal.wait(lambda r: r.complete)
    instance = rig.instance()
    rig.portal.want(instance)
    process.hint()
    rig.portal.wait_state(instance.id, "healthy")
    second = rig.instance()
    rig.portal.want(instance, second)
    begun = time.monotonic()
    process.hint()
    rig.portal.wait_state(second.id, "healthy")
    took = time.monotonic() - begun
    print(f"hint to healthy {took:.3f} s, image on the host; {process.pss_mb():.1f} MB PSS")
    assert took < 5
    assert process.pss_mb() < 65


def test_without_its_broker_the_worker_converges_all_the_same(process: Process) -> None:
    rig = process.rig
    instance = rig.instance()
    rig.portal.want(instance)
    process.start()
    rig.portal.wait_state(instance.id, "healthy")
    assert not process.valkey.path.exists()
