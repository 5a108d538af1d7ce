"""When a limit counts as hit, told how often, and in which words: decided from counters alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runtime.engine import sentences
from runtime.engine.episodes import Watched
from runtime.engine.hits import Hit, Level, Moment, Processes, fullest
from runtime.engine.resources import Resources
from runtime.engine.stats import Line, parents
from runtime.kernel.cgroups import Marks, Moved
from runtime.network.model import Counters, Endpoint, Queue
from runtime.storage.driver import Usage

MB = 1 << 20
QUARTER = Resources(nano_cpus=250_000_000)
START = Moment(ns=0, marks=Marks())


def moment(at_s: float, **fields: Any) -> Moment:
    marks = {name: fields.pop(name) for name in tuple(fields) if name in Marks.__dataclass_fields__}
    return Moment(ns=int(at_s * 1e9), marks=Marks(**marks), **fields)


def told(moments: list[Moment], allowed: Resources, level: Level = "instance") -> list[tuple[float, Hit]]:
    """What is told, with the second it is told at; the first moment is the one before."""
    watched = Watched()
    watched.moments.append(moments[0])
    return [(now.ns / 1e9, hit) for now in moments[1:] for hit in watched.judge(now, allowed, level)]


def busy(at_s: float, began_s: float, share: float = 1.0) -> Moment:
    """A program that wants all CPUs since `began_s` and is stopped in a share of the slices of 0.1 s."""
    ran = max(0.0, at_s - began_s)
    return moment(at_s, throttled_periods=int(ran * 10 * share), cpu_ns=int(ran * 0.25e9))


@pytest.mark.parametrize("began", [0.0, 0.3, 1.0, 1.7, 2.0])
def test_a_cpu_hog_is_told_within_four_seconds_with_its_figures(began: float) -> None:
    [(at, hit)] = told([busy(2 * n, began) for n in range(5)], QUARTER)
    assert at - began <= 4
    assert (hit.limit, hit.allowed, hit.level) == ("cpu", 250, "instance")
    assert "0.25 CPU" in hit.sentence and "% of the last" in hit.sentence


def test_a_short_burst_of_work_is_not_told() -> None:
    assert told([busy(2 * n, 1, 1.0 if n < 2 else 0.25) for n in range(6)], QUARTER) == []
    assert told([busy(2 * n, 0, 0.3) for n in range(40)], QUARTER) == []
    assert told([busy(10 * n, 0, 0.3) for n in range(4)], QUARTER) == []  # looks may come late


def test_who_is_slowed_for_an_hour_is_told_each_minute_as_one_that_lasts() -> None:
    found = told([busy(2 * n, 0) for n in range(1801)], QUARTER)
    assert len(found) == 60
    assert {hit.since_ns for _, hit in found} == {found[0][1].since_ns}
    assert "100% of the last 1 min" in found[-1][1].sentence


def test_slowed_on_and_off_is_one_episode_and_after_a_pause_another() -> None:
    parts = [(0, 10, 1.0), (10, 40, 0.3), (40, 46, 0.0), (46, 56, 1.0), (56, 80, 0.0), (80, 90, 1.0)]
    periods, moments = 0.0, []
    for at in range(0, 91, 2):
        moments.append(moment(at, throttled_periods=int(periods)))
        periods += 20 * next((share for begin, end, share in parts if begin <= at < end), 0)
    assert [at for at, _ in told(moments, QUARTER)] == [2, 82]


def test_without_a_limit_nothing_is_told() -> None:
    full = moment(
        2, throttled_periods=20, cpu_ns=10**9, memory_bytes=MB, memory_at_max=5, swap_at_max=5,
        devices={"7:0": Moved(9 * MB, 9 * MB, 9000, 9000)}, lines=(line(2, 10**9, rates=(0, 0)),),
    )  # fmt: skip
    assert told([START, full], Resources()) == []


def test_the_first_look_at_what_ran_before_tells_nothing_of_the_past() -> None:
    watched = Watched()
    assert watched.judge(moment(0, throttled_periods=10**6, forks_refused=9, pids_limit=5), QUARTER) == []
    assert watched.judge(moment(2, throttled_periods=10**6, forks_refused=9, pids_limit=5), QUARTER) == []


def test_refused_processes_are_told_once_with_their_number_and_the_level() -> None:
    refusals = [0, 3, 8, 8]
    own = [moment(2 * n, forks_refused=r, pids_limit=20, fullest=Processes("app", 40)) for n, r in enumerate(refusals)]
    [(_, hit)] = told(own, Resources(pids=20))
    assert (hit.limit, hit.used, hit.allowed, hit.level) == ("pids", 40, 40, "app")
    assert "The limit of 40 processes and threads shared by all instances of this app" in hit.sentence
    assert "3 more were refused in 2 s" in hit.sentence


def test_the_fullest_group_refused_a_process_and_of_equals_the_innermost() -> None:
    instance, app, team = Marks(pids=20, pids_limit=20), Marks(pids=40, pids_limit=40), Marks(pids=41, pids_limit=0)
    assert fullest([("instance", instance), ("app", app), ("team", team)]) == Processes("instance", 20)
    assert fullest([("instance", replace(instance, pids=3)), ("app", app), ("team", team)]) == Processes("app", 40)
    assert parents("acme/web") == ["acme", "acme/web"] and parents("") == []


MEMORY = Resources(memory=64 * MB, memory_swap=96 * MB)


def test_memory_that_is_full_is_told_though_nothing_was_killed() -> None:
    steps = [
        moment(0),
        moment(2, memory_bytes=63 * MB, memory_at_max=9),
        moment(4, memory_bytes=63 * MB, memory_at_max=9),
    ]
    [(at, hit)] = told(steps, MEMORY)
    assert at == 2 and (hit.limit, hit.used, hit.allowed) == ("memory", 63 * MB, 64 * MB)
    assert "63 MB of 64 MB" in hit.sentence


def test_a_kernel_that_does_not_count_shows_it_by_the_sum_with_cache() -> None:
    assert told([START, moment(2, memory_bytes=60 * MB, charged_bytes=63 * MB)], MEMORY) == []
    assert len(told([START, moment(2, memory_bytes=60 * MB, charged_bytes=int(63.9 * MB))], MEMORY)) == 1


def test_cache_at_the_limit_and_memory_that_was_killed_for_are_no_such_event() -> None:
    assert told([START, moment(2, memory_bytes=20 * MB, memory_at_max=900, charged_bytes=64 * MB)], MEMORY) == []
    assert told([START, moment(2, memory_bytes=63 * MB, memory_at_max=9, oom_kills=1)], MEMORY) == []


def test_memory_above_the_mark_is_told_of_any_level() -> None:
    [(_, hit)] = told([START, moment(2, memory_at_high=4, memory_high_bytes=48 * MB)], MEMORY, "team")
    assert (hit.limit, hit.level, hit.allowed) == ("memory", "team", 48 * MB)
    assert "48 MB shared by all apps of this team" in hit.sentence and "quota" in hit.sentence


def test_swap_that_is_full_is_told_where_there_is_any() -> None:
    [(_, hit)] = told([START, moment(2, swap_at_max=4)], MEMORY)
    assert (hit.limit, hit.allowed) == ("swap", 32 * MB) and "32 MB beside the 64 MB" in hit.sentence
    assert told([START, moment(2, swap_at_max=4)], Resources(memory=64 * MB, memory_swap=64 * MB)) == []
    assert told([START, moment(2, swap_at_max=4)], Resources(memory=64 * MB, memory_swap=-1)) == []


RATES = Resources(disk_read_bps=5 * MB, disk_write_iops=100)


@pytest.mark.parametrize("began", [0.1, 1.0, 1.9])
def test_a_disk_at_its_rate_is_told_within_four_seconds(began: float) -> None:
    def reading(at: float) -> Moment:
        return moment(at, devices={"7:3": Moved(read_bytes=int(max(0, at - began) * 5.1 * MB)), "8:0": Moved()})

    [(at, hit)] = told([reading(2 * n) for n in range(6)], RATES)
    assert at - began <= 4 and (hit.limit, hit.allowed) == ("disk_io", 5 * MB)
    assert hit.used == pytest.approx(5 * MB, rel=0.05) and "of 5 MB/s over 2 s" in hit.sentence


def test_operations_count_as_bytes_do_and_less_than_the_rate_is_nothing() -> None:
    [(_, hit)] = told([START, moment(2, devices={"7:3": Moved(write_ops=198)})], RATES)
    assert "99 of 100 operations a second" in hit.sentence
    assert told([START, moment(2, devices={"7:3": Moved(9 * MB, 900 * MB, 9000, 180)})], RATES) == []


ENDPOINT = Endpoint(
    id="e", container_id="c", network_id="n", network="bridge", address="10.0.0.2", prefix=24, gateway="10.0.0.1",
    mac="", host_link="v",
)  # fmt: skip


def line(at: float, moved: int, queue: Queue | None = None, rates: tuple[int, int] = (10**6, 10**6)) -> Line:
    """An endpoint that has sent and received as many bytes."""
    endpoint = replace(ENDPOINT, rate_in_bps=rates[0], rate_out_bps=rates[1])
    return Line(endpoint, Counters(rx_bytes=moved, tx_bytes=0, incoming=queue), None)


def test_a_network_at_its_rate_is_told_when_packets_waited() -> None:
    quiet = moment(0, lines=(line(0, 0, Queue(5, 0)),))
    [(_, hit)] = told([quiet, moment(2, lines=(line(2, 245_000, Queue(90, 12)),))], Resources())
    assert (hit.limit, hit.used, hit.allowed) == ("network", 980_000, 10**6)
    assert hit.sentence.startswith("Receiving is held back: 980 kbit/s of 1 Mbit/s over 2 s, 12 packets were dropped.")
    assert told([quiet, moment(2, lines=(line(2, 245_000, Queue(5, 0)),))], Resources()) == []
    assert told([quiet, moment(2, lines=(line(2, 200_000, Queue(90, 12)),))], Resources()) == []


def test_sending_is_judged_by_the_queue_inside() -> None:
    before, after = (
        Line(replace(ENDPOINT, rate_out_bps=8 * 10**6), Counters(tx_bytes=sent), queue)
        for sent, queue in ((0, None), (2_000_000, Queue(40, 0)))
    )
    [(_, hit)] = told([moment(0, lines=(before,)), moment(2, lines=(after,))], Resources())
    assert hit.sentence.startswith("Sending is held back: 8 Mbit/s of 8 Mbit/s over 2 s. Send less")


def test_a_full_disk_is_one_event_until_there_is_room_again() -> None:
    used = [99, 99, 97, 50, 50, 50, 50, 50, 50, 99]
    found = told(
        [START, *(moment(2 * n + 2, disk=Usage(used_bytes=u, size_bytes=100)) for n, u in enumerate(used))], Resources()
    )
    assert [at for at, _ in found] == [2, 20]


@pytest.mark.parametrize("level", ["instance", "app", "team"])
def test_every_sentence_has_figures_the_level_and_a_way_out(level: Level) -> None:
    said = (
        sentences.oom_sentence(10**18, "python3", 512 * MB, level, whole=True, kills=3),
        sentences.memory_full(500 * MB, 512 * MB, level),
        sentences.memory_high(384 * MB, level),
        sentences.swap(64 * MB, 512 * MB, level),
        sentences.pids(100, 7, 2, level),
        sentences.cpu(0.87, 4, 0.5, level),
        sentences.disk_rate("Writing to disk", 4.9 * MB, 5 * MB, 2, level, in_bytes=True),
    )
    for text in said:
        assert any(c.isdigit() for c in text) and text.endswith(".")
        assert ("quota" if level == "team" else "plan") in text
        assert level == "instance" or f"this {level}" in text
