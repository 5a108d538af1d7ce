"""The command line against a whole platform, as a pipeline uses it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.trial import Trial
from tests.e2e.conftest import build_demo

pytestmark = pytest.mark.e2e

type Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(platform: Trial, tmp_path: Path) -> Run:
    """Logs in, and runs commands with that login."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
    environment |= {"XDG_CONFIG_HOME": str(tmp_path / "config"), "COLUMNS": "200"}

    def moorage(*arguments: str, sent: str = "", stdin: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "moorage", *arguments]
        if stdin is not None:
            with stdin.open("rb") as file:
                return subprocess.run(
                    command, env=environment, stdin=file, capture_output=True, text=True, check=False, timeout=120
                )
        return subprocess.run(
            command, env=environment, input=sent, capture_output=True, text=True, check=False, timeout=120
        )

    assert platform.call("GET", "/api/v1/apps")[0] == 200  # makes the token
    done = moorage("login", platform.url, sent=f"{platform.token}\n")
    assert done.returncode == 0, done.stderr
    return moorage


def test_a_login_is_kept_for_its_owner_alone_and_says_who(run: Run, platform: Trial, tmp_path: Path) -> None:
    kept = tmp_path / "config/moorage/login.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert json.loads(run("whoami", "--json").stdout)["user"] == "admin"
    wrong = run("login", platform.url, sent="moor_wrong\n")
    assert wrong.returncode == 1 and "This token is not known" in wrong.stderr
    assert run("whoami").returncode == 0  # the one before is still there


def test_deploys_send_what_is_missing_and_end_as_the_app_does(run: Run, platform: Trial, tmp_path: Path) -> None:
    assert platform.call("POST", "/api/v1/apps", {"app": "lined", "plan": "small"})[0] == 201
    below = ("--size-mb", "30", "--seed", "9", "--top-mb", "5")
    first = build_demo(tmp_path / "1.tar", *below, "--top-seed", "1", "--tag", "lined:1")
    second = build_demo(tmp_path / "2.tar", *below, "--top-seed", "2", "--tag", "lined:2")
    done = run("deploy", "-a", "lined", str(first), "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["state"] == "live"
    assert platform.get("lined")[0] == 200
    piped = run("deploy", "-a", "lined", "-", "--json", stdin=second)
    assert piped.returncode == 0, piped.stderr
    found = json.loads(piped.stdout)
    assert 5 << 20 < found["sent_bytes"] < 6_000_000 < 30 << 20 < found["spared_bytes"]

    crash = build_demo(tmp_path / "crash.tar", "--crash", "--tag", "lined:bad")
    failed = run("deploy", "-a", "lined", str(crash))
    assert failed.returncode == 1
    assert "failed" in failed.stderr and "serves on" in failed.stderr
    assert json.loads(run("status", "-a", "lined", "--json").stdout)["release"] == 2

    rows = json.loads(run("releases", "-a", "lined", "--json").stdout)
    assert [(row["number"], row["live"]) for row in rows] == [(3, False), (2, True), (1, False)]
    back = run("rollback", "-a", "lined", "1")
    assert back.returncode == 0 and "Release 1 of lined is live" in back.stdout, back.stderr
    assert "GET /" in run("logs", "-a", "lined").stdout or run("logs", "-a", "lined", "--json").stdout
    assert "lined" in run("apps").stdout
    assert platform.call("DELETE", "/api/v1/apps/lined")[0] == 202


def test_what_cannot_be_done_is_a_sentence_and_status_1(run: Run, tmp_path: Path) -> None:
    missing = run("status", "-a", "nowhere")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("moorage: There is no app 'nowhere'")
    as_json = run("status", "-a", "nowhere", "--json")
    assert as_json.returncode == 1 and json.loads(as_json.stdout)["code"] == "not_found"
    absent = run("deploy", "-a", "nowhere", str(tmp_path / "absent.tar"))
    assert absent.returncode == 1 and "cannot be read" in absent.stderr
    assert run("deploy").returncode == 2
