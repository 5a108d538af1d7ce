"""Makes this host what it should be: fetch, compare, begin, route, report, and again as soon as something is new.

One event loop in one thread. A round is short: slow work (pulls, checks, drains) runs as jobs beside it, and each job's end
starts the next round. Hints that come during a round cause exactly one more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from worker import difference as d
from worker.book import JUDGED, Book
from worker.config import WorkerConfig
from worker.container import Container
from worker.engine import Engine
from worker.engine_http import EngineHttp
from worker.errors import EngineFault, IngressFault, PortalFault, WorkerFault
from worker.facts import host_facts
from worker.hands import RUNNING_STATES, Hands
from worker.health import Watch
from worker.ingress import Gateway
from worker.ingress_table import AppRoute
from worker.memory import Memory
from worker.portal import Portal
from worker.protocol import Desired, DesiredInstance, GroupLimits, HostFacts, Limits, Observed, Report
from worker.prune import prune
from worker.routes import app_routes
from worker.volume_tasks import VolumeTasks
from worker.volumes import HostVolumes

log = logging.getLogger(__name__)

TICK_S = 15.0
PASSING_S = 0.15  # a passing state (pulling, starting) is reported when it lasts longer than this
RETRY_INGRESS_S = 0.3
RETRY_ENGINE_S = 0.5
RETRY_PORTAL_S = 1.0


class Converger:
    """One host's convergence. `run()` lives in one event loop; `hint()` may be called from any thread."""

    def __init__(self, config: WorkerConfig, engine: Engine, portal: Portal, gateway: Gateway) -> None:
        self._config, self._engine, self._portal, self._gateway = config, engine, portal, gateway
        self._memory = Memory(config.memory)
        self._book = Book(self._changed)
        self._hands = Hands(engine, self._book, self._sessions, self._route)
        self._hands.restarted = self._memory.restarts()
        self._hands.keep_restarts = self._memory.keep_restarts
        self._watch = Watch(self._told)
        self._volumes = HostVolumes(engine)
        self._tasks = VolumeTasks(config)
        self._desired: Desired | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._hinted = self._dirty = self._news = True
        self._complete = False
        self._groups: dict[str, Limits] = {}
        self._routed: list[AppRoute] | None = None
        self._route_generation = 0
        self._route_lock = asyncio.Lock()
        self._facts: HostFacts | None = None
        self._trouble: set[str] = set()
        self._died: set[str] = set()
        self.last_round = time.monotonic()
        self._pruned = time.monotonic()
        self._pruning: asyncio.Task[None] | None = None

    def hint(self) -> None:
        """Something may be new: fetch and converge soon."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self._hinted = True
        self._wake.set()

    async def run(self) -> None:
        """Converge for ever."""
        self._loop = asyncio.get_running_loop()
        self._desired = await asyncio.to_thread(self._memory.desired)
        events = asyncio.create_task(self._follow_events())
        try:
            while True:
                await self._round()
                self.last_round = time.monotonic()
                self._prune_sometimes()
                try:
                    await asyncio.wait_for(self._wake.wait(), TICK_S)
                except TimeoutError:
                    self._hinted = self._dirty = self._news = True
                    self._routed = None  # look at HAProxy itself again
                    self._facts = None
                    self._volumes.look_again()
        finally:
            events.cancel()

    async def _round(self) -> None:
        self._wake.clear()
        if self._hinted:
            self._hinted = False
            if await self._fetch():
                self._dirty = True
        if self._dirty:
            await self._apply()
        while self._news:
            await self._route()  # what is new may belong into the route, or out of it
            if not await self._report():
                break
            await self._apply()

    async def _fetch(self) -> bool:
        try:
            found = await asyncio.to_thread(self._portal.desired, self._desired.generation if self._desired else "")
        except PortalFault as error:
            return self._say("portal", error)
        self._say("portal", None)
        return await self._take(found)

    async def _take(self, found: Desired | None) -> bool:
        if found is None:
            return False
        self._desired = found
        await asyncio.to_thread(self._memory.keep_desired, found)
        return True

    async def _apply(self) -> None:
        """One comparison: routes first, then jobs for what differs."""
        self._dirty = False
        desired = self._desired
        if desired is None:
            return
        try:
            containers = {c.name: c for c in await self._hands.quick(self._engine.containers)}
        except EngineFault as error:
            self._complete, self._dirty, self._news = self._say("engine", error), True, True
            asyncio.get_running_loop().call_later(RETRY_ENGINE_S, self._wake.set)
            return
        self._news = self._news or not self._complete
        self._complete = not self._say("engine", None)
        for instance in desired.instances:
            await self._observe(instance, containers.get(instance.id))
        self._book.keep({i.id for i in desired.instances} | containers.keys() | self._hands.jobs.keys())
        await self._route()
        await self._limit_groups(desired.groups)
        if await self._hands.quick(self._volumes.settle, desired.volumes):
            self._news = True
        self._begin(desired, containers)
        self._tasks.begin(desired.tasks, self.hint)
        self._watch_health(desired)

    async def _observe(self, wanted: DesiredInstance, container: Container | None) -> None:
        """Bring the book up to what the engine says, for an instance nobody is working on."""
        job = self._hands.jobs.get(wanted.id)
        if job:
            if container and container.state in ("exited", "dead") and self._book.state(wanted.id) == "checking":
                job.ended.set()  # its event was missed
            return
        state = self._book.state(wanted.id)
        if wanted.id in self._died:
            self._died.discard(wanted.id)
            state = "starting" if state in JUDGED else state
        if container is None:
            if state != "failed":
                self._book.forget(wanted.id)
        elif container.state in RUNNING_STATES:
            self._observe_running(wanted, container, state)
        elif container.state in ("exited", "dead", "restarting") and state not in ("exited", "failed", "stopped"):
            if wanted.wanted == "running":
                with contextlib.suppress(EngineFault):
                    await self._hands.note_end(wanted)
            else:
                self._book.set(wanted.id, "stopped", container_id=container.id)

    def _observe_running(self, wanted: DesiredInstance, container: Container, state: Observed) -> None:
        found: dict[str, Any] = {"container_id": container.id, "address": container.address, "port": wanted.port}
        if state == "absent" and wanted.restart:
            # This worker is new, the app was live: it serves until a check says otherwise.
            self._book.set(wanted.id, "healthy", **found)
        elif state in ("absent", "starting", "exited", "stopped") or (state == "failed" and wanted.restart):
            self._book.set(wanted.id, "starting", **found)
        elif state in JUDGED:
            self._book.set(wanted.id, state, **found)

    def _begin(self, desired: Desired, containers: dict[str, Container]) -> None:
        wanted = {i.id: i for i in desired.instances}
        for name, job in self._hands.jobs.items():
            instance = wanted.get(name)
            bringing_up = any(isinstance(s, d.BringUp | d.Start | d.Check | d.Restart) for s in job.steps)
            if bringing_up and (instance is None or instance.wanted != "running"):
                job.abandon()
        known = d.Known(
            busy=frozenset(self._hands.jobs),
            judged=self._book.judged(),
            gave_up=self._book.gave_up({i.id for i in desired.instances if i.restart}),
            applied=self._hands.applied,
            restarted=self._hands.restarted,
        )
        by_name: dict[str, list[d.Step]] = {}
        for step in d.difference(desired.instances, containers.values(), known):
            by_name.setdefault(d.name_of(step), []).append(step)
        for name, steps in by_name.items():
            self._hands.begin(name, steps, self._done)

    def _done(self, name: str) -> None:
        """A job is over. Usually it was all there was to do; when its instance is wanted otherwise by now, look again."""
        job_is_enough = self._book.state(name) == "healthy"
        instance = next((i for i in (self._desired.instances if self._desired else ()) if i.id == name), None)
        if instance and job_is_enough and instance.wanted == "running":
            applied = self._hands.applied.get(name) == (instance.limits, instance.restart)
            if applied:
                self._watch_health(self._desired)
                return
        self._dirty = True
        self._wake.set()

    def _watch_health(self, desired: Desired | None) -> None:
        live = {}
        for i in desired.instances if desired else ():
            known = self._book.get(i.id)
            if known and known.state in ("healthy", "unhealthy") and i.wanted == "running":
                live[i.id] = (known.address, known.port, i.health)
        self._watch.follow(live)

    def _told(self, name: str, trouble: str) -> None:
        state = self._book.state(name)
        if state == "healthy" and trouble:
            self._book.set(name, "unhealthy", reason=trouble)
        elif state == "unhealthy" and not trouble:
            self._book.set(name, "healthy")
        else:
            return
        self._dirty = True
        self._wake.set()

    async def _sessions(self, name: str) -> int:
        return await self._hands.quick(self._gateway.sessions, name)

    async def _route(self) -> None:
        """Make the ingress follow the book; the generation is echoed only once HAProxy has it."""
        async with self._route_lock:
            desired = self._desired
            if desired is None:
                return
            wanted = app_routes(desired.routes, self._book.get)
            if wanted != self._routed:
                try:
                    await self._hands.quick(self._gateway.apply, wanted)
                except (IngressFault, OSError) as error:
                    self._say("ingress", error)
                    self._retry_soon()
                    return
                self._say("ingress", None)
                self._routed = wanted
            if self._route_generation != desired.route_generation:
                self._route_generation = desired.route_generation
                self._news = True

    def _retry_soon(self) -> None:
        self._dirty = True
        asyncio.get_running_loop().call_later(RETRY_INGRESS_S, self._wake.set)

    async def _limit_groups(self, groups: tuple[GroupLimits, ...]) -> None:
        for group in groups:
            if self._groups.get(group.path) != group.limits:
                try:
                    await self._hands.quick(self._engine.set_group, group)
                except EngineFault as error:
                    log.warning("%s", error)
                self._groups[group.path] = group.limits

    def _changed(self, urgent: bool) -> None:
        self._news = True
        if urgent:
            self._wake.set()
        elif self._loop:
            self._loop.call_later(PASSING_S, self._wake.set)

    async def _report(self) -> bool:
        """Say what is; True when the answer brought a new desired state."""
        self._news = False
        if self._facts is None:
            with contextlib.suppress(EngineFault):
                self._facts = await self._hands.quick(host_facts, self._engine, self._config.state)
        report = Report(
            host=self._config.host,
            generation=self._desired.generation if self._desired else "",
            route_generation=self._route_generation,
            instances=self._book.observed(),
            complete=self._complete,
            facts=self._facts,
            volumes=self._volumes.observed,
        )
        await asyncio.to_thread(self._memory.keep_restarts, dict(self._hands.restarted))
        try:
            found = await asyncio.to_thread(self._portal.report, report)
        except PortalFault as error:
            self._news = True
            asyncio.get_running_loop().call_later(RETRY_PORTAL_S, self._wake.set)
            return self._say("portal", error)
        self._say("portal", None)
        return await self._take(found)

    def _prune_sometimes(self) -> None:
        """Every 15 s, however much there is to do, and beside it: let images go that this host no longer needs."""
        if self._desired is None or not self._complete or time.monotonic() - self._pruned < TICK_S:
            return
        self._pruned = time.monotonic()
        if self._pruning is None or self._pruning.done():
            self._pruning = asyncio.create_task(self._prune())

    def _needed(self) -> set[str]:
        return {instance.image.digest for instance in self._desired.instances} if self._desired else set()

    async def _prune(self) -> None:
        try:
            await asyncio.to_thread(prune, self._engine, self._memory, self._needed, self._config.state)
        except EngineFault as error:
            log.warning("%s", error)

    def _say(self, whom: str, error: Exception | None) -> bool:
        """Log a trouble once, and its end; False, for the caller's convenience."""
        if error and whom not in self._trouble:
            self._trouble.add(whom)
            log.warning("%s", error)
        elif not error and whom in self._trouble:
            self._trouble.remove(whom)
            log.info("The %s answers again.", whom)
        return False

    async def _follow_events(self) -> None:
        """Deaths and starts as they happen. A lost stream is taken up again, with a look at everything."""
        http = EngineHttp(self._config.engine_socket)
        while True:
            try:
                async for event in http.events(type=["container"], event=["die", "start", "destroy"]):
                    self._happened(event)
            except WorkerFault as error:
                log.debug("%s", error)
            await asyncio.sleep(1)
            self._dirty = True
            self._wake.set()

    def _happened(self, event: dict[str, Any]) -> None:
        name = event["Actor"]["Attributes"].get("name", "")
        job = self._hands.jobs.get(name)
        if event["Action"] == "die":
            if job:
                job.ended.set()
            else:
                self._died.add(name)
        if job:
            return
        self._dirty = True
        self._wake.set()
