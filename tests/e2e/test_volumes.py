"""A volume on a whole platform: made, attached, written by one release and read by the next, detached, deleted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.trial import Trial
from tests.runtime.root.engine.conftest import busybox_archive

pytestmark = pytest.mark.e2e
SERVE = "mkdir -p /data; date +%s%N >>/data/starts; cd /data; trap 'exit 0' TERM; httpd -f -p $PORT & wait"


def call(platform: Trial, method: str, path: str, body: Any = None, *, code: int = 0) -> Any:
    status, answer = platform.call(method, f"/api/v1{path}", body)
    assert not code or status == code, answer
    return answer


def eventually[T](look: Callable[[], T | None], what: str, patience_s: float = 60) -> T:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    pytest.fail(f"never came: {what}")


@pytest.fixture(scope="module")
def live(platform_running: Trial, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An app that serves the folder of its volume and adds a line at each start."""
    platform = platform_running
    archive = tmp_path_factory.mktemp("keeps") / "keeps.tar"
    archive.write_bytes(busybox_archive("keeps:latest", Cmd=["sh", "-c", SERVE], ExposedPorts={"8080/tcp": {}}))
    call(platform, "POST", "/apps", {"app": "keeps", "plan": "nano"}, code=201)
    status, answer = platform.deploy("keeps", archive)
    assert status == 201, answer
    return "keeps"


def starts(platform: Trial) -> list[str]:
    code, body = platform.get("keeps", "/starts")
    return body.decode().split() if code == 200 else []


def deployed(platform: Trial, number: int) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = call(platform, "GET", f"/apps/keeps/deployments/{number}")
        return found if found["state"] in ("live", "failed", "cancelled") else None

    found = eventually(look, "the end of the deployment")
    assert found["state"] == "live", found
    return found


def test_a_volume_outlives_releases_and_goes_only_when_asked(platform: Trial, live: str) -> None:
    call(platform, "POST", "/volumes", {"volume": "kept", "size_bytes": 32 << 20}, code=201)
    body = {"volume": "kept", "path": "/data", "subpath": "inner"}
    begun = call(platform, "POST", "/apps/keeps/volumes", body, code=202)["deployment"]
    deployed(platform, begun["number"])
    assert len(starts(platform)) == 1
    begun = call(platform, "POST", "/apps/keeps/restart", code=202)
    found = deployed(platform, begun["number"])
    said = [event["text"] for event in found["events"]]
    assert any("stopped first: kept has one writer at a time" in text for text in said), said
    assert len(starts(platform)) == 2
    call(platform, "PATCH", "/volumes/kept", {"size_bytes": 64 << 20}, code=200)

    def used() -> bool:
        row = call(platform, "GET", "/volumes/kept")
        return row["state"] == "here" and row["used_bytes"] > 0

    eventually(used, "the host's word on the volume")
    back_up_and_restore(platform)
    mount = call(platform, "GET", "/apps/keeps/volumes")["volumes"][0]
    begun = call(platform, "DELETE", f"/apps/keeps/volumes/{mount['id']}", code=202)["deployment"]
    deployed(platform, begun["number"])
    assert len(starts(platform)) == 1, "the image's own folder"
    for name in ("kept", "beside"):
        call(platform, "DELETE", f"/volumes/{name}", code=202)
    eventually(lambda: not call(platform, "GET", "/volumes"), "the end of the volumes")
    assert platform.call("GET", "/api/v1/volumes/kept")[0] == 404
    folder = Path(platform.folder) / "engine" / "volumes"
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []


def back_up_and_restore(platform: Trial) -> None:
    """While it runs; then into another volume, and in place once it is stopped: what was written since is gone."""
    assert len(starts(platform)) == 2
    backup = ended(platform, f"/backups/{call(platform, 'POST', '/volumes/kept/backups', code=202)['backup']}")
    begun = call(platform, "POST", "/apps/keeps/restart", code=202)
    deployed(platform, begun["number"])
    assert len(starts(platform)) == 3
    code, body = platform.call("POST", f"/api/v1/backups/{backup['backup']}/restore", {"into": ""})
    assert code == 409 and "in use by keeps" in body["detail"]
    restore = call(platform, "POST", f"/backups/{backup['backup']}/restore", {"into": "beside"}, code=202)
    ended(platform, f"/restores/{restore['restore']}")
    call(platform, "POST", "/apps/keeps/stop", code=202)
    eventually(lambda: not call(platform, "GET", "/apps/keeps/instances"), "the end of the instances")
    restore = call(platform, "POST", f"/backups/{backup['backup']}/restore", {"into": ""}, code=202)
    ended(platform, f"/restores/{restore['restore']}")
    begun = call(platform, "POST", "/apps/keeps/start", code=202)["deployment"]
    deployed(platform, begun["number"])
    assert len(starts(platform)) == 3, "two of before the backup, and this one"
    again = ended(platform, f"/backups/{call(platform, 'POST', '/volumes/kept/backups', code=202)['backup']}")
    assert again["stored_bytes"] < again["size_bytes"]


def ended(platform: Trial, path: str) -> dict[str, Any]:
    """A backup or restore at its end."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = call(platform, "GET", path)
        return found if found["state"] != "waiting" else None

    found = eventually(look, f"the end of {path}")
    assert found["state"] == "done", found
    return found
