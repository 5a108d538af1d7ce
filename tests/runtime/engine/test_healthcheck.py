"""What follows from probes, and how a check is put together: by Docker's rules."""

from __future__ import annotations

import pytest

from runtime.engine.detachkeys import Keys, parse_keys
from runtime.engine.errors import Invalid
from runtime.engine.healthcheck import Check, Health, Probe, merged
from runtime.images.format import Healthcheck

S = 10**9
IMAGE = Healthcheck(test=("CMD", "image"), interval_ns=7 * S, retries=5)


def probe(code: int, at_s: float = 100) -> Probe:
    return Probe(start_ns=int(at_s * S), end_ns=int(at_s * S) + 1, code=code, output="")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, Check(test=("CMD", "image"), interval_ns=7 * S, retries=5)),
        (Check(retries=1), Check(test=("CMD", "image"), interval_ns=7 * S, retries=1)),
        (Check(test=("CMD-SHELL", "own")), Check(test=("CMD-SHELL", "own"), interval_ns=7 * S, retries=5)),
    ],
)
def test_what_is_not_asked_for_is_the_images(asked: Check | None, expected: Check) -> None:
    assert merged(asked, IMAGE) == expected


def test_without_a_test_there_is_no_check_and_none_is_one_that_does_not_run() -> None:
    assert merged(None, None) is None and merged(Check(retries=3), None) is None
    none = merged(Check(test=("NONE",)), IMAGE)
    assert none and not none.runs


def test_the_shell_is_the_images() -> None:
    check = Check(test=("CMD-SHELL", "a | b"))
    assert check.args(()) == ("/bin/sh", "-c", "a | b")
    assert check.args(("/bin/ash", "-ec")) == ("/bin/ash", "-ec", "a | b")
    assert Check(test=("CMD", "a", "b")).args(("x",)) == ("a", "b")


def test_so_many_failures_in_a_row_are_ill_and_one_success_is_well() -> None:
    health, check = Health(), Check(test=("CMD", "x"))
    assert [health.take(probe(code), check, 0) for code in (1, -1, 0, 1, 1, 1, 1, 0)] == [
        *(False, False, True, False, False, True, False, True),
    ]
    assert (health.status, health.streak, len(health.log)) == ("healthy", 0, 5)


def test_failures_in_the_start_period_count_only_once_it_was_well() -> None:
    check = Check(test=("CMD", "x"), start_period_ns=60 * S, retries=1)
    health = Health()
    assert not health.take(probe(1, 159), check, 100 * S)
    assert health.wait_s(check, 59) == 5 and health.wait_s(check, 61) == 30
    assert health.take(probe(1, 160), check, 100 * S) and health.status == "unhealthy"
    health = Health()
    health.take(probe(0, 110), check, 100 * S)
    assert health.take(probe(1, 111), check, 100 * S) and health.wait_s(check, 12) == 30


@pytest.mark.parametrize(
    ("text", "keys"), [("", b"\x10\x11"), ("a", b"a"), ("ctrl-@,ctrl-[,DEL", b"\0\x1b\x7f"), ("ctrl-z,_", b"\x1a_")]
)
def test_keys_are_read(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ctrl-A", "ab", ",", "é", ",".join("a" * 17)])
def test_other_keys_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_keys(text)


def test_what_was_held_back_is_given_on_when_it_was_no_sequence() -> None:
    keys = Keys(b"\x10\x11")
    assert keys.take(b"a\x10") == b"a" and keys.take(b"b") == b"\x10b" and not keys.seen
    assert keys.take(b"\x10\x10") == b"\x10" and keys.take(b"\x11rest") == b"" and keys.seen
