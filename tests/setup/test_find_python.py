"""Which Python .venv is made with, on machines that have little."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.setup.conftest import Machine

SENTENCE = "Moorage needs Python 3.12 or newer"
REFUSES = "exit 127"
OLD = "sys.version_info = (3, 11, 2)"
BARE = "sys.modules['ensurepip'] = None"


def test_a_python_that_is_new_enough_is_taken(machine: Machine) -> None:
    machine.put_python()
    assert machine.run("find_python.sh").stdout == f"{sys.executable}\n"
    assert machine.run("find_python.sh", "venv").stdout == ""


def test_a_shim_that_refuses_to_run_is_passed_over(machine: Machine, tmp_path: Path) -> None:
    machine.put_python()
    shims = tmp_path / "shims"
    shims.mkdir()
    machine.put("shim", REFUSES).rename(shims / "python3")
    done = machine.run("find_python.sh", PATH=f"{shims}:{machine.bin}")
    assert done.stdout == f"{sys.executable}\n", done.stderr


def test_the_python_that_was_asked_for_comes_first(machine: Machine) -> None:
    machine.put("python3", "echo /bin/true")
    given = machine.put_python(name="given")
    assert machine.run("find_python.sh", MOORAGE_PYTHON=str(given)).stdout == f"{sys.executable}\n"


def test_uv_is_used_where_every_python_is_too_old(machine: Machine) -> None:
    machine.put_python(but=OLD)
    fetched = machine.put_python(name="fetched")
    machine.put("uv", f'echo "$*" >>"{machine.home}/asked"\n[ "$2" != find ] || echo "{fetched}"')
    done = machine.run("find_python.sh")
    assert (done.returncode, done.stdout) == (0, f"{sys.executable}\n"), done.stderr
    assert "python install --quiet 3.13" in (machine.home / "asked").read_text()
    assert machine.run("find_python.sh", "venv").stdout == ""


@pytest.mark.parametrize("script", [REFUSES, ""])
def test_nothing_found_is_one_sentence(machine: Machine, script: str) -> None:
    machine.put("python3", script)
    done = machine.run("find_python.sh")
    assert (done.returncode, done.stdout) == (1, "")
    assert SENTENCE in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("but", "why"),
    [
        (BARE, f"Python 3.{sys.version_info.minor} cannot make .venv without it"),
        (f"{OLD}; {BARE}", "no Python here is 3.12 or newer, and it is needed to fetch one"),
        (OLD, ""),
    ],
)
def test_python3_venv_is_asked_for_with_the_reason(machine: Machine, but: str, why: str) -> None:
    machine.put_python(but=but)
    assert machine.run("find_python.sh", "venv").stdout.strip() == why


def test_setup_installs_python3_venv_and_says_why(machine: Machine) -> None:
    (machine.checkout / "requirements/up.txt").touch()
    machine.put_python(but=BARE)
    machine.let_setup_run()
    for row in machine.rows():
        machine.install(row.program)
    done = machine.run("setup.sh", "up")
    assert f"moorage: python3-venv is missing (Python 3.{sys.version_info.minor} cannot make .venv" in done.stdout
    assert machine.asked()[-1].endswith("--no-install-recommends python3-venv")
    assert SENTENCE in done.stderr
