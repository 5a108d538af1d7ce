"""Minute rows and limit events: right figures, repeatable, in a constant number of queries."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from redis import Redis

from portal.fleet.models import Host
from portal.hosting.models import App
from portal.releases.models import Instance, Release
from portal.telemetry import live_state, minutes
from portal.telemetry.actions import record_limit_hits, sweep_events
from portal.telemetry.history import history
from portal.telemetry.models import LimitEvent, MinuteMetric
from tests.portal.telemetry.streams import put_sample, sample
from worker.protocol import LimitHit

pytestmark = pytest.mark.django_db

NOON = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


def put_minutes(redis: Redis, instance: str, count: int, begin: dt.datetime = NOON) -> None:
    """Samples every 2 s: 200 millicores and 1,000 bytes in per second; memory grows by a byte a second."""
    for second in range(-2, count * 60, 2):
        at = begin.timestamp() + second
        counters = {"cpu_ns": (second + 2) * 200_000_000, "net_in_total": (second + 2) * 1000}
        put_sample(
            redis, instance, sample(at, **counters, memory_bytes=1000 + second, pids=5, disk_used_bytes=max(0, second))
        )


def more_instances(shop: App, release: Release, host: Host, count: int) -> list[str]:
    rows = [
        Instance(id=f"shop-x{n}", app=shop, release=release, host=host, process="web", ordinal=n) for n in range(count)
    ]
    return [row.pk for row in Instance.objects.bulk_create(rows)]


def test_minutes_are_rolled_once_whatever_how_often_it_runs(redis: Redis, shop: App, instances: list[str]) -> None:
    for name in instances:
        put_minutes(redis, name, 3)
    now = NOON + dt.timedelta(minutes=3, seconds=7)
    assert minutes.roll(now, minutes=3) == 6
    assert minutes.roll(now, minutes=3) == 6
    assert MinuteMetric.objects.count() == 6
    row = MinuteMetric.objects.get(instance="shop-1", minute=NOON + dt.timedelta(minutes=1))
    assert row.app == shop
    assert (round(row.cpu_millicores), round(row.net_in_bps), row.pids) == (200, 8000, 5)
    assert (row.memory_bytes, row.memory_max_bytes, row.disk_used_bytes) == (1089, 1118, 118)


def test_rolling_takes_the_same_queries_for_any_number_of_instances(
    redis: Redis,
    shop: App,
    release: Release,
    host: Host,
    instances: list[str],
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for name in (*instances, *more_instances(shop, release, host, 30)):
        put_minutes(redis, name, 1)
    with django_assert_num_queries(2):
        assert minutes.roll(NOON + dt.timedelta(minutes=1), minutes=1) == 32


def test_a_restarted_counter_is_growth_from_zero(redis: Redis, instances: list[str]) -> None:
    for n, cpu_ns in ((0, 10**12), (2, 10**12 + 10**9), (4, 10**9), (6, 2 * 10**9)):
        put_sample(redis, "shop-1", sample(NOON.timestamp() + n, cpu_ns=cpu_ns))
    minutes.roll(NOON + dt.timedelta(minutes=1), minutes=1)
    assert MinuteMetric.objects.get().cpu_millicores == pytest.approx(500)


def test_a_long_window_comes_from_minute_rows_in_at_most_300_points(shop: App, instances: list[str]) -> None:
    now = timezone.now().replace(second=0, microsecond=0)
    figures = dict.fromkeys(
        ("memory_bytes", "net_in_bps", "net_out_bps", "disk_read_bps", "disk_write_bps", "disk_used_bytes", "pids"), 1
    )
    MinuteMetric.objects.bulk_create(
        MinuteMetric(
            app=shop,
            instance="shop-1",
            minute=now - dt.timedelta(minutes=n),
            cpu_millicores=n % 2 * 100,
            memory_max_bytes=n,
            **figures,
        )
        for n in range(1440)
    )
    (points,) = history(shop, 86400).values()
    assert 280 <= len(points) <= 301
    assert points == sorted(points, key=lambda point: point.at)
    assert points[0].memory_bytes > 1400  # the highest of each step, or a peak would vanish in the average
    assert 30 < points[10].cpu_millicores < 70
    assert len(history(shop, 7200)["shop-1"]) in (119, 120, 121)


def test_old_rows_go(shop: App, instances: list[str], redis: Redis) -> None:
    put_minutes(redis, "shop-1", 1)
    minutes.roll(NOON + dt.timedelta(minutes=1), minutes=1)
    assert minutes.sweep() == (1 if timezone.now() - NOON > minutes.ROWS_KEPT else 0)
    MinuteMetric.objects.update(minute=timezone.now() - dt.timedelta(days=31))
    minutes.sweep()
    assert not MinuteMetric.objects.exists()


def hit(instance: str = "shop-1", **more: object) -> LimitHit:
    fields: dict[str, object] = {
        "limit": "memory",
        "used": 1.0,
        "allowed": 2.0,
        "when": time.time(),
        "sentence": "full",
    }
    return LimitHit(instance=instance, **(fields | more))  # type: ignore[arg-type]


def test_the_same_hit_within_half_a_minute_is_one_event(host: Host, instances: list[str]) -> None:
    now = time.time()
    assert record_limit_hits(host, [hit(when=now - 60, used=1.0), hit(when=now - 55, used=3.0)]) == 1
    assert record_limit_hits(host, [hit(when=now - 40, used=2.0, sentence="newest")]) == 0
    row = LimitEvent.objects.get()
    assert (row.used, row.sentence, round(row.at.timestamp() - now)) == (3.0, "newest", -40)
    assert record_limit_hits(host, [hit(when=now - 5), hit(limit="pids"), hit(level="team"), hit("shop-2")]) == 4
    assert LimitEvent.objects.count() == 5


def test_what_stays_hit_is_one_event_that_is_renewed(host: Host, instances: list[str]) -> None:
    now = time.time()
    for minute in (4, 3, 2, 1):
        told = hit(limit="cpu", when=now - 60 * minute, since=now - 240.25, sentence=f"{minute}")
        assert record_limit_hits(host, [told]) == (1 if minute == 4 else 0)
    row = LimitEvent.objects.get()
    assert (row.sentence, round(row.lasted_s), round(row.began.timestamp() - now)) == ("1", 180, -240)
    assert record_limit_hits(host, [hit(limit="cpu", when=now, since=now)]) == 1  # it was left alone meanwhile


def test_a_host_speaks_for_its_own_instances_and_not_of_the_future(host: Host, instances: list[str]) -> None:
    other = Host.objects.create(name="other", token_digest="0" * 64)
    assert record_limit_hits(other, [hit()]) == 0
    assert record_limit_hits(host, [hit("unknown-1"), hit(when=time.time() + 3600)]) == 1
    assert LimitEvent.objects.get().at <= timezone.now()


def test_recording_takes_the_same_queries_for_any_number_of_hits(
    host: Host,
    shop: App,
    release: Release,
    instances: list[str],
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    names = more_instances(shop, release, host, 40)
    with django_assert_num_queries(5):  # savepoint, instances, recent events, insert, release
        assert record_limit_hits(host, [hit(name) for name in names]) == 40


def test_old_events_go(host: Host, instances: list[str]) -> None:
    record_limit_hits(host, [hit(), hit("shop-2")])
    LimitEvent.objects.filter(instance="shop-1").update(at=timezone.now() - dt.timedelta(days=31))
    assert sweep_events() == 1


def test_what_a_page_is_told_takes_the_same_queries_for_any_number_of_instances(
    shop: App,
    release: Release,
    host: Host,
    instances: list[str],
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    more_instances(shop, release, host, 30)
    with django_assert_num_queries(2):
        assert len(live_state.change(shop.pk, "deployment")["instances"]) == 32
