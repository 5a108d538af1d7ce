"""What is known, what is remembered, and what is said of it."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.test_difference import instance
from worker.book import RETRY_S, Book
from worker.config import load
from worker.engine import Inspection
from worker.errors import ConfigFault
from worker.memory import Memory
from worker.protocol import Desired, HealthCheck
from worker.sentences import ending, no_answer

SEEN = Inspection(
    id="x", status="exited", address="", exit_code=3, oom_killed=False, restarts=0, started_at="2026-11-24T10:00:00.100000000Z",
    finished_at="2026-11-24T10:00:00.500000000Z", error="", sentence="",
)  # fmt: skip


def test_passing_states_are_no_urgent_news_and_ends_are() -> None:
    news: list[bool] = []
    book = Book(news.append)
    book.set("a", "starting")
    book.set("a", "starting")
    book.set("a", "healthy", address="10.0.0.1")
    book.forget("a")
    assert news == [False, True, True]


def test_a_new_state_clears_the_old_reason_and_keeps_the_address() -> None:
    book = Book(lambda _: None)
    book.set("a", "unhealthy", reason="why", address="10.0.0.1")
    book.set("a", "healthy")
    found = book.get("a")
    assert found and (found.reason, found.address) == ("", "10.0.0.1")


def test_a_failure_is_final_before_it_was_live_and_tried_again_after_a_while_once_live() -> None:
    now = 1000.0
    book = Book(lambda _: None, clock=lambda: now)
    book.set("a", "exited")
    book.set("b", "failed")
    assert book.gave_up({"b"}) == {"a", "b"}
    now += RETRY_S
    assert book.gave_up({"b"}) == {"a"}


def test_the_last_desired_state_survives_and_is_for_root_alone(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "worker")
    assert memory.desired() is None
    desired = Desired(host="local", generation="g", instances=(instance(environment={"SECRET": "s"}),))
    memory.keep_desired(desired)
    memory.keep_restarts({"web-1": 2})
    assert Memory(tmp_path / "worker").desired() == desired
    assert memory.restarts() == {"web-1": 2}
    assert stat.S_IMODE((tmp_path / "worker/desired.json").stat().st_mode) == 0o600


def test_a_broken_memory_is_left_aside(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    for name in ("desired.json", "restarts.json"):
        (tmp_path / name).write_text("{broken")
    assert memory.desired() is None
    assert memory.restarts() == {}


@pytest.mark.parametrize(("seen", "says"), [
    (SEEN, "It exited with 3 after 0.4 s"), (replace(SEEN, exit_code=0), "listen on port 8080"),
    (replace(SEEN, oom_killed=True), "Killed after 0.4 s"), (replace(SEEN, sentence="Killed at 10:00"), "Killed at 10:00"),
    (replace(SEEN, status="created", error="no such file"), "could not be started: no such file"),
    (replace(SEEN, started_at=""), "It exited with 3. "),
])  # fmt: skip
def test_an_end_has_a_sentence(seen: Inspection, says: str) -> None:
    assert says in ending(instance(), seen)


def test_no_answer_says_where_how_long_and_what_to_look_at() -> None:
    text = no_answer(3000, HealthCheck(kind="http", path="/up", deadline_s=60), "status 500 from /up")
    assert (
        text
        == "No healthy answer from GET /up on port 3000 after 60 s: status 500 from /up. Is its health check right?"
    )
    assert "0.0.0.0" in no_answer(3000, HealthCheck(), "connection refused")


@pytest.mark.parametrize(("name", "value"), [
    ("MOORAGE_STATE", "relative"), ("MOORAGE_PORT", "0"), ("MOORAGE_PORT", "x"), ("MOORAGE_DOMAIN", "No Good"),
    ("MOORAGE_HOST_NAME", "a b"), ("MOORAGE_PORTAL_URL", "ftp://x"), ("MOORAGE_SCHEME", "gopher"),
])  # fmt: skip
def test_a_bad_setting_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ConfigFault, match=name):
        load({name: value})


def test_defaults_are_those_of_one_machine() -> None:
    c = load({})
    assert (str(c.state), c.host, c.bind, c.port, c.registry) == (
        "/var/lib/moorage",
        "local",
        "127.0.0.1",
        8080,
        "127.0.0.1:8080",
    )
    assert c.portal_url == f"unix:{c.run}/web.sock"
    assert load({"MOORAGE_DOMAIN": "apps.example.org"}).bind == "0.0.0.0"
