"""`make test` fails where root or a tool is missing, before anything runs; nothing is skipped; too long a run is told."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import dealing, lint, preflight, test, vm
from scripts.state import PYTHON, ROOT

GO_ON = "import sys; from scripts import test; test.run = lambda *_: sys.exit('it went on'); sys.exit(test.main([]))"
NOBODY = ("unshare", "--user", "--map-user=65534", "--map-group=65534")  # no rights, and yet the owner of these files
ROOT_SENTENCE = "this needs root, because it makes namespaces, cgroups and mounts: run it with sudo.\n"


def run(before: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m scripts.test`, which stops when its first group would run."""
    command = [*before, str(PYTHON), "-c", GO_ON]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_with_all_that_is_needed_the_tests_would_run() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (1, "it went on\n")


def test_without_root_no_test_runs() -> None:
    done = run(NOBODY)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", ROOT_SENTENCE)


def test_a_test_that_needs_root_fails_without_it() -> None:
    named = "tests/setup/test_doctor.py::test_each_kind_of_leftover_is_counted_by_name_and_none_of_another_state"
    command = [*NOBODY, str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", "-m", "root", named]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("1 failed") and "skipped" not in last and "passed" not in last, done.stdout


def test_make_ends_without_root_before_it_sets_anything_up() -> None:
    outer = ("MAKE", "MFLAGS")
    own = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    done = subprocess.run([*NOBODY, "make", "test"], cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"moorage: {ROOT_SENTENCE}make: ***")


def hide(program: str, folder: Path) -> tuple[str, ...]:
    """A command that runs another where this program is nowhere: its folders are overlaid by a whiteout."""
    folders = [Path(program).parent] if program.startswith("/") else [Path("/usr/sbin"), *map(Path, os.get_exec_path())]
    holding = dict.fromkeys(place.resolve() for place in folders if (place / Path(program).name).exists())
    assert holding, f"{program} is not here: run make setup-dev"
    steps = []
    for number, place in enumerate(holding):
        above = folder / str(number)
        above.mkdir()
        os.mknod(above / Path(program).name, stat.S_IFCHR)
        steps.append(f"mount -t overlay none -o lowerdir={above}:{place} {place}")
    return "unshare", "-m", "sh", "-ec", " && ".join([*steps, 'exec "$@"']), "sh"


@pytest.mark.parametrize(
    "program", ["haproxy", "chromium", "docker", "docker-compose", "podman", vm.program("virtiofsd")]
)
def test_without_a_tool_no_test_runs_and_it_is_named_with_its_reason(program: str, tmp_path: Path) -> None:
    done = run(hide(program, tmp_path))
    rows = [row.split("\t") for row in preflight.PACKAGES.read_text().splitlines() if not row.startswith("#")]
    named, why = next((row[1], row[3]) for row in rows if program in row[1].split("|"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"{named} ({why}) is missing: run make test, which installs it, or install it by hand.\n")


def test_on_a_kernel_without_overlay_no_test_runs(tmp_path: Path) -> None:
    listed = tmp_path / "filesystems"
    listed.write_text("nodev\ttmpfs\n\text4\n")
    hidden = (
        f"mount --bind {listed} /proc/filesystems && {{ [ ! -d /lib/modules ] || mount -t tmpfs none /lib/modules; }}"
    )
    done = run(("unshare", "-m", "sh", "-ec", f'{hidden} && exec "$@"', "sh"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no overlay file system" in done.stderr and done.stderr.count("\n") == 1


# in two pieces, or lint would find them here
SKIPPING = (
    ["@pytest.mark.", "skipif(not ROOT)"],
    ["    pytest.", "skip('no docker')"],
    ["@pytest.mark.", "xfail"],
    ["raise Skip", "Test"],
)


@pytest.mark.parametrize("line", ["".join(parts) for parts in SKIPPING])
def test_lint_finds_a_test_that_is_skipped(line: str) -> None:
    assert lint.skips(["import pytest", line, "    assert skipped_over(line)"]) == [2]


@dataclass(frozen=True)
class Named:
    nodeid: str


def dealt(folder: Path) -> list[Named]:
    """Three files: one in two pieces."""
    names = [f"a.py::{n}" for n in range(dealing.PIECE + 1)] + ["b.py::x[1]", "b.py::x[2]", "c.py::one"]
    (folder / dealing.COLLECTED).write_text("".join(f"{name}\n" for name in names))
    return [Named(name) for name in names]


def test_guests_deal_all_tests_out_among_themselves_from_both_ends(tmp_path: Path) -> None:
    tests = dealt(tmp_path)
    first, second = (dealing.Dealer(tmp_path, guest).deal(tests) for guest in (1, 2))
    assert [next(first).nodeid, next(second).nodeid, next(second).nodeid] == ["a.py::0", "c.py::one", "b.py::x[1]"]
    rest = [[test.nodeid for test in guest] for guest in (second, first)]
    assert rest == [["b.py::x[2]", f"a.py::{dealing.PIECE}"], [f"a.py::{n}" for n in range(1, dealing.PIECE)]]


def test_the_log_says_how_each_test_went_where_and_which_did_not_run(tmp_path: Path) -> None:
    tests = dealt(tmp_path)
    (tmp_path / dealing.HOST_ONLY).write_text("d.py::kernel  the guest's kernel is too old\n")
    guest = dealing.Dealer(tmp_path, 1)
    for one in tests[:-1]:
        for outcome in ("passed", "failed" if one == tests[0] else "passed"):
            guest.note(one.nodeid, outcome, 1.25, last=False)
        guest.note(one.nodeid, "passed", 0, last=True)
    guest.note("c.py::one", "failed", 1, last=False, why="it said: passed  1.0 s  c.py::one")  # and was cut off
    lines, missed = dealing.summary(tmp_path)
    assert lines[:2] == ["failed     2.5 s  a.py::0", "passed     2.5 s  a.py::1"]
    assert missed == ["c.py::one"] and "not run: c.py::one" in lines
    assert lines[-2:] == ["1 tests need the host:", "d.py::kernel  the guest's kernel is too old"]


def test_a_run_within_the_budget_ends_with_its_total() -> None:
    assert test.verdict({"lint": 60, "unit": 240, "root": 600}, []) == ["tests: all passed in 900 s"]
    of_its_own = {"unit": 300.0, "vm": 1200.0}
    assert test.verdict(of_its_own, ["vm"]) == ["tests: failed: vm in 1500 s"]


def test_a_run_that_takes_longer_than_the_budget_is_told_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0, 40, 40, 300, 300, 901, 901, 902])
    monkeypatch.setattr(test, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(test, "run", lambda name, environment: 0)
    assert test.main([]) == 0
    *groups, warning, last = capsys.readouterr().out.splitlines()
    assert groups[2] == "=== root: passed in 601 s" and len(groups) == 4
    assert warning.startswith("warning: 902 s are more than the 900 s that make test may take, 601 s of them in root:")
    assert last == "tests: all passed in 902 s"
