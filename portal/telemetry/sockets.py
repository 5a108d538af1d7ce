"""The websockets of an app's page: log, metrics and what happens.

Close codes: 4400 a cursor that cannot be read, 4401 not signed in, 4403 the right is gone, 4404 no such app.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from portal.accounts.access import actor_of_headers, bearer_of
from portal.config import config
from portal.errors import PortalError
from portal.hosting.access import get_app
from portal.hosting.models import App
from portal.telemetry import instances, live_state
from portal.telemetry.feeds import Feeds, feeds, following
from portal.telemetry.history import STREAM_S, history_json, limits_json
from portal.telemetry.lines import ZERO, Cursor
from portal.telemetry.points import Point
from portal.telemetry.replay import tail
from portal.telemetry.viewer import Batch, Viewer
from portal.threads import in_thread

RECHECK_S = 15.0  # in case a hint was lost, and for sessions, whose end gives none
FIRST_LINES = 200

log = logging.getLogger(__name__)


def origin_is_ours(headers: dict[str, str]) -> bool:
    """Whether a browser's page is the portal's own: exactly scheme, host and port, as an app's page is another origin.

    A client that sends a Bearer token is no browser that was led here, so it needs none.
    """
    if bearer_of(headers.get("authorization", "")) is not None:
        return True
    host = headers.get("host", "")
    if not validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS):
        return False
    return headers.get("origin", "") in (f"{config().scheme}://{host}", config().public_url)


def authorised(headers: dict[str, str], slug: str) -> App:
    """The app, if whoever the headers name may read it now; raises PortalError."""
    return get_app(actor_of_headers(headers, method="GET", door="page"), slug, "read")


class AppSocket(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels ships no types
    """One subscription: authorised when it begins and again and again; ends with its right."""

    needs_instances: ClassVar[bool] = True

    async def connect(self) -> None:
        """Check origin and right, then begin to send."""
        self._tasks: list[asyncio.Task[None]] = []
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.scope["headers"]
        }
        self.query = {name: values[-1] for name, values in parse_qs(self.scope["query_string"].decode()).items()}
        if not origin_is_ours(self.headers):
            await self.close()
            return
        await self.accept()
        try:
            self.app = await in_thread(authorised, self.headers, self.scope["url_route"]["kwargs"]["app"])
        except PortalError as error:
            await self.refuse(error)
            return
        self.stale = asyncio.Event()
        self.feeds: Feeds = feeds(config().redis_url)
        for group in self._groups():
            await self.channel_layer.group_add(group, self.channel_name)
        self._tasks = [asyncio.create_task(self._guarded(work)) for work in (self.run, self._keep_checking)]

    async def refuse(self, error: PortalError) -> None:
        """Close with the code and the sentence."""
        code = error.status if error.status in (400, 401, 403, 404) else 400
        await self.close(code=4000 + code, reason=error.message[:120])

    async def disconnect(self, code: int) -> None:
        """The page is gone: end its tasks and its place in the feeds."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "app"):
            for group in self._groups():
                await self.channel_layer.group_discard(group, self.channel_name)

    def _groups(self) -> tuple[str, str]:
        return f"app.{self.app.pk}", f"team.{self.app.team_id}"

    async def _guarded(self, work: Callable[[], Any]) -> None:
        try:
            await work()
        except PortalError as error:
            await self.refuse(error)
        except Exception:  # the boundary of a task: the page reconnects
            log.exception("websocket of %s ended", self.app.slug)
            await self.close(code=1011)

    async def _keep_checking(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_S):
                    await self.stale.wait()
            self.stale.clear()
            self.app = await in_thread(authorised, self.headers, self.app.slug)
            if self.needs_instances:
                await self.follow(await in_thread(instances.names, self.app.pk))

    async def changed(self, event: dict[str, Any]) -> None:
        """A hint of the channel layer: look again now."""
        if event.get("what") in ("deployment", "instances", "access"):
            self.stale.set()

    async def run(self) -> None:
        """Send, for ever."""
        raise NotImplementedError

    async def follow(self, names: list[str]) -> None:
        """Instances may have come."""


