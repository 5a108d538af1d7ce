"""The agent as a process beside the real engine and a real Valkey."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest
from redis import Redis

from tests.root.worker.conftest import ROOT, Rig
from tests.worker.redis_server import OwnValkey, own_valkey
from worker.protocol import HealthCheck, Limits, MetricSample, log_stream, metric_stream

pytestmark = pytest.mark.root


class Agent:
    """`python -m worker.agent` for a rig."""

    def __init__(self, rig: Rig, valkey: OwnValkey) -> None:
        c = rig.config
        self.valkey = valkey
        self._environment = os.environ | {
            "MOORAGE_STATE": str(c.state), "MOORAGE_RUN": str(c.run), "MOORAGE_REDIS_URL": valkey.url,
            "MOORAGE_PORTAL_URL": c.portal_url, "MOORAGE_HOST_TOKEN_FILE": str(c.token_file),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "worker.agent"], cwd=ROOT, env=self._environment)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def lines(self, instance: str) -> list[tuple[str, str, str]]:
        rows = Redis.from_url(self.valkey.url).xrange(log_stream(instance))
        return [tuple(line) for _, fields in rows for line in msgpack.unpackb(fields[b"l"])]

    def pss_mb(self) -> float:
        assert self.process
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:"))) / 1024


@pytest.fixture
def agent(rig: Rig) -> Iterator[Agent]:
    with own_valkey(rig.config.run) as valkey:
        found = Agent(rig, valkey)
        found.start()
        try:
            yield found
        finally:
            found.kill()


def eventually[T](what: Callable[[], T], timeout_s: float = 15) -> T:
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.02)
    return found


def up(rig: Rig, **fields: object) -> str:
    instance = rig.instance(**fields)
    rig.portal.want(instance)
    rig.worker.hint()
    rig.portal.wait_state(instance.id, "healthy")
    return instance.id


def test_what_an_app_prints_is_in_its_stream_and_survives_a_kill_of_the_agent(rig: Rig, agent: Agent) -> None:
    script = "n=0; nc -lk -p $PORT -e true & while [ $n -lt 400 ]; do n=$((n+1)); echo line $n; sleep 0.01; done; echo done; sleep 60"
    name = up(rig, command=("sh", "-c", script), entrypoint=(), health=HealthCheck(kind="none"))
    eventually(lambda: len(agent.lines(name)) > 50)
    agent.kill()
    time.sleep(0.3)
    agent.start()
    eventually(lambda: any(text == "done" for _, _, text in agent.lines(name)))
    lines = agent.lines(name)
    texts = [text for _, tag, text in lines if tag == "o" and text.startswith("line ")]
    assert texts == [f"line {n}" for n in range(1, 401)]
    assert len({i for i, _, _ in lines}) == len(lines)


def test_counters_arrive_every_two_seconds_and_the_agent_stays_small(rig: Rig, agent: Agent) -> None:
    name = up(rig)
    client = Redis.from_url(agent.valkey.url)
    eventually(lambda: client.xlen(metric_stream(name)) >= 3)
    found = [MetricSample.unpack(f[b"s"]) for _, f in client.xrange(metric_stream(name))]
    assert found[-1].memory_limit_bytes == 64 << 20
    assert found[-1].cpu_limit_millicores == 500
    assert 0 < found[-1].memory_bytes < 64 << 20
    assert found[-1].cpu_ns >= found[0].cpu_ns
    assert 1.5 < found[-1].at - found[-2].at < 3.5
    print(f"agent: {agent.pss_mb():.1f} MB PSS")
    assert agent.pss_mb() < 45


def test_a_limit_that_is_hit_reaches_the_portal_with_its_sentence(rig: Rig, agent: Agent) -> None:
    name = up(rig, limits=Limits(memory_bytes=32 << 20, pids=64))
    eventually(lambda: Redis.from_url(agent.valkey.url).xlen(metric_stream(name)))
    rig.ingress.gateway.apply([])
    api = rig.engine.client()
    made = api.exec_create(name, ["sh", "-c", "x=a; while :; do x=$x$x; done"])
    api.exec_start(made["Id"])
    hit = eventually(lambda: [h for h in rig.portal.hits if h["limit"] == "memory"])[0]
    assert hit["instance"] == name
    assert "32 MB of 32 MB" in hit["sentence"]


def test_a_removed_instance_leaves_streams_that_end_by_themselves(rig: Rig, agent: Agent) -> None:
    name = up(rig)
    client = Redis.from_url(agent.valkey.url)
    eventually(lambda: client.exists(metric_stream(name)))
    rig.portal.want()
    rig.worker.hint()
    rig.portal.wait_absent(name)
    eventually(lambda: client.ttl(metric_stream(name)) > 0)
