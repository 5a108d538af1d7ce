"""One whole platform for all end-to-end tests, started by `make up` as a person would."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from scripts.state import PYTHON, ROOT
from scripts.trial import Trial, platform
from tests.e2e.browser import Portal, chromium

ROOM = {"apps": 100, "instances": 200, "cpu_millicores": 40_000, "memory_bytes": 64 << 30}  # for all tests' apps


@pytest.fixture(scope="session")
def platform_running(request: pytest.FixtureRequest) -> Iterator[Trial]:
    """The platform, with the password this fixture chose; its logs are printed when a test failed."""
    with platform(MOORAGE_ADMIN_PASSWORD="a-long-test-password") as trial:
        trial.password = "a-long-test-password"
        assert trial.call("PUT", "/api/v1/teams/admin/quota", ROOM)[0] == 200
        yield trial
        if request.session.testsfailed:
            print("\n".join(log_ends(trial)))


def log_ends(trial: Trial, lines: int = 25) -> Iterator[str]:
    """The last lines of every process's log."""
    for path in sorted((trial.folder / "run/logs").glob("*.log")):
        yield f"--- {path.stem}"
        yield from path.read_text(errors="replace").splitlines()[-lines:]


@pytest.fixture(name="platform")
def _platform(platform_running: Trial) -> Trial:
    """The platform under the name tests use."""
    return platform_running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module."""
    with chromium() as started:
        yield started


@pytest.fixture
def portal(browser: Browser, platform: Trial) -> Iterator[Portal]:
    """The operator, signed in."""
    portal = Portal(browser, platform.url)
    portal.sign_in("admin", platform.password)
    expect(portal.page).to_have_url(re.compile(r"/teams/admin/$"))
    yield portal
    portal.close()


@pytest.fixture(scope="session")
def demo_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `docker save` archive of the demo image."""
    return build_demo(tmp_path_factory.mktemp("demo") / "hello.tar")


@pytest.fixture(scope="session")
def crashing_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same image with a command that exits 3 after two lines."""
    return build_demo(tmp_path_factory.mktemp("demo") / "crash.tar", "--crash")


def build_demo(path: Path, *options: str) -> Path:
    """Build the demo image with options; returns the archive's path."""
    subprocess.run([str(PYTHON), str(ROOT / "scripts/demo_image.py"), "--output", str(path), *options], check=True)
    return path
