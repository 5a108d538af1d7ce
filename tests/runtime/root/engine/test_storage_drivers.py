"""An engine on each storage driver: a container runs, is held to its size in words, and leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.runtime.root.engine.conftest import Engine, eventually, running
from tests.runtime.root.engine.test_limits import limit_events
from tests.runtime.root.storage import grounds

pytestmark = pytest.mark.host_only(
    "in the guest the drivers are looked at by their own suite, for engines are slow there"
)
MB = 1 << 20


@pytest.fixture(scope="module", params=["btrfs", "vfs", "fuse-overlayfs"])
def driver(request: pytest.FixtureRequest) -> str:
    """Its name."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def engine(archive: bytes, driver: str) -> Iterator[Engine]:
    """An engine that was told to use it, on the ground it needs."""
    with ExitStack() as stack:
        base = stack.enter_context(grounds.GROUNDS[driver].make())
        state = base / "state"
        state.mkdir()
        yield stack.enter_context(running(archive, state, "--storage-driver", driver))


def test_the_driver_and_the_reason_are_shown(engine: Engine, driver: str) -> None:
    info = engine.call("GET", "/info")[1]
    assert info["Driver"] == driver
    rows = dict(info["DriverStatus"])
    assert rows["Chosen"].startswith(f"{driver}: it was asked for, the store is on ")
    assert rows["Backing Filesystem"] == ("btrfs" if driver == "btrfs" else "ext4")


def test_a_container_runs_changes_its_image_and_goes(engine: Engine) -> None:
    said = engine.docker(
        "run", "--rm", "busybox", "sh", "-c", "echo new > /etc/secret; cat /etc/secret; id -u; ls /bin/sh"
    )
    assert said == "new\n0\n/bin/sh\n"
    assert engine.docker("run", "--rm", "busybox", "cat", "/etc/secret") == "not yours\n"
    with pytest.raises(AssertionError):
        engine.docker("run", "--rm", "--read-only", "busybox", "touch", "/x")


def test_what_a_container_wrote_is_there_after_a_restart(engine: Engine) -> None:
    engine.docker("run", "--name", "kept", "busybox", "sh", "-c", "cat /count; echo x >> /count", code=None)
    assert engine.docker("start", "-a", "kept") == "x\n"
    assert engine.docker("start", "-a", "kept") == "x\nx\n"
    assert "A /count" in engine.docker("diff", "kept")


def test_a_disk_has_its_size_follows_a_change_and_is_told_full(engine: Engine, driver: str) -> None:
    with limit_events(engine) as events:
        engine.docker("run", "-d", "--name", "full", "--storage-opt", "size=50m", "busybox", "sleep", "600")
        said = engine.docker("exec", "full", "dd", "if=/dev/urandom", "of=/f", "bs=64k", code=1)
        assert ("quota exceeded" if driver == "btrfs" else "No space left") in said
        hit = eventually(lambda: next((e for e in events if e["limit"] == "disk"), None), "the event")
        assert "50 MB of 50 MB" in hit["sentence"] and int(float(hit["allowed"])) == 50 * MB
    code, _ = engine.call("POST", "/containers/full/update", {"DiskSize": 80 * MB})
    assert code == 200
    engine.docker("exec", "full", "dd", "if=/dev/zero", "of=/g", "bs=1M", "count=20")
    engine.docker("rm", "-f", "full")
