"""The engine's own line: what it refuses to mount, and what --trusted opens, which is what was asked for and nothing beside."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.root.engine.conftest import SCRATCH, Engine, busybox_archive, running
from tests.runtime.root.walls.conftest import CALLS, HERE, LENT, PROGRAM, outcomes
from tests.runtime.root.walls.test_walls_calls import CAPABILITIES, FILTER, HELD, NAMES


@pytest.fixture(scope="module")
def trusted() -> Iterator[Engine]:
    """One that was started with --trusted."""
    assert os.geteuid() == 0, "these tests need root"
    with running(busybox_archive(), Path(tempfile.mkdtemp(prefix="moorage-test-", dir=SCRATCH)), "--trusted") as engine:
        yield engine


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One that was not."""
    with running(busybox_archive(), Path(tempfile.mkdtemp(prefix="moorage-test-", dir=SCRATCH))) as engine:
        yield engine


def tried(engine: Engine, names: list[str], *options: str, **target: object) -> dict[str, str]:
    """All attacks in a container of that engine's."""
    lent = [f"-v={source}:{target}:ro" for source, target in (*LENT.items(), (HERE, "/walls"))]
    given = json.dumps({"names": names, "calls": CALLS, "target": target})
    command = [str(PROGRAM), "-I", "-S", "-B", "/walls/attacks", given]
    return outcomes(engine.docker("run", "--rm", *lent, *options, "busybox", *command), names)


NO_MAPPED_BINDS = pytest.mark.host_only(
    "binds are mapped to the container's ids, which the guest's root, an overlay, cannot be"
)
OPENED = {
    "nothing asked": ((), set()),
    "every capability": (("--cap-add=ALL",), {CAPABILITIES}),
    "no filter": (("--security-opt=seccomp=unconfined",), {FILTER}),
    "privileged": (("--privileged",), {FILTER, CAPABILITIES}),
}


@NO_MAPPED_BINDS
@pytest.mark.parametrize("asked", OPENED)
def test_trusted_opens_what_was_asked_for_alone(trusted: Engine, asked: str) -> None:
    options, off = OPENED[asked]
    found = tried(trusted, NAMES, *options)
    through = {name for name, said in found.items() if said == "through"}
    assert {name for name in through if HELD[name] - off} == set()
    # what shows that it was opened: held by the filter, by capabilities, by either
    assert ("keyctl" in through) == (FILTER in off)
    assert ("mount" in through) == (off == {FILTER, CAPABILITIES})


@NO_MAPPED_BINDS
def test_the_hosts_network_comes_with_its_abstract_sockets(trusted: Engine) -> None:
    name = f"moorage-walls-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0" + name)
        listening.listen(2)
        found = [
            tried(trusted, ["abstract_socket", "add_address", "signal_another"], *options, abstract=name, pid=os.getpid())
            for options in ((), ("--network=host", "--cap-add=ALL"))
        ]  # fmt: skip
    assert [said["abstract_socket"] for said in found] == ["ECONNREFUSED", "through"]
    assert {said["add_address"] for said in found} == {
        "EPERM"
    }  # rights of its own user namespace are none over the host's
    assert {said["signal_another"] for said in found} == {"ESRCH"}


@pytest.mark.parametrize("option", [option for options, _ in OPENED.values() for option in options])
def test_another_engine_refuses_to_open_it(engine: Engine, option: str) -> None:
    assert "--trusted" in engine.docker("run", "--rm", option, "busybox", "true", code=125)


def test_a_volumes_folder_that_becomes_a_link_is_not_mounted(engine: Engine) -> None:
    """Between create and start, and again between stop and start, the tenant may have changed what lies in the volume."""
    volume = engine.state / "engine/volumes/v"
    (volume / "sub").mkdir(parents=True)
    (volume / "sub/inside").touch()
    (volume / "link").symlink_to("sub")
    for name in ("sub", "link"):
        body = {"Image": "busybox", "Cmd": ["ls", "/data"], "HostConfig": {"Binds": [f"{volume}/{name}:/data"]}}
        code, answer = engine.call("POST", f"/containers/create?name=from-{name}", body)
        assert code == 201, answer
        assert engine.docker("start", "--attach", f"from-{name}") == "inside\n"
    shutil.rmtree(volume / "sub")
    (volume / "sub").symlink_to("/etc")
    for name in ("sub", "link"):
        code, answer = engine.call("POST", f"/containers/from-{name}/start")
        assert (code, "leads through a symbolic link" in str(answer)) == (400, True), answer
    body["HostConfig"]["Binds"] = [f"{volume}/sub:/data"]  # type: ignore[index]
    code, answer = engine.call("POST", "/containers/create", body)
    assert (code, "only folders below" in str(answer)) == (403, True), answer
    engine.clear()
