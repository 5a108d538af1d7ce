"""Carries steps out, one job for each instance: coroutines that read as a paragraph, blocking calls in a thread pool."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from worker import difference as d
from worker.book import Book
from worker.engine import Engine
from worker.errors import EngineFault
from worker.health import wait_healthy
from worker.protocol import DesiredInstance
from worker.sentences import ending, no_answer

log = logging.getLogger(__name__)

DRAIN_LOOK_S = 0.1  # HAProxy tells of ended sessions by nothing but its counters
RESTART_IDLE_S = 5  # the only instance of an app stays in the route while it restarts: its requests never end
REFUSED = "New limits were refused: "
RUNNING_STATES = ("running", "paused")


class Abandoned(Exception):
    """The job is not wanted any more; not an error."""


@dataclass(eq=False, slots=True)
class Job:
    """Steps under way for one instance."""

    steps: list[d.Step]
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # its container has exited
    unwanted: bool = False
    took_ms: dict[str, int] = field(default_factory=dict)  # by phase: pull, create, start, check
    task: asyncio.Task[None] | None = None

    def abandon(self) -> None:
        """Let it end at its next step: what it has made so far, the next convergence removes."""
        self.unwanted = True
        self.ended.set()

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Note how long a phase took."""
        begun = time.monotonic()
        yield
        self.took_ms[f"{phase}_ms"] = round((time.monotonic() - begun) * 1000)

    def go_on(self) -> None:
        """Raise Abandoned when nobody wants it any more."""
        if self.unwanted:
            raise Abandoned


