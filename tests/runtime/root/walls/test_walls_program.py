"""Overwriting the runtime's own program from inside (CVE-2019-5736), by a chmod to the mode it has: a write gets ETXTBSY anyway.

With a user namespace the host's files are nobody's inside. Without one, as for the command line, the interpreter is executed from
a read-only clone of its file; the functions that tests call in their own process have no such clone, which is the switch.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.oci.spec import Spec
from tests.runtime.root.walls.conftest import ALL, COMMAND, HERE, PROGRAM, Walls, Yard, outcomes

RUNTIME = HERE.parents[3] / "scripts/moorage-oci"
OWN, FIRST = "change_own_program", "change_first_program"
UNCONFINED = Walls(frozenset(("user", "filter", "capabilities")))


def by_itself(spec: Spec) -> Spec:
    """The image's entrypoint is a link to /proc/self/exe: the runtime executes itself, in the container."""
    return replace(spec, process=replace(spec.process, args=("/proc/self/exe", *spec.process.args[1:])))


def shielded(yard: Yard, *words: str | Path) -> str:
    """What the real command line's container prints."""
    command = [str(RUNTIME), "--root", str(yard.folder / "states"), *map(str, words)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def running(yard: Yard) -> Iterator[str]:
    """A container of the real command line's, root outside too."""
    bundle = yard.bundle(yard.spec("sleep", "600", walls=COMMAND))
    out = (yard.folder / "nothing").open("w")
    command = [
        str(RUNTIME),
        "--root",
        str(yard.folder / "states"),
        "run",
        "--detach",
        "--bundle",
        str(bundle),
        bundle.name,
    ]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=60)
    yield bundle.name
    yard.command("delete", "--force", bundle.name)


def test_the_command_line_lends_a_program_that_nobody_can_change(yard: Yard) -> None:
    bundle = yard.bundle(by_itself(yard.attacking([OWN], COMMAND)))
    said = shielded(yard, "run", "--bundle", bundle, bundle.name)
    assert outcomes(said, [OWN]) == {OWN: "EROFS"}


def test_nor_by_an_exec(yard: Yard, running: str) -> None:
    given = json.dumps({"names": [OWN], "calls": {}})
    said = shielded(yard, "exec", running, "/proc/self/exe", "-I", "-S", "-B", "/walls/attacks", given)
    assert outcomes(said, [OWN]) == {OWN: "EROFS"}


def test_without_the_clone_root_inside_could(yard: Yard, running: str) -> None:
    code, said = yard.run(by_itself(yard.attacking([OWN], COMMAND)))
    assert (code, outcomes(said, [OWN])) == (0, {OWN: "through"})
    given = json.dumps({"names": [OWN], "calls": {}})
    code, said = yard.command("exec", running, "/proc/self/exe", "-I", "-S", "-B", "/walls/attacks", given)
    assert (code, outcomes(said, [OWN])) == (0, {OWN: "through"})


def test_a_user_namespace_holds_without_the_clone(yard: Yard) -> None:
    code, said = yard.run(by_itself(yard.attacking([OWN], Walls(frozenset(("filter", "capabilities"))))))
    assert (code, outcomes(said, [OWN])) == (0, {OWN: "EPERM"})
    code, said = yard.launch(by_itself(yard.attacking([OWN])))
    assert (code, outcomes(said, [OWN])) == (0, {OWN: "EPERM"})


@pytest.mark.parametrize(
    ("walls", "real", "expected"),
    [(COMMAND, False, "EACCES"), (ALL, False, "EACCES"), (UNCONFINED, True, "EROFS"), (UNCONFINED, False, "through")],
    ids=["not dumpable", "in a user namespace", "the clone", "none"],
)
def test_an_init_at_its_gate_is_not_to_be_changed(yard: Yard, walls: Walls, real: bool, expected: str) -> None:
    """/proc/1/exe is the runtime's program until the container is started; an exec gets in before."""
    bundle = yard.bundle(yard.spec("sleep", "600", walls=walls))
    words = ("create", "--bundle", str(bundle), bundle.name)
    if real:
        command = [str(RUNTIME), "--root", str(yard.folder / "states"), *words]
        with (yard.folder / "nothing").open("w") as out:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=60)
    else:
        assert yard.command(*words)[0] == 0
    given = json.dumps({"names": [FIRST], "calls": {}})
    _, said = yard.command("exec", bundle.name, str(PROGRAM), "-I", "-S", "-B", "/walls/attacks", given)
    yard.command("delete", "--force", bundle.name)
    assert outcomes(said, [FIRST]) == {FIRST: expected}


@pytest.mark.parametrize(("nnp", "user"), [(True, "1000"), (False, "0")], ids=["no_new_privs", "without"])
def test_a_setuid_program_of_the_image_gives_nothing_under_no_new_privs(yard: Yard, nnp: bool, user: str) -> None:
    """Without it, as Docker by default, it gives root of the container, which is nobody outside."""
    image = yard.image()
    shutil.copy("/usr/bin/id", image / "bin/who")
    (image / "bin/who").chmod(0o4755)
    spec = yard.spec("/bin/who", "-u", walls=replace(COMMAND, nnp=nnp))
    spec = replace(spec, process=replace(spec.process, user=replace(spec.process.user, username="app")))
    assert yard.run(spec, image=image) == (0, f"{user}\n")
