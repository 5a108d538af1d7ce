"""What a page sees live, who may see it, and when it ends."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.models import Session
from django.utils import timezone
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from portal import hints
from portal.accounts.actions import remove_member
from portal.accounts.actor import SYSTEM
from portal.accounts.models import ApiToken, Membership, User
from portal.hosting.models import App
from portal.plans.models import Plan
from portal.releases.models import Deployment, Instance, Release
from portal.telemetry import sockets
from portal.telemetry.actions import record_limit_hits
from portal.telemetry.viewer import BUFFER_LINES
from tests.conftest import People
from tests.portal.telemetry.streams import lines, put, put_sample, sample
from worker.protocol import LimitHit

pytestmark = pytest.mark.django_db(transaction=True)
on_database = sync_to_async(thread_sensitive=False)


def cookie(people: People, user: User) -> dict[str, str]:
    """The Cookie header of a signed-in browser."""
    return {"Cookie": f"sessionid={people.client(user).cookies['sessionid'].value}"}


def opened(site: str, path: str, headers: dict[str, str], *, origin: str | None = "") -> connect:
    """A websocket as a page of the portal opens it, or of another origin."""
    address = site.replace("http://", "ws://") + path
    return connect(address, origin=site if origin == "" else origin, additional_headers=headers, compression=None)  # type: ignore[arg-type]


async def texts(socket: ClientConnection, last: str) -> list[str]:
    """The texts of log rows up to one."""
    got: list[str] = []
    while not got or got[-1] != last:
        got += [row[3] for row in json.loads(await socket.recv())]
    return got


async def test_a_page_gets_the_last_lines_then_each_that_comes_and_resumes_by_id(
    site: str, people: People, shop: App, instances: list[str], redis: Redis
) -> None:
    session = await on_database(cookie)(people, people.viewer)
    put(redis, lines("shop-1", 0, 500))
    async with opened(site, "/ws/apps/shop/logs", session) as socket:
        first = json.loads(await socket.recv())
        assert [row[3] for row in first] == [f"line {n}" for n in range(300, 500)]
        assert first[0][1:3] == ["shop-1", "o"]
        put(redis, lines("shop-1", 500, 3))
        assert await texts(socket, "line 502") == ["line 500", "line 501", "line 502"]
    put(redis, lines("shop-1", 503, 700))
    after = f"{first[0][0]},shop-1@{lines('shop-1', 502, 1)[0].id}"
    async with opened(site, f"/ws/apps/shop/logs?after={after}", session) as socket:
        assert await texts(socket, "line 1202") == [f"line {n}" for n in range(503, 1203)]
    async with opened(site, "/ws/apps/shop/logs?after=yesterday", session) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4400


async def test_a_new_instance_joins_an_open_log_at_once(
    site: str, people: People, shop: App, release: Release, instances: list[str], redis: Redis
) -> None:
    session = await on_database(cookie)(people, people.developer)
    async with opened(site, "/ws/apps/shop/logs", session) as socket:
        assert json.loads(await socket.recv()) == []
        put(redis, lines("shop-3", 0, 2, text="new"))

        def begin() -> None:
            host = Instance.objects.get(pk="shop-1").host
            Instance.objects.create(id="shop-3", app=shop, release=release, host=host, process="web", ordinal=3)
            hints.page_changed(shop.pk, "instances")

        await on_database(begin)()
        async with asyncio.timeout(sockets.RECHECK_S - 1):
            assert await texts(socket, "new 1") == ["new 0", "new 1"]


@pytest.mark.parametrize("path", ["logs", "metrics", "events"])
async def test_strangers_and_other_origins_are_kept_out(
    path: str, site: str, people: People, shop: App, instances: list[str]
) -> None:
    address = f"/ws/apps/shop/{path}"

    async def code(headers: dict[str, str]) -> int:
        async with opened(site, address, headers) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            return closed.value.rcvd.code

    assert await code({}) == 4401
    assert await code(await on_database(cookie)(people, people.stranger)) == 4404
    assert await code({"Authorization": "Bearer moor_wrong"}) == 4401
    owner = await on_database(cookie)(people, people.owner)
    port = site.rpartition(":")[2]
    for origin in ("http://evil.example", f"http://shop.localhost:{port}", site.replace("http", "https"), None):
        with pytest.raises(InvalidStatus):
            await opened(site, address, owner, origin=origin)
    token = await on_database(people.token)(people.viewer, "read")
    async with opened(site, address, {"Authorization": f"Bearer {token}"}, origin=None) as socket:
        assert json.loads(await socket.recv()) is not None


async def test_a_socket_closes_when_its_right_goes(
    site: str, people: People, shop: App, instances: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "RECHECK_S", 0.1)
    token = await on_database(people.token)(people.viewer, "read")
    ways = {
        "role": (await on_database(cookie)(people, people.viewer), Membership.objects.filter(user=people.viewer)),
        "session": (await on_database(cookie)(people, people.developer), Session.objects.all()),
        "token": ({"Authorization": f"Bearer {token}"}, ApiToken.objects.all()),
    }
    for way in ("token", "role", "session"):
        headers, rows = ways[way]
        async with opened(site, "/ws/apps/shop/logs", headers) as socket:
            assert json.loads(await socket.recv()) == []
            await on_database(rows.delete)()
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), 5)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == (4404 if way == "role" else 4401)


async def test_the_action_that_takes_a_role_away_closes_the_socket_at_once(
    site: str, people: People, shop: App, instances: list[str]
) -> None:
    session = await on_database(cookie)(people, people.viewer)
    async with opened(site, "/ws/apps/shop/events", session) as socket:
        await socket.recv()
        row = await on_database(Membership.objects.select_related("team", "user").get)(user=people.viewer)
        await on_database(remove_member)(SYSTEM, row)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 2)


async def test_an_address_without_a_socket_is_refused(site: str, people: People) -> None:
    with pytest.raises(InvalidStatus):
        await opened(site, "/ws/nothing", await on_database(cookie)(people, people.owner))


async def test_a_page_that_does_not_read_is_thinned_and_the_others_are_not(
    site: str, people: People, shop: App, instances: list[str], redis: Redis
) -> None:
    session = await on_database(cookie)(people, people.owner)
    total, width = 12 * BUFFER_LINES, 300
    async with (
        opened(site, "/ws/apps/shop/logs", session) as fast,
        opened(site, "/ws/apps/shop/logs", session) as slow,
    ):
        for socket in (fast, slow):
            assert json.loads(await socket.recv()) == []
        slow.transport.pause_reading()
        seen = 0
        for start in range(0, total, 500):
            batch = [line._replace(text=line.text.ljust(width)) for line in lines("shop-1", start, 500)]
            put(redis, batch, per_entry=100)
            while seen < start + 500:
                rows = json.loads(await fast.recv())
                assert all(row[1] == "shop-1" for row in rows)
                seen += len(rows)
        assert seen == total
        slow.transport.resume_reading()
        got: list[Any] = []
        while not got or got[-1][3].strip() != f"line {total - 1}":
            got += json.loads(await slow.recv())
    notes = [row for row in got if row[2] == "m"]
    skipped = sum(int(row[3].split()[0].replace(",", "")) for row in notes)
    assert skipped > 0
    assert skipped + len(got) - len(notes) == total
    assert all(row[1] == "" and "The record has them all" in row[3] for row in notes)
    shown = [row[0] for row in got if row[2] != "m"]
    assert shown == sorted(set(shown))


async def test_metrics_begin_with_the_last_hour_and_go_on_with_each_sample(
    site: str, people: People, shop: App, instances: list[str], redis: Redis
) -> None:
    session = await on_database(cookie)(people, people.viewer)
    now = time.time()
    for back in range(3000, 0, -2):
        counters = {"cpu_ns": (3000 - back) * 250_000_000, "net_in_total": (3000 - back) * 1000}
        put_sample(redis, "shop-1", sample(now - back, **counters, memory_bytes=64 << 20, cpu_limit_millicores=500))
    async with opened(site, "/ws/apps/shop/metrics", session) as socket:
        past = json.loads(await socket.recv())
        assert past["limits"]["memory_bytes"] == shop.plan.memory_bytes
        points = past["instances"]["shop-1"]["points"]
        assert past["instances"]["shop-1"]["name"] == "web.1"
        assert 250 <= len(points) <= 300
        assert all(abs(point["cpu_millicores"] - 250) < 5 for point in points)
        assert abs(points[-1]["net_in_bps"] - 8000) < 100
        for n, cpu_ns in ((0, 750 * 10**9), (2, 751 * 10**9)):
            put_sample(redis, "shop-1", sample(now + n, cpu_ns=cpu_ns, cpu_limit_millicores=500, pids=3))
        point = {"at": 0.0}
        while point["at"] < now + 2 - 0.01:
            point = json.loads(await socket.recv())[-1]  # samples that come together are told together
        assert (point["instance"], point["cpu_millicores"], point["cpu_pct_of_limit"]) == ("shop-1", 500.0, 100.0)
        assert point["pids"] == 3
        await on_database(Plan.objects.filter(pk=shop.plan_id).update)(memory_bytes=123)
        await on_database(hints.page_changed)(shop.pk, "limits")
        told = json.loads(await socket.recv())
        assert (told["limits"]["memory_bytes"], told["instances"]) == (123, {})


async def test_events_carry_the_state_of_the_deployment_as_it_happens(
    site: str, people: People, shop: App, release: Release, instances: list[str]
) -> None:
    session = await on_database(cookie)(people, people.viewer)
    async with opened(site, "/ws/apps/shop/events", session) as socket:
        assert json.loads(await socket.recv())["deployment"] is None

        def begin() -> int:
            row = Deployment.objects.create(app=shop, number=1, release=release, state_since=timezone.now())
            hints.deployment_changed(row.pk, shop.pk, "queued")
            return row.pk

        await on_database(begin)()
        told = json.loads(await socket.recv())
        assert (told["what"], told["deployment"]["state"]) == ("deployment", "queued")
        assert [row["name"] for row in told["instances"]] == ["web.1", "web.2"]

        def hit() -> None:
            host = Instance.objects.get(pk="shop-1").host
            sentence = "web.1 was killed: used 512 MB of 512 MB."
            record_limit_hits(host, [LimitHit(instance="shop-1", limit="memory", used=1, allowed=1, sentence=sentence)])

        await on_database(hit)()
        told = json.loads(await socket.recv())
        assert told["what"] == "limits"
        assert told["event"]["sentence"].startswith("web.1 was killed")
