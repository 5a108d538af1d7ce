"""`python -m worker.agent`: a host's eyes. Ships log lines and counters to Redis and limits that were hit to the portal.

It knows no app's configuration and changes nothing; when it dies, the live view pauses and then goes on where it was.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from worker.config import WorkerConfig, config
from worker.engine_http import EngineHttp
from worker.errors import ConfigFault, EngineFault, PortalFault
from worker.live import Live
from worker.metrics import limit_hit, samples
from worker.portal import Portal
from worker.protocol import LABEL_APP, LimitHit
from worker.shipping import Shipper

log = logging.getLogger(__name__)

SAMPLE_S = 2.0
RETRY_S = 1.0
HITS_KEPT = 1000


class Agent:
    """One host's agent."""

    def __init__(self, c: WorkerConfig) -> None:
        self._engine = EngineHttp(c.engine_socket)
        self._portal = Portal(c)
        self._live = Live(c.redis_url)
        self._shipper = Shipper(self._live)
        self._hits: deque[LimitHit] = deque(maxlen=HITS_KEPT)
        self._hit = asyncio.Event()
        self._away: set[str] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for work in (self._shipper.run(), self._follow_events(), self._sample(), self._tell_hits()):
                group.create_task(work)

    async def _follow_events(self) -> None:
        """Containers as they come and go, and limits that are hit; a lost stream is taken up again with a look at everything."""
        while True:
            try:
                await self._look()
                wanted = ["create", "start", "rename", "destroy", "limit"]
                async for event in self._engine.events(type=["container", "moorage"], event=wanted):
                    await self._happened(event)
            except EngineFault as error:
                self._say("engine", error)
            except RedisError as error:
                self._say("redis", error)
            await asyncio.sleep(RETRY_S)

    async def _look(self) -> None:
        found = await self._engine.json("/moorage/log-paths")
        self._say("engine", None)
        logs = {row["name"]: Path(row["path"]) for row in found.values() if LABEL_APP in row["labels"]}
        for gone in self._shipper.instances - logs.keys():
            await self._forget(gone)
        for name, folder in logs.items():
            self._shipper.follow(name, folder)

    async def _happened(self, event: dict[str, Any]) -> None:
        if event["Action"] == "limit":
            hit = limit_hit(event)
            if hit:
                self._hits.append(hit)
                self._hit.set()
        elif event["Action"] == "destroy":
            await self._forget(event["Actor"]["Attributes"].get("name", ""))
        else:
            await self._look()

    async def _forget(self, instance: str) -> None:
        self._shipper.forget(instance)
        await self._live.forget([instance])

    async def _sample(self) -> None:
        while True:
            try:
                found = samples(await self._engine.json("/moorage/stats"))
                if found:
                    await self._live.add_samples(found)
                await self._live.trim()
                self._say("redis", None)
            except EngineFault as error:
                self._say("engine", error)
            except RedisError as error:
                self._say("redis", error)
            await asyncio.sleep(SAMPLE_S)

    async def _tell_hits(self) -> None:
        while True:
            await self._hit.wait()
            self._hit.clear()
            while self._hits:
                hits = list(self._hits)
                self._hits.clear()
                try:
                    await asyncio.to_thread(self._portal.limit_hits, hits)
                except PortalFault as error:
                    self._say("portal", error)
                    self._hits.extendleft(reversed(hits))
                    await asyncio.sleep(RETRY_S)
                    continue
                self._say("portal", None)

    def _say(self, whom: str, error: Exception | None) -> None:
        if error and whom not in self._away:
            self._away.add(whom)
            log.warning("%s", error)
        elif not error and whom in self._away:
            self._away.remove(whom)
            log.info("%s answers again", whom)


async def serve(c: WorkerConfig) -> None:
    """Run until SIGTERM or SIGINT."""
    agent = asyncio.create_task(Agent(c).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.cancel)
    try:
        await agent
    except asyncio.CancelledError:
        log.info("ended")


def main() -> int:
    """The process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        c = config()
    except ConfigFault as error:
        print(error, file=sys.stderr)
        return 1
    gc.freeze()
    asyncio.run(serve(c))
    return 0


if __name__ == "__main__":
    sys.exit(main())