class NoSocket(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Any other address: refused without a word in the log."""

    async def connect(self) -> None:
        """Refuse the handshake (HTTP 403)."""
        await self.close()


class LogsSocket(AppSocket):
    """`/ws/apps/{app}/logs?after=&instance=`: messages `[[id, instance, tag, text], …]`.

    `after` is a cursor (`lines.Cursor`): without it the last 200 lines come first.
    """

    async def run(self) -> None:
        """The last lines or those after the cursor, then all that come."""
        try:
            cursor = Cursor.parse(self.query.get("after", ""))
        except ValueError as error:
            raise PortalError(f"{error}.", status=400) from None
        viewer = Viewer(cursor, instance=self.query.get("instance", ""))
        names = await in_thread(instances.names, self.app.pk)
        if cursor.floor == ZERO and not cursor.seen:
            await self._send_tail(viewer, names)
        async with contextlib.aclosing(following(self.feeds, self.app.pk, viewer, names)) as stream:
            async for batch in stream:
                await self.send(text_data=batch.text)

    async def _send_tail(self, viewer: Viewer, names: list[str]) -> None:
        mine = [viewer.instance] if viewer.instance in names else names
        lines = await tail(self.feeds.redis, mine, FIRST_LINES)
        if len(lines) == FIRST_LINES:
            viewer.cursor.floor = lines[0].order
        viewer.cursor.take(lines)
        await self.send(text_data=Batch(lines).text)

    async def follow(self, names: list[str]) -> None:
        """Join the streams of new instances."""
        await self.feeds.logs(self.app.pk).follow(names)


class MetricsSocket(AppSocket):
    """`/ws/apps/{app}/metrics`: the last hour (`history.history_json`), then messages `[point, …]`."""

    async def run(self) -> None:
        """History first; a point that is in both is sent once."""
        feed = self.feeds.metrics(self.app.pk)
        queue = feed.join()
        try:
            names = await in_thread(instances.names, self.app.pk)
            await feed.prime(self.feeds.redis, names)
            await feed.follow(names)
            past = await in_thread(history_json, self.app, STREAM_S)
            await self.send(text_data=json.dumps(past, separators=(",", ":")))
            shown = {name: one["points"][-1]["at"] for name, one in past["instances"].items()}
            while True:
                points, text = await queue.get()
                fresh = [point for point in points if not _is_shown(point, shown)]
                if len(fresh) != len(points):
                    text = json.dumps([point.to_json() for point in fresh])
                if fresh:
                    await self.send(text_data=text)
        finally:
            self.feeds.leave_metrics(self.app.pk, queue)

    async def changed(self, event: dict[str, Any]) -> None:
        """A plan's new limits reach open charts: the first message's form, without points."""
        await super().changed(event)
        if event.get("what") == "limits":
            app = await in_thread(authorised, self.headers, self.app.slug)
            told = {
                "app": app.slug,
                "team": app.team.slug,
                "window_s": 0,
                "limits": limits_json(app.plan),
                "instances": {},
            }
            await self.send(text_data=json.dumps(told, separators=(",", ":")))

    async def follow(self, names: list[str]) -> None:
        """Join the streams of new instances."""
        await self.feeds.metrics(self.app.pk).follow(names)


def _is_shown(point: Point, shown: dict[str, float]) -> bool:
    return round(point.at, 3) <= shown.get(point.instance, 0)


class EventsSocket(AppSocket):
    """`/ws/apps/{app}/events`: `{what, …}` for each change, with the state in it (`live_state.change`)."""

    needs_instances = False

    async def run(self) -> None:
        """The state as it is; changes come through `changed`."""
        await self._say(await in_thread(live_state.first, self.app))

    async def changed(self, event: dict[str, Any]) -> None:
        """A hint becomes the state it hints at."""
        await super().changed(event)
        if event.get("what") != "access":
            await self._tell(str(event.get("what", "")))

    async def _tell(self, what: str) -> None:
        await self._say(await in_thread(live_state.change, self.app.pk, what))

    async def _say(self, message: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(message, separators=(",", ":")))
