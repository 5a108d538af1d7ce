"""The small pure parts: filters, units, id ranges, restarts, records, kernel log, sentences."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from runtime.engine import kmsg, records, sentences
from runtime.engine.alarms import level_of
from runtime.engine.config import from_arguments, short_id
from runtime.engine.errors import Conflict, Invalid, NotFound, Unsupported
from runtime.engine.filters import Filters
from runtime.engine.idranges import SPAN, IdRanges
from runtime.engine.process import environment, merge, plain_ports
from runtime.engine.request import ContainerConfig, EndpointConfig, HostConfig, RestartPolicy
from runtime.engine.restart import restart_delay_s, survives_engine
from runtime.engine.state import State
from runtime.engine.units import ago, parse_size, parse_time_ns, rfc3339
from runtime.images.format import ImageConfig
from runtime.oci.state import ExitRecord

KNOWN = frozenset({"label", "name", "id"})


def test_filters_are_read_in_both_of_dockers_shapes() -> None:
    for text in ('{"label": ["a=1"]}', '{"label": {"a=1": true, "b": false}}'):
        filters = Filters.parse(text, KNOWN)
        assert filters.labels({"a": "1"}) and not filters.labels({"a": "2"})


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"x": ["1"]}', '{"label": [1]}', '{"label": "a"}', '{"name": ["' + "x" * 20_000 + '"]}']
)
def test_other_filters_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Filters.parse(text, KNOWN)


def test_a_name_filter_knows_anchors_and_no_dangerous_patterns() -> None:
    assert Filters.parse('{"name": ["^web$"]}', KNOWN).pattern("name", "web")
    assert not Filters.parse('{"name": ["^web$"]}', KNOWN).pattern("name", "web-1")
    assert Filters.parse('{"name": ["eb"]}', KNOWN).pattern("name", "web-1")
    began = time.monotonic()
    assert not Filters.parse('{"name": ["(a+)+$"]}', KNOWN).pattern("name", "a" * 60 + "b")
    assert time.monotonic() - began < 0.1


def test_sizes_and_times() -> None:
    assert (parse_size("10m", "x"), parse_size("1.5G", "x"), parse_size("7", "x")) == (10 << 20, 3 << 29, 7)
    assert parse_time_ns("1700000000.000000001") == 1_700_000_000_000_000_001
    assert parse_time_ns("2023-11-14T22:13:20.5Z") == 1_700_000_000_500_000_000
    assert parse_time_ns("2023-11-14T23:13:20+01:00") == 1_700_000_000_000_000_000
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    assert ago(time.time_ns() - 5 * 10**9) == "5 seconds"
    assert ago(time.time_ns() - 90 * 10**9) == "About a minute"
    for bad in ("", "yesterday", "2023-13-40T00:00:00Z"):
        with pytest.raises(Invalid):
            parse_time_ns(bad)


def test_id_ranges_never_meet_and_come_back() -> None:
    ids = IdRanges("ffffffff")
    lent = [ids.take() for _ in range(500)]
    assert len(set(lent)) == 500
    assert all(base % SPAN == 0 and SPAN <= base < 2**31 for base in lent)
    ids.give_back(lent[0])
    assert lent[0] not in ids.lent
    other = IdRanges("ffffffff")
    other.adopt(lent[0])
    assert other.take() != lent[0]


@pytest.mark.parametrize(
    ("policy", "code", "stopped", "expected"),
    [
        (RestartPolicy(), 1, False, False),
        (RestartPolicy(name="always"), 0, False, True),
        (RestartPolicy(name="always"), 0, True, False),
        (RestartPolicy(name="unless-stopped"), 0, False, True),
        (RestartPolicy(name="on-failure"), 0, False, False),
        (RestartPolicy(name="on-failure"), 3, False, True),
        (RestartPolicy(name="on-failure", retries=2), 3, False, False),
    ],
)
def test_restart_policies(policy: RestartPolicy, code: int, *, stopped: bool, expected: bool) -> None:
    delay = restart_delay_s(policy, code=code, restarts=2, stopped_by_user=stopped, ran_s=1, failures=0)
    assert (delay is not None) == expected


def test_the_wait_doubles_up_to_a_minute_and_begins_anew_after_a_good_run() -> None:
    def delay(failures: int, ran_s: float = 0) -> float | None:
        return restart_delay_s(
            RestartPolicy(name="always"), code=1, restarts=0, stopped_by_user=False, ran_s=ran_s, failures=failures
        )

    assert [delay(n) for n in range(4)] == [0.1, 0.2, 0.4, 0.8]
    assert delay(40) == 60
    assert delay(40, ran_s=11) == 0.1


def test_only_always_starts_what_a_person_stopped_when_the_engine_comes_back() -> None:
    assert survives_engine(RestartPolicy(name="always"), code=0, restarts=0, stopped_by_user=True)
    assert not survives_engine(RestartPolicy(name="unless-stopped"), code=0, restarts=0, stopped_by_user=True)
    assert survives_engine(RestartPolicy(name="unless-stopped"), code=0, restarts=0, stopped_by_user=False)


def make_record() -> records.Record:
    config = ContainerConfig(image="busybox", cmd=("sh",), labels={"a": "b"}, env=("A=1",))
    process = records.Process(
        args=("sh",), env=("A=1",), cwd="/", user="", stop_signal="SIGTERM", labels={"a": "b"}, exposed_ports=()
    )
    return records.Record(
        id="a" * 64,
        name="web",
        created_ns=5,
        image_id="sha256:x",
        chain_ids=("sha256:y",),
        id_base=1 << 20,
        config=config,
        host=HostConfig(ulimits=(("nofile", 1024, 2048),)),
        endpoint=EndpointConfig(),
        process=process,
    )


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = make_record()
    record.life.state = State.EXITED
    records.save(tmp_path, record)
    assert records.load(tmp_path) == record
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_record_of_a_newer_engine_is_read_and_a_torn_one_refused(tmp_path: Path) -> None:
    records.save(tmp_path, make_record())
    path = tmp_path / "record.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "tomorrow": 1}))
    assert records.load(tmp_path).name == "web"
    for torn in ("", "{", "[]", '{"id": "x"}'):
        path.write_text(torn)
        with pytest.raises(ValueError):
            records.load(tmp_path)


def test_states_answer_what_they_allow() -> None:
    assert (
        State.CREATED.can_start
        and State.EXITED.can_start
        and not State.RUNNING.can_start
        and not State.REMOVING.can_start
    )
    assert State.EXITED.can_delete and not State.RUNNING.can_delete and not State.RESTARTING.can_delete
    assert State.RUNNING.can_exec and not State.PAUSED.can_exec


IMAGE = ImageConfig(
    entrypoint=("/entry",), cmd=("serve",), env=("PATH=/bin", "A=image"), user="1000", working_dir="/srv"
)


@pytest.mark.parametrize(
    ("config", "args"),
    [
        (ContainerConfig(image="x"), ("/entry", "serve")),
        (ContainerConfig(image="x", cmd=("other",)), ("/entry", "other")),
        (ContainerConfig(image="x", entrypoint=("/mine",)), ("/mine",)),
        (ContainerConfig(image="x", entrypoint=("/mine",), cmd=("a",)), ("/mine", "a")),
        (ContainerConfig(image="x", entrypoint=("",), cmd=("a",)), ("a",)),
    ],
)
def test_request_and_image_are_merged_by_dockers_rules(config: ContainerConfig, args: tuple[str, ...]) -> None:
    assert merge(config, IMAGE, "host").args == args


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(Invalid):
        merge(ContainerConfig(image="x"), ImageConfig(), "host")


def test_the_last_of_a_name_wins_and_a_bare_name_removes() -> None:
    found = environment(("PATH=/bin", "A=1", "B=2"), ("A=3", "B"), "box")
    assert found == ("PATH=/bin", "HOSTNAME=box", "A=3")
    assert environment(("PATH=/bin",), (), "box", tty=True) == ("PATH=/bin", "HOSTNAME=box", "TERM=xterm")
    assert environment(("TERM=dumb",), (), "box", tty=True)[2:] == ("TERM=dumb",)


def test_only_plain_ports_of_an_image_count() -> None:
    assert plain_ports(("80", "53/UDP", "8000-8010/tcp", "9/sctp", "70000")) == ("80/tcp", "53/udp")


KILL = (
    "6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,oom_memcg=/m/acme,"
    "task_memcg=/m/acme/web/i,task=python3,pid=77,uid=1000"
)


def test_the_kernels_log_names_process_and_group() -> None:
    kill = kmsg.parse(KILL)
    assert kill and (kill.limit_group, kill.group, kill.process, kill.pid) == ("m/acme", "m/acme/web/i", "python3", 77)
    assert kmsg.parse("6,1,2,-;usb 1-1: new device") is None
    assert kmsg.parse(KILL.replace("CONSTRAINT_MEMCG", "CONSTRAINT_NONE")) is None


def test_levels_follow_the_tree() -> None:
    assert [level_of(p) for p in ("acme", "acme/web", "acme/web/" + "a" * 64, "default/" + "a" * 64)] == [
        "team",
        "app",
        "instance",
        "instance",
    ]


def test_an_end_for_want_of_memory_says_the_figures() -> None:
    end = ExitRecord(code=137, signal=9, oom_killed=True, memory_limit_bytes=512 << 20, finished_ns=10**18)
    assert "used 512 MB of 512 MB" in sentences.end_sentence(end, "")
    assert sentences.end_sentence(ExitRecord(code=0), "") == ""
    assert "SIGTERM" in sentences.end_sentence(ExitRecord(code=143, signal=15, finished_ns=1), "")
    assert sentences.size(1536) == "1.5 KB"


@pytest.mark.parametrize(
    "argv",
    [["--subnet-pool", "x"], ["--subnet-pool", "10.0.0.0/30"], ["--max-disk", "5"], ["--state", "/" + "x" * 120]],
)
def test_a_command_line_that_cannot_work_is_refused_in_words(argv: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        from_arguments(argv)
    assert len(str(refused.value)) > 20


def test_two_states_have_two_short_ids(tmp_path: Path) -> None:
    assert short_id(tmp_path / "a") != short_id(tmp_path / "b")
    assert from_arguments(["--state", str(tmp_path)]).short == short_id(tmp_path)


def test_errors_carry_their_status() -> None:
    assert (NotFound("x").status, Conflict("x").status, Unsupported("x").status) == (404, 409, 501)
