"""A pipeline deploys with one call, and is told the truth in every case."""

from __future__ import annotations

import gzip
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import httpx
import pytest

from scripts.trial import Trial

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def app(platform_running: Trial) -> str:
    """An app of this module."""
    status, answer = platform_running.call("POST", "/api/v1/apps", {"app": "pipeline", "plan": "nano"})
    assert status == 201, answer
    return "pipeline"


def address(platform: Trial, app: str, wait: str = "60") -> str:
    return f"http://127.0.0.1:{platform.port}/api/v1/apps/{app}/deployments?wait={wait}"


def curl(
    platform: Trial, app: str, *options: str, body: bytes | None = None, wait: str = "60"
) -> subprocess.CompletedProcess[bytes]:
    platform.call("GET", "/api/v1/apps")  # makes the token
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "-H", f"Authorization: Bearer {platform.token}"]
    return subprocess.run(
        [*command, *options, address(platform, app, wait)], input=body, capture_output=True, check=False
    )


def test_curl_uploads_a_file_and_the_next_request_gets_the_app(platform: Trial, app: str, demo_archive: Path) -> None:
    done = curl(platform, app, "-X", "POST", "-T", str(demo_archive))
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["state"] == "live"
    assert platform.get(app, "/health")[0] == 200


def test_curl_uploads_from_a_pipe_chunked_and_compressed(platform: Trial, app: str, demo_archive: Path) -> None:
    done = curl(platform, app, "-X", "POST", "-T", "-", body=gzip.compress(demo_archive.read_bytes(), 1))
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["state"] == "live"


def test_a_crashing_image_fails_with_its_last_lines_and_the_old_release_serves(
    platform: Trial, app: str, crashing_archive: Path
) -> None:
    done = curl(platform, app, "-X", "POST", "-T", str(crashing_archive))
    answer = json.loads(done.stdout)
    assert done.returncode == 22
    assert answer["status"] == 422
    assert "3" in json.dumps(answer)
    assert answer["last_log"]
    assert platform.get(app, "/health")[0] == 200


def test_a_corrupt_archive_is_refused_with_a_sentence(platform: Trial, app: str, demo_archive: Path) -> None:
    broken = bytearray(demo_archive.read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    done = curl(platform, app, "-X", "POST", "-T", "-", body=bytes(broken))
    assert done.returncode == 22
    assert json.loads(done.stdout)["status"] in (400, 422)
    assert "it is damaged" in json.loads(done.stdout)["detail"]


def test_urllib_and_httpx_are_answered_alike(platform: Trial, app: str, demo_archive: Path) -> None:
    platform.call("GET", "/api/v1/apps")
    headers = {"Authorization": f"Bearer {platform.token}", "Content-Type": "application/x-tar"}
    request = urllib.request.Request(address(platform, app), demo_archive.read_bytes(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=90) as answer:
        assert answer.status == 201
    with demo_archive.open("rb") as file:
        assert httpx.post(address(platform, app), content=file, headers=headers, timeout=90).status_code == 201


def test_an_image_over_the_quota_is_refused_at_once_for_every_client(platform: Trial, app: str, tmp_path: Path) -> None:
    status, before = platform.call("GET", "/api/v1/teams/admin/quota")
    assert status == 200
    status, answer = platform.call("PUT", "/api/v1/teams/admin/quota", before | {"image_bytes": 1_000_000})
    assert status == 200, answer
    try:
        archive = tmp_path / "big.tar"
        archive.write_bytes(bytes(30_000_000))
        assert json.loads(curl(platform, app, "-X", "POST", "-T", str(archive)).stdout)["status"] == 413
        headers = {"Authorization": f"Bearer {platform.token}", "Content-Type": "application/x-tar"}
        request = urllib.request.Request(address(platform, app), archive.read_bytes(), headers, method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        assert refused.value.code == 413
        assert (
            httpx.post(address(platform, app), content=archive.read_bytes(), headers=headers, timeout=60).status_code
            == 413
        )
    finally:
        platform.call("PUT", "/api/v1/teams/admin/quota", before)


def test_a_wait_that_runs_out_says_where_to_look(platform: Trial, app: str, demo_archive: Path) -> None:
    done = curl(platform, app, "-X", "POST", "-i", "-T", str(demo_archive), wait="0.001")
    head, _, body = done.stdout.rpartition(b"\r\n\r\n")
    assert b" 504 " in head
    assert b"location:" in head.lower()
    assert json.loads(body)["code"] == "wait_elapsed"
    status, answer = platform.call("GET", f"/api/v1/apps/{app}/deployments")
    assert status == 200, answer


def test_a_stranger_is_told_nothing(platform: Trial, app: str, demo_archive: Path) -> None:
    done = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-T", str(demo_archive), address(platform, app)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "401"
