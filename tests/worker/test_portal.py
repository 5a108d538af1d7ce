"""The portal's interface over HTTP: ETags, tokens, and troubles in words."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.platform import TOKEN, SmallPortal, small_portal
from tests.worker.test_difference import instance
from worker.config import WorkerConfig, load
from worker.errors import PortalFault
from worker.portal import Portal
from worker.protocol import LimitHit, Report, Route


@pytest.fixture
def far() -> Iterator[SmallPortal]:
    with small_portal() as found:
        yield found


def settings(tmp_path: Path, port: int, token: str = TOKEN, host: str = "local") -> WorkerConfig:
    (tmp_path / "token").write_text(token)
    return load({
        "MOORAGE_STATE": str(tmp_path), "MOORAGE_PORTAL_URL": f"http://127.0.0.1:{port}", "MOORAGE_HOST_NAME": host,
        "MOORAGE_HOST_TOKEN_FILE": str(tmp_path / "token"),
    })  # fmt: skip


def test_what_is_desired_comes_whole_and_not_again_while_it_is_the_same(far: SmallPortal, tmp_path: Path) -> None:
    portal = Portal(settings(tmp_path, far.port))
    wanted = instance(environment={"A": "ü"}, command=("x",))
    far.want(wanted, routes=(Route(app="hello", names=("hello.localhost",), instances=("web-1",)),))
    found = portal.desired()
    assert found == far.desired
    assert found and found.instances == (wanted,)
    assert portal.desired(found.generation) is None


def test_a_report_is_answered_with_the_next_desired_state(far: SmallPortal, tmp_path: Path) -> None:
    portal = Portal(settings(tmp_path, far.port))
    report = Report(host="local", generation="g0", route_generation=0, instances=())
    assert portal.report(report) is None
    far.want(instance())
    assert portal.report(report) == far.desired
    assert len(far.reports) == 2


def test_hits_are_told(far: SmallPortal, tmp_path: Path) -> None:
    Portal(settings(tmp_path, far.port)).limit_hits([LimitHit(instance="web-1", limit="memory", sentence="s")])
    assert far.hits[0]["sentence"] == "s"


def test_a_wrong_token_is_said_without_showing_it(far: SmallPortal, tmp_path: Path) -> None:
    with pytest.raises(PortalFault, match=r"401.*Check the host token") as fault:
        Portal(settings(tmp_path, far.port, token="s3cret")).desired()
    assert "s3cret" not in str(fault.value)


def test_a_missing_token_is_said_with_the_way_out(far: SmallPortal, tmp_path: Path) -> None:
    c = settings(tmp_path, far.port)
    c.token_file.unlink()
    with pytest.raises(PortalFault, match=r"manage\.py bootstrap"):
        Portal(c).desired()


def test_an_answer_for_another_host_is_refused(far: SmallPortal, tmp_path: Path) -> None:
    far.desired = replace(far.desired, host="other")
    with pytest.raises(PortalFault, match="for host 'other'"):
        Portal(settings(tmp_path, far.port)).desired()


def test_a_portal_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PortalFault, match="cannot be reached"):
        Portal(settings(tmp_path, 1)).desired()


def test_a_kept_connection_that_was_closed_meanwhile_is_opened_again(far: SmallPortal, tmp_path: Path) -> None:
    portal = Portal(settings(tmp_path, far.port))
    assert portal.desired() == far.desired
    assert portal._connection and portal._connection.sock
    portal._connection.sock.shutdown(socket.SHUT_RDWR)
    assert portal.desired() == far.desired