class Hands:
    """All jobs of one host. Everything here runs in the event loop's thread."""

    def __init__(
        self,
        engine: Engine,
        book: Book,
        sessions: Callable[[str], Awaitable[int]],
        reroute: Callable[[], Awaitable[None]],
    ) -> None:
        """`sessions(id)`: requests the ingress has with it; `reroute()`: make the route follow the book now."""
        self._engine, self._book = engine, book
        self._sessions, self._reroute = sessions, reroute
        self._quick = ThreadPoolExecutor(8, "engine")
        self._slow = ThreadPoolExecutor(32, "engine-slow")  # pulls, and stops that wait out their grace
        self._app_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.jobs: dict[str, Job] = {}
        self.applied: dict[str, d.Change] = {}
        self.restarted: dict[str, int] = {}
        self.keep_restarts: Callable[[dict[str, int]], None] = lambda _: None  # writes them down, for the next worker

    def begin(self, name: str, steps: list[d.Step], done: Callable[[str], None]) -> None:
        """Start a job; `done(name)` is called when it is over, whatever came of it."""
        job = Job(steps)
        self.jobs[name] = job
        job.task = asyncio.create_task(self._run(name, job))

        def over(ended: asyncio.Task[None]) -> None:
            del self.jobs[name]
            if not ended.cancelled() and (bug := ended.exception()):
                log.error("the job of %s has failed", name, exc_info=bug)
                self._book.set(
                    name, "failed", reason=f"The host worker could not do it: {type(bug).__name__}. Its log says more."
                )
            done(name)

        job.task.add_done_callback(over)

    async def _run(self, name: str, job: Job) -> None:
        try:
            for step in job.steps:
                job.go_on()
                await self._carry_out(step, job)
        except Abandoned:
            log.info("%s is not wanted any more", name)
        except EngineFault as error:
            log.warning("%s: %s", name, error)
            self._book.set(name, "failed", reason=str(error))

    async def _carry_out(self, step: d.Step, job: Job) -> None:
        match step:
            case d.BringUp(instance):
                await self._bring_up(instance, job)
            case d.Start(instance):
                await self._start(instance, job)
            case d.Check(instance):
                await self._check(instance, job)
            case d.Update(instance):
                await self._update(instance)
            case d.Restart(instance):
                await self._restart(instance, job)
            case d.Drain(instance):
                await self._drain(instance)
            case d.Stop(instance):
                await self.slow(self._engine.stop, instance.id, instance.grace_s)
                self._book.set(instance.id, "stopped")
            case d.Remove(container, grace_s):
                await self._remove(container.name, grace_s)

    async def _bring_up(self, wanted: DesiredInstance, job: Job) -> None:
        if not await self.quick(self._engine.has_image, wanted):
            self._book.set(wanted.id, "pulling")
            with job.timed("pull"):
                await self._pull(wanted, job)
        job.go_on()
        self._book.set(wanted.id, "creating")
        with job.timed("create"):
            container = await self.quick(self._engine.create, wanted)
        self._book.set(wanted.id, "creating", container_id=container)
        self.applied[wanted.id] = (wanted.limits, False)
        job.go_on()
        if any(volume.exclusive for volume in wanted.volumes):
            holder = d.waits_for(wanted, d.writers(await self.quick(self._engine.containers)))
            if holder:  # its end starts the next comparison, which starts this one
                self._book.set(
                    wanted.id, "creating", container_id=container, reason=f"Waits until {holder} has stopped."
                )
                return
        await self._start(wanted, job)

    async def _pull(self, wanted: DesiredInstance, job: Job) -> None:
        loop, told = asyncio.get_running_loop(), 0.0

        def progress(count: int) -> None:
            nonlocal told
            job.go_on()
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                loop.call_soon_threadsafe(lambda: self._book.set(wanted.id, "pulling", detail={"pulled_bytes": count}))

        await self.slow(self._engine.pull, wanted, progress)

    async def _start(self, wanted: DesiredInstance, job: Job) -> None:
        self._book.set(wanted.id, "starting")
        job.ended.clear()
        job.go_on()
        with job.timed("start"):
            await self.quick(self._engine.start, wanted.id)
        await self._check(wanted, job)

    async def _check(self, wanted: DesiredInstance, job: Job) -> None:
        seen = await self.quick(self._engine.inspect, wanted.id)
        found = {"container_id": seen.id, "address": seen.address, "port": wanted.port, "restarts": seen.restarts}
        self._book.set(wanted.id, "checking", **found)
        trouble = "ended"
        if seen.status in RUNNING_STATES:
            with job.timed("check"):
                trouble = await wait_healthy(seen.address, wanted.port, wanted.health, job.ended)
        job.go_on()
        if not trouble:
            self._book.set(wanted.id, "healthy", exit_code=None, oom_killed=False, detail=dict(job.took_ms))
        elif trouble == "ended":
            await self.note_end(wanted)
        else:
            reason = no_answer(wanted.port, wanted.health, trouble)
            self._book.set(wanted.id, "failed", reason=reason, last_log=await self._last_log(wanted.id))

    async def note_end(self, wanted: DesiredInstance) -> None:
        """Write down how its container ended, with the last lines it wrote."""
        seen = await self.quick(self._engine.inspect, wanted.id)
        self._book.set(
            wanted.id,
            "exited",
            reason=ending(wanted, seen),
            exit_code=seen.exit_code,
            oom_killed=seen.oom_killed,
            restarts=seen.restarts,
            last_log=await self._last_log(wanted.id),
        )

    async def _update(self, wanted: DesiredInstance) -> None:
        """What is refused (memory below what is in use, on v1) stays to be done, and is tried again with every comparison."""
        refusal = ""
        try:
            await self.quick(self._engine.update, wanted)
        except EngineFault as error:
            refusal = f"{REFUSED}{error}"
        else:
            self.applied[wanted.id] = (wanted.limits, wanted.restart)
        known = self._book.get(wanted.id)
        if known and known.reason != refusal and (refusal or known.reason.startswith(REFUSED)):
            log.warning("%s: %s", wanted.id, refusal or "has its new limits now")
            self._book.set(wanted.id, known.state, reason=refusal)

    async def _restart(self, wanted: DesiredInstance, job: Job) -> None:
        async with self._app_locks[wanted.app]:  # one instance of an app after the other
            job.go_on()
            self._book.set(wanted.id, "starting")
            await self._reroute()
            await self._idle(wanted, min(wanted.grace_s, RESTART_IDLE_S))
            await self.slow(self._engine.stop, wanted.id, wanted.grace_s)
            self.restarted[wanted.id] = wanted.restart_generation
            await asyncio.to_thread(self.keep_restarts, dict(self.restarted))
            await self._start(wanted, job)

    async def _drain(self, wanted: DesiredInstance) -> None:
        self._book.set(wanted.id, "draining")
        await self._reroute()
        await self._idle(wanted, wanted.grace_s)
        await self._remove(wanted.id, wanted.grace_s)

    async def _idle(self, wanted: DesiredInstance, longest_s: float) -> None:
        """Wait until the ingress has no request with it, at most `longest_s`."""
        deadline = time.monotonic() + longest_s
        while time.monotonic() < deadline and await self._sessions(wanted.id):  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_LOOK_S)

    async def _remove(self, name: str, grace_s: int) -> None:
        await self.slow(self._engine.stop, name, grace_s)
        await self.quick(self._engine.remove, name)
        self.applied.pop(name, None)
        self.restarted.pop(name, None)
        self._book.forget(name)

    async def _last_log(self, name: str) -> tuple[str, ...]:
        try:
            return await self.quick(self._engine.last_log, name)
        except EngineFault as error:
            return (f"The log cannot be read: {error.message}",)

    async def quick[**P, R](self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A blocking call of milliseconds in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, partial(call, *args, **kwargs))

    async def slow[**P, R](self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A blocking call that may take a minute, in a thread of its own kind."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, partial(call, *args, **kwargs))
