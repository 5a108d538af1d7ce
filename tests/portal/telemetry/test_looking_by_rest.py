"""Logs, metrics and limit events by REST, and the figures for Prometheus."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from redis import Redis

from portal.accounts.models import ApiToken
from portal.hosting.models import App
from portal.releases.models import Instance
from portal.telemetry import log_answers
from portal.telemetry.actions import record_limit_hits
from tests.conftest import People
from tests.portal.telemetry.streams import T0_MS, lines, put, put_sample, sample
from worker.protocol import LimitHit, log_stream

pytestmark = pytest.mark.django_db(transaction=True)

LOGS = "/api/v1/apps/shop/logs"


@pytest.fixture
def http(site: str, people: People, shop: App, instances: list[str]) -> Iterator[httpx.Client]:
    """A pipeline with a token that may read."""
    headers = {"Authorization": f"Bearer {people.token(people.viewer, 'read')}"}
    with httpx.Client(base_url=site, headers=headers, timeout=10) as client:
        yield client


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def readers(redis: Redis) -> int:
    """Connections that wait for entries of a log."""
    return sum("b" in client["flags"] for client in redis.client_list())


def test_the_last_lines_of_all_instances_come_in_order(http: httpx.Client, redis: Redis) -> None:
    put(redis, lines("shop-1", 0, 300, text="a"))
    put(redis, lines("shop-2", 100, 300, text="b"))
    answer = http.get(LOGS, params={"limit": 400}).json()
    assert (answer["app"], answer["team"], len(answer["lines"])) == ("shop", "acme", 400)
    ids = [line["id"] for line in answer["lines"]]
    assert ids == sorted(ids)
    assert answer["lines"][-1] == {
        "id": f"{T0_MS + 3990}-0",
        "at": "2025-11-24T16:00:03.990Z",
        "instance": "shop-2",
        "name": "web.2",
        "stream": "stdout",
        "text": "b 399",
    }


def test_pages_of_next_cover_every_line_once(http: httpx.Client, redis: Redis) -> None:
    for name in ("shop-1", "shop-2"):
        put(redis, lines(name, 0, 450, text=name), per_entry=7)
    got, since = [], "1-0"
    while True:
        page = http.get(LOGS, params={"since": since, "limit": 200}).json()
        if not page["lines"]:
            break
        got += [line["text"] for line in page["lines"]]
        since = page["next"]
    assert len(got) == 900
    assert set(got) == {f"{name} {n}" for name in ("shop-1", "shop-2") for n in range(450)}


def test_since_takes_a_time_or_a_duration_and_refuses_the_rest(http: httpx.Client, redis: Redis) -> None:
    put(redis, lines("shop-1", 0, 100, step_ms=1000))
    late = http.get(LOGS, params={"since": "2025-11-24T16:01:30Z"}).json()["lines"]
    assert [line["text"] for line in late] == [f"line {n}" for n in range(91, 100)] or late[0]["text"] == "line 90"
    assert http.get(LOGS, params={"since": "1h"}).json()["lines"] == []
    for bad in ("yesterday", "12-", "a@b@c", "-5m"):
        refused = http.get(LOGS, params={"since": bad})
        assert refused.status_code == 422, bad
        assert refused.headers["Content-Type"] == "application/problem+json"
    assert http.get(LOGS, params={"limit": 0}).status_code == 422


def test_one_instance_and_other_formats(http: httpx.Client, redis: Redis) -> None:
    for name in ("shop-1", "shop-2"):
        put(redis, lines(name, 0, 2, text=name))
    text = http.get(LOGS, params={"instance": "shop-2"}, headers={"Accept": "text/plain"})
    assert text.text == "2025-11-24T16:00:00.000Z web.2 shop-2 0\n2025-11-24T16:00:00.010Z web.2 shop-2 1\n"
    rows = http.get(LOGS, headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert [json.loads(row)["text"] for row in rows] == ["shop-1 0", "shop-2 0", "shop-1 1", "shop-2 1"]
    assert http.get(LOGS, params={"instance": "other-1"}).status_code == 422


def test_an_answer_says_what_has_left_the_live_stream(http: httpx.Client, redis: Redis) -> None:
    put(redis, lines("shop-1", 0, 100), per_entry=10)
    assert "Moorage-Log-Since" not in http.get(LOGS).headers
    redis.xtrim(log_stream("shop-1"), maxlen=5, approximate=False)
    headers = http.get(LOGS).headers
    assert headers["Moorage-Log-Since"] == "2025-11-24T16:00:00.500Z"
    assert "record on the host" in headers["Moorage-Log-Note"]


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/plain"])
def test_following_sends_lines_as_they_come_and_ends_with_its_client(
    accept: str, http: httpx.Client, redis: Redis
) -> None:
    put(redis, lines("shop-1", 0, 10))
    with http.stream("GET", LOGS, params={"follow": True, "limit": 5}, headers={"Accept": accept}) as answer:
        assert answer.headers["Content-Type"].startswith(accept)
        rows = (row for row in answer.iter_lines() if row)
        assert [next(rows).count("line ") for _ in range(5)] == [1] * 5
        put(redis, lines("shop-2", 10, 1, text="later"))
        assert "later 10" in next(rows)
        eventually(lambda: readers(redis) == 1)
    eventually(lambda: _watched_ends(redis))


def _watched_ends(redis: Redis) -> bool:
    """The reader wakes for the stream it still reads and finds that nobody watches."""
    put(redis, lines("shop-1", int(time.monotonic() * 100), 1))
    return readers(redis) == 0


def test_following_ends_when_the_token_does(http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_answers, "RECHECK_S", 0.1)
    put(redis, lines("shop-1", 0, 1))
    with http.stream("GET", LOGS, params={"follow": True}) as answer:
        rows = answer.iter_lines()
        assert "line 0" in next(rows)
        ApiToken.objects.all().delete()
        assert list(rows) == []


def test_strangers_see_no_app(http: httpx.Client, people: People) -> None:
    stranger = {"Authorization": f"Bearer {people.token(people.stranger, 'write')}"}
    for path in (LOGS, f"{LOGS}?follow=true", "/api/v1/apps/shop/metrics", "/api/v1/apps/shop/limit-events"):
        assert http.get(path, headers=stranger).status_code == 404
        assert http.get(path, headers={"Authorization": "Bearer moor_wrong"}).status_code == 401


def test_metrics_of_a_window(http: httpx.Client, shop: App, redis: Redis) -> None:
    now = time.time()
    for back in range(100, 0, -2):
        put_sample(redis, "shop-1", sample(now - back, cpu_ns=(100 - back) * 10**8, memory_bytes=1000, pids=4))
    answer = http.get("/api/v1/apps/shop/metrics", params={"window": "1m"}).json()
    points = answer["instances"]["shop-1"]["points"]
    assert 25 <= len(points) <= 30
    assert all(abs(point["cpu_millicores"] - 100) < 1 for point in points)
    assert answer["limits"]["cpu_millicores"] == shop.plan.cpu_millicores
    assert http.get("/api/v1/apps/shop/metrics", params={"window": "forever"}).status_code == 422


def test_limit_events_come_newest_first(http: httpx.Client, instances: list[str]) -> None:
    host = Instance.objects.get(pk="shop-1").host
    for n, limit in enumerate(("memory", "pids")):
        record_limit_hits(host, [LimitHit(instance="shop-1", limit=limit, when=time.time() + n - 10, sentence=limit)])
    events = http.get("/api/v1/apps/shop/limit-events").json()["events"]
    assert [event["sentence"] for event in events] == ["pids", "memory"]


def test_prometheus_gets_the_latest_figures_as_an_operator(http: httpx.Client, people: People, redis: Redis) -> None:
    put_sample(redis, "shop-1", sample(time.time(), cpu_ns=3_500_000_000, memory_bytes=1 << 20))
    assert http.get("/metrics").status_code == 403
    operator = {"Authorization": f"Bearer {people.token(people.operator, 'operator')}"}
    answer = http.get("/metrics", headers=operator)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    labels = '{team="acme",app="shop",instance_id="shop-1",process="web",host="local"}'
    assert f"moorage_instance_cpu_seconds_total{labels} 3.5\n" in answer.text
    assert f"moorage_instance_memory_bytes{labels} 1048576\n" in answer.text
    from prometheus_client.parser import text_string_to_metric_families

    assert len(list(text_string_to_metric_families(answer.text))) == 16
