"""The portal's settings on a state directory of the test process's own. Set before `portal.config` is read."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_state = Path(tempfile.mkdtemp(prefix="moorage-test-"))
_owner = os.getpid()


def _clean() -> None:
    if os.getpid() == _owner:
        shutil.rmtree(_state, ignore_errors=True)


atexit.register(_clean)
for _name in [name for name in os.environ if name.startswith("MOORAGE_")]:
    if not _name.startswith("MOORAGE_TEST_"):
        del os.environ[_name]
os.environ["MOORAGE_STATE"] = str(_state)
os.environ["MOORAGE_RUN"] = str(_state / "run")
os.environ["MOORAGE_REDIS_URL"] = f"unix://{_state}/valkey.sock"
if "MOORAGE_TEST_DATABASE_URL" in os.environ:
    os.environ["MOORAGE_DATABASE_URL"] = os.environ["MOORAGE_TEST_DATABASE_URL"]

from portal.secrets import ensure  # noqa: E402

ensure(_state / "portal" / "secrets")

from portal.settings import *  # noqa: E402, F403
from portal.settings import DATABASES  # noqa: E402

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, not memory: threads and served applications must see the same rows.
    DATABASES["default"]["TEST"] = {"NAME": str(_state / "portal" / "test.sqlite3")}
