"""The folders of states: closed to others, and not believed twice where something may change between a look and a deed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.kernel import process
from runtime.oci.command import making
from runtime.oci.command.store import CommandFault, Container, Store
from runtime.oci.lifecycle import Created
from runtime.oci.spec import Spec
from runtime.oci.state import CONFIG, STATE
from tests.runtime.root.walls.conftest import COMMAND, Yard

NOBODY = 65_534


def as_nobody(deed: Callable[[], object]) -> bool:
    """Whether it can be done by somebody without rights on this host."""

    def child() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            deed()
        except OSError:
            os._exit(1)

    _, status = os.waitpid(process.fork(child), 0)
    return os.waitstatus_to_exitcode(status) == 0


def test_others_on_the_host_neither_read_a_container_nor_open_its_gate(yard: Yard) -> None:
    bundle = yard.bundle(yard.spec("sleep", "600", walls=COMMAND))
    assert yard.command("create", "--bundle", str(bundle), bundle.name)[0] == 0
    folder = yard.folder / "states" / bundle.name

    def open_gate() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gate:
            gate.connect(str(folder / "gate"))

    deeds = (lambda: list(folder.iterdir()), (folder / CONFIG).read_bytes, open_gate)
    try:
        assert [as_nobody(deed) for deed in deeds] == [False, False, False]
        for path, mode in ((folder, 0o755), (folder / CONFIG, 0o644), (folder / "gate", 0o777)):
            path.chmod(mode)
        assert [as_nobody(deed) for deed in deeds] == [True, True, True]
    finally:
        yard.command("delete", "--force", bundle.name)


def test_a_bundle_that_changes_after_create_changes_nothing(yard: Yard) -> None:
    """What was checked is what runs: the init has read it already."""
    bundle = yard.bundle(yard.spec("sleep", "600", walls=COMMAND))
    assert yard.command("create", "--bundle", str(bundle), bundle.name)[0] == 0
    changed = Spec.read(bundle / CONFIG)
    replace(changed, process=replace(changed.process, args=("sleep", "601"))).write(bundle / CONFIG)
    pid = json.loads((yard.folder / "states" / bundle.name / STATE).read_bytes())["init"]["pid"]
    assert yard.command("start", bundle.name)[0] == 0
    seen = Path(f"/proc/{pid}/cmdline").read_bytes()
    yard.command("delete", "--force", bundle.name)
    assert seen == b"sleep\x00600\x00"


@pytest.mark.parametrize("own_copy", [True, False], ids=["held", "without"])
def test_a_bundle_that_changes_after_create_runs_nothing_on_the_host(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, own_copy: bool
) -> None:
    """What `start` and `delete` read is the store's own copy; without one, a link to the bundle, its new hook would be run."""
    bundle = yard.bundle(yard.spec("sleep", "600", walls=COMMAND))
    with monkeypatch.context() as switch:
        if not own_copy:
            switch.setattr(Spec, "write", lambda _spec, path: path.symlink_to(bundle / CONFIG))
        assert yard.command("create", "--bundle", str(bundle), bundle.name)[0] == 0
    written = yard.folder / "written-by-a-hook"
    data = json.loads((bundle / CONFIG).read_bytes())
    data["hooks"] = {"poststart": [{"path": "/bin/busybox", "args": ["touch", str(written)]}]}
    (bundle / CONFIG).write_text(json.dumps(data))
    assert yard.command("start", bundle.name)[0] == 0
    assert yard.command("delete", "--force", bundle.name)[0] == 0
    assert written.exists() != own_copy
    written.unlink(missing_ok=True)


@pytest.mark.parametrize("known", [True, False], ids=["held", "without"])
def test_a_number_that_was_given_to_another_process_is_not_killed(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """A pid on disk is one only together with its start time and the boot."""
    bundle = yard.bundle(yard.spec("sleep", "600", walls=COMMAND))
    assert yard.command("create", "--bundle", str(bundle), bundle.name)[0] == 0
    file = yard.folder / "states" / bundle.name / STATE
    before = file.read_bytes()
    with subprocess.Popen(["sleep", "600"]) as victim:
        state = json.loads(before)
        state["init"]["pid"] = victim.pid  # beside the start time of the one that had it
        file.write_text(json.dumps(state))
        with monkeypatch.context() as switch:
            if not known:
                switch.setattr(process.ProcessRef, "alive", lambda self: process.start_ticks(self.pid) is not None)
            yard.command("kill", bundle.name, "KILL")
        ended = victim.poll() if known else victim.wait(20)
        victim.kill()
    assert ended == (None if known else -9)
    file.write_bytes(before)
    assert yard.command("delete", "--force", bundle.name)[0] == 0


@pytest.mark.parametrize("at_once", [True, False], ids=["held", "without"])
def test_of_two_who_take_the_same_name_at_once_one_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """Looking and making is one deed; as two, with a moment between them, both would have the folder, and each its init."""
    meeting = threading.Barrier(2)
    if not at_once:
        make = Path.mkdir

        def look_then_make(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
            if path.name == "same" and path.exists():
                raise FileExistsError(path)
            if path.name == "same":
                meeting.wait(20)
            make(path, mode, parents, path.name == "same" or exist_ok)

        monkeypatch.setattr(Path, "mkdir", look_then_make)
    taken: list[Container] = []

    def take() -> None:
        with contextlib.suppress(CommandFault):
            taken.append(Store(tmp_path / "states").reserve("same"))

    takers = [threading.Thread(target=take) for _ in range(2)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(20)
    assert len(taken) == (1 if at_once else 2)


def test_an_init_that_failed_before_its_number_was_written_says_why(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = making._record

    def late(container: Container, created: Created, bundle: Path) -> None:
        poll = select.poll()
        poll.register(created.pidfd, select.POLLIN)
        assert poll.poll(20_000)
        record(container, created, bundle)

    monkeypatch.setattr(making, "_record", late)
    image = yard.image()
    (image / "proc").rmdir()
    (image / "proc").symlink_to("/shared")
    code, said = yard.run(yard.spec("true", walls=COMMAND), image=image)
    assert (code, "/proc is a symbolic link" in said) == (1, True), said
