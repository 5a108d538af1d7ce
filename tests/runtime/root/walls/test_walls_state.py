"""The folders of states: closed to others, and not believed twice where something may change between a look and a deed."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.kernel import process
from runtime.oci.command import making
from runtime.oci.command.store import Container
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


@pytest.mark.parametrize("own_copy", [True, False], ids=["held", "without"])
def test_a_bundle_that_changes_after_create_changes_nothing(yard: Yard, own_copy: bool) -> None:
    """What was checked is what runs: the store has a copy of its own, and the init has read it already."""
    spec = yard.spec("cat", "/etc/hostname", walls=COMMAND)
    bundle = yard.bundle(replace(spec, process=replace(spec.process, args=("sleep", "600"))))
    assert yard.command("create", "--bundle", str(bundle), bundle.name)[0] == 0
    name, changed = bundle.name, Spec.read(bundle / CONFIG)
    changed = replace(changed, process=replace(changed.process, args=("sleep", "601"), no_new_privileges=False))
    changed.write(bundle / CONFIG)
    if not own_copy:
        yard.command("delete", "--force", name)
        assert yard.command("create", "--bundle", str(bundle), name)[0] == 0
    pid = json.loads((yard.folder / "states" / name / STATE).read_bytes())["init"]["pid"]
    assert yard.command("start", name)[0] == 0
    seen = Path(f"/proc/{pid}/cmdline").read_bytes()
    yard.command("delete", "--force", name)
    assert seen == (b"sleep\x00600\x00" if own_copy else b"sleep\x00601\x00")


@pytest.mark.parametrize("known", [False, True], ids=["held", "without"])
def test_a_number_that_was_given_to_another_process_is_not_killed(yard: Yard, known: bool) -> None:
    """A pid on disk is one only together with its start time and the boot; with both right, it is the container's."""
    bundle = yard.bundle(yard.spec("sleep", "600", walls=COMMAND))
    assert yard.command("create", "--bundle", str(bundle), bundle.name)[0] == 0
    file = yard.folder / "states" / bundle.name / STATE
    before = file.read_bytes()
    with subprocess.Popen(["sleep", "600"]) as victim:
        state = json.loads(before)
        ref = process.ProcessRef.of(victim.pid)
        state["init"] = {"pid": ref.pid, "start_ticks": ref.start_ticks - (not known), "boot_id": ref.boot_id}
        file.write_text(json.dumps(state))
        yard.command("kill", bundle.name, "KILL")
        ended = victim.wait(20) if known else victim.poll()
        victim.kill()
    assert ended == (-9 if known else None)
    file.write_bytes(before)
    assert yard.command("delete", "--force", bundle.name)[0] == 0


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
