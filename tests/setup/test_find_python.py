"""Which Python .venv is made with, on machines that have little: everything the scripts see is a folder of fakes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.state import ROOT

SENTENCE = "Moorage needs Python 3.12 or newer"
REFUSES = "exit 127"
OLD = "sys.version_info = (3, 11, 2)"
BARE = "sys.modules['ensurepip'] = None"


class Machine:
    """A checkout, a home and a PATH with nothing but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.home, self.bin = folder / "checkout", folder / "home", folder / "bin"
        for made in (self.checkout / "scripts", self.checkout / "requirements", self.home, self.bin):
            made.mkdir(parents=True)
        for name in ("find_python.sh", "setup.sh"):
            shutil.copy(ROOT / "scripts" / name, self.checkout / "scripts")

    def put(self, name: str, script: str) -> Path:
        """A program of this name on PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def put_python(self, *, but: str = "pass", name: str = "python3") -> Path:
        """The Python of this test run, changed by a statement; it can only run `-c`."""
        program = f"import sys; {but}; exec(sys.argv[1])"
        return self.put(name, f'[ "$1" = -c ] || exit 2\nexec "{sys.executable}" -c "{program}" "$2"')

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """One of the checkout's scripts."""
        return subprocess.run(
            ["/bin/sh", f"scripts/{script}", *arguments], cwd=self.checkout, capture_output=True, text=True, check=False,
            env={"PATH": str(self.bin), "HOME": str(self.home), "PIP_NO_INDEX": "1", **environment},
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


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
    for name, script in {
        "id": "echo 0", "mktemp": f'echo "{machine.home}/log"', "apt-get": f'echo "$*" >>"{machine.home}/asked"', "haproxy": "",
        "nft": "", "ip": "", "mkfs.ext4": "", "setpriv": "", "tini-static": "",
        "rm": "", "dirname": "echo scripts", "sha256sum": "", "cut": "", "sh": 'exec /bin/sh "$@"',
    }.items():  # fmt: skip
        machine.put(name, script)
    done = machine.run("setup.sh", "up")
    assert f"moorage: python3-venv is missing (Python 3.{sys.version_info.minor} cannot make .venv" in done.stdout
    assert (machine.home / "asked").read_text().splitlines()[-1].endswith("--no-install-recommends python3-venv")
    assert SENTENCE in done.stderr
