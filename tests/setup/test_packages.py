"""Distribution packages: what is missing is named with its reason and installed, and nothing else is."""

from __future__ import annotations

import re
import subprocess

import pytest

from scripts import preflight
from tests.setup.conftest import Machine, Row

ROWS = [Row(*line.split("\t")) for line in preflight.PACKAGES.read_text().splitlines() if not line.startswith("#")]
INSTALL = "install -y -qq --no-install-recommends "


@pytest.fixture
def ready(machine: Machine) -> Machine:
    """A machine that has its .venv and no package at all."""
    machine.let_setup_run()
    machine.have_environment()
    return machine


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[row.package for row in ROWS])
def test_the_one_package_that_is_missing_is_named_with_its_reason_and_installed(ready: Machine, number: int) -> None:
    for row in ready.rows():
        if row != ready.rows()[number]:
            ready.install(row.program)
    done = ready.run("setup.sh", "dev")
    row = ROWS[number]
    assert done.stdout == f"moorage: {row.package} is missing ({row.why}): installing it.\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert ready.asked() == ["update -qq", INSTALL + row.package.rpartition("|")[2]]


@pytest.mark.parametrize(("kind", "needs"), [("up", {"up"}), ("dev", {"up", "dev"})])
def test_a_bare_machine_gets_what_is_wanted_for_this_alone_in_one_call(
    ready: Machine, kind: str, needs: set[str]
) -> None:
    done = ready.run("setup.sh", kind)
    wanted = [row for row in ROWS if row.needs in needs]
    assert done.stdout.splitlines() == [
        f"moorage: {row.package} is missing ({row.why}): installing it." for row in wanted
    ]
    assert ready.asked() == ["update -qq", INSTALL + " ".join(row.package.rpartition("|")[2] for row in wanted)]
    assert {row.needs for row in wanted} == needs


def test_of_two_packages_the_one_that_the_distribution_has_is_installed(ready: Machine) -> None:
    row = next(row for row in ready.rows() if "|" in row.package)
    for other in ready.rows():
        if other != row:
            ready.install(other.program)
    newer, _, older = row.package.partition("|")
    ready.put("apt-cache", f'[ "$2" != {newer} ] || echo "Package: {newer}"')
    assert ready.run("setup.sh", "dev").returncode == 0
    ready.put("apt-cache", "exit 100")
    assert ready.run("setup.sh", "dev").returncode == 0
    assert ready.asked() == ["update -qq", INSTALL + newer, "update -qq", INSTALL + older]


@pytest.mark.parametrize("place", [0, 1])
def test_a_program_is_here_in_each_place_where_distributions_put_it(ready: Machine, place: int) -> None:
    for row in ready.rows():
        ready.install(row.program.split("|")[place if "|" in row.program else 0])
    assert ready.run("setup.sh", "dev").stdout == ""


def test_a_machine_that_has_all_asks_for_nothing(ready: Machine) -> None:
    for row in ready.rows():
        ready.install(row.program)
    done = ready.run("setup.sh", "dev")
    assert (done.returncode, done.stdout, done.stderr, ready.asked()) == (0, "", "", [])


def test_without_root_nothing_is_installed_and_one_sentence_says_so(ready: Machine) -> None:
    ready.put("id", "echo 1000")
    done = ready.run("setup.sh", "dev")
    assert (done.returncode, done.stdout, ready.asked()) == (1, "", [])
    assert done.stderr.endswith("run it with sudo.\n") and done.stderr.count("\n") == 1


def test_an_installation_that_fails_ends_with_its_last_words_and_the_way_out(ready: Machine) -> None:
    ready.put("apt-get", 'echo "E: Unable to locate package" >&2; exit 100')
    done = ready.run("setup.sh", "up")
    packages = " ".join(row.package for row in ROWS if row.needs == "up")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "E: Unable to locate package",
        f"moorage: installing {packages} failed, see above; install them by hand and run this again.",
    ]


def test_without_apt_get_the_packages_are_named(ready: Machine) -> None:
    (ready.bin / "apt-get").unlink()
    done = ready.run("setup.sh", "up")
    packages = " ".join(row.package for row in ROWS if row.needs == "up")
    assert done.returncode == 1
    assert done.stderr == f"moorage: these packages are missing and apt-get is not here to install them: {packages}\n"


def test_each_package_is_one_of_the_distributions() -> None:
    """Its index is fetched only where it is not here yet."""
    if unknown_packages():
        subprocess.run(["apt-get", "update", "-qq"], check=True)
    assert unknown_packages() == []


def unknown_packages() -> list[str]:
    """Packages of the table, and python3-venv, that the index has no version of (none is installed either)."""
    names = [*(row.package for row in ROWS), "python3-venv"]
    each = [one for name in names for one in name.split("|")]
    said = subprocess.run(["apt-cache", "policy", *each], capture_output=True, text=True, check=True).stdout
    return [name for name in names if not re.search(rf"^({name}):\n.*\n  Candidate: \d", said, re.MULTILINE)]


def test_each_package_brings_its_program() -> None:
    """Tests run after set-up: a program that is still not here would be asked for again and again."""
    assert preflight.absent("up", "dev") == {}
