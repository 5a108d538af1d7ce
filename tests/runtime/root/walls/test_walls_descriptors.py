"""Descriptors: those of the runtime that could leak in (2024), and those that a program passes out of its container."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.kernel import process
from runtime.oci import program
from runtime.oci.spec import Mount, Spec
from tests.runtime.root.oci.conftest import until
from tests.runtime.root.walls.conftest import ALL, COMMAND, Walls, Yard, outcomes

TAKE, GIVE, LEAK = "open_by_a_folder_that_came", "give_stdout_away", "see_a_leak"


def shared(yard: Yard) -> Path:
    """A volume that everybody may write to."""
    folder = yard.folder / f"shared{yard.made}"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def with_volume(spec: Spec, folder: Path) -> Spec:
    """Mounted on /shared."""
    volume = Mount(destination="/shared", type="bind", source=str(folder), options=("bind", "rw"))
    return replace(spec, mounts=(*spec.mounts, volume))


@pytest.mark.parametrize(
    ("walls", "expected"),
    [(Walls(frozenset(("filter", "capabilities"))), "EACCES"), (Walls(frozenset(("filter", "capabilities", "user"))), "through")],
    ids=["a range of ids for each", "without"],
)  # fmt: skip
def test_a_folder_from_another_container_gives_no_right_to_its_files(yard: Yard, walls: Walls, expected: str) -> None:
    """Who passes a folder on passes the way to its names, not what belongs to its own ids alone."""
    folder = shared(yard)
    name, _ = yard.start(with_volume(yard.attacking(["hand_out_a_folder"], walls), folder))
    asyncio.run(until(lambda: (folder / "door").exists()))
    code, said = yard.run(with_volume(yard.attacking([TAKE], walls), folder))
    yard.command("delete", "--force", name)
    assert (code, outcomes(said, [TAKE])) == (0, {TAKE: expected})


def test_output_that_was_passed_on_does_not_keep_a_container_from_ending(yard: Yard) -> None:
    """Its exit is recorded when its first process ends; somebody who waits for the end of its output would wait for ever."""
    folder = shared(yard)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "taker"))
        (folder / "taker").chmod(0o666)
        listening.listen(1)
        said, saying = os.pipe()

        def hold() -> None:
            taker, _ = listening.accept()
            _, fds, _, _ = socket.recv_fds(taker, 8, 1)
            os.write(saying, b"held" if os.fstat(fds[0]).st_ino else b"")
            time.sleep(600)

        pid = process.fork(hold)
    try:
        began = time.monotonic()
        code, text = yard.launch(with_volume(yard.attacking([GIVE]), folder))
        assert (code, outcomes(text, [GIVE])) == (0, {GIVE: "through"})
        assert os.read(said, 8) == b"held"
        assert time.monotonic() - began < 60
        assert process.runs(pid)  # and holds it still
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("walls", [ALL, COMMAND], ids=["engine", "podman"])
@pytest.mark.parametrize("closed", [True, False], ids=["held", "without"])
def test_no_descriptor_of_the_makers_reaches_the_program(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, walls: Walls, closed: bool
) -> None:
    leak = yard.folder / "leak"
    leak.touch()
    fd = os.open(leak, os.O_RDONLY)
    try:
        os.set_inheritable(fd, True)
        if not closed:
            monkeypatch.setattr(program, "close_all_but", lambda *keep: None)
        code, said = yard.run(yard.attacking([LEAK], walls, leak="/leak"))
    finally:
        os.close(fd)
    assert (code, outcomes(said, [LEAK])) == (0, {LEAK: "empty" if closed else "through"})
