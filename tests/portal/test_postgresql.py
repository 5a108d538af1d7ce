"""The same tests on PostgreSQL: a private cluster, and pytest again with another database."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ON_BOTH = [
    "tests/portal/plans/test_takers.py",
    "tests/portal/releases/test_deploying.py",
    "tests/portal/images/test_collecting.py",
    "tests/portal/images/test_pushing_manifests.py",
]


def _as_postgres(*arguments: str) -> None:
    """The server refuses to run as root."""
    user = pwd.getpwnam("postgres")
    ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    subprocess.run(["setpriv", *ids, *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """URL of a cluster of this test's own, on a unix socket."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    assert versions, "PostgreSQL is missing: apt-get install postgresql"
    programs = versions[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="moorage-pg-"))
    shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    _as_postgres(str(programs / "initdb"), "-D", str(data), "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=60"
    control = (str(programs / "pg_ctl"), "-D", str(data), "-w")
    _as_postgres(*control, "-l", str(folder / "log"), "-o", options, "start")
    yield f"postgresql://postgres@/moorage?host={folder}"
    _as_postgres(*control, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.mark.timeout(400)
def test_takers_and_deployments_behave_the_same_on_postgresql(postgresql: str) -> None:
    environment = os.environ | {"MOORAGE_TEST_DATABASE_URL": postgresql}
    arguments = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *ON_BOTH]
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
