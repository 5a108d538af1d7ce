"""A pipeline deploys with one call, and is told the truth in every case."""

from __future__ import annotations

import gzip
import json
import lzma
import re
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from scripts.trial import Trial
from tests.e2e.conftest import build_demo

pytestmark = pytest.mark.e2e

LEFT = 4 << 20  # bytes that a team's quota still holds


@pytest.fixture(scope="module")
def app(platform_running: Trial) -> str:
    """An app of this module."""
    status, answer = platform_running.call("POST", "/api/v1/apps", {"app": "pipeline", "plan": "nano"})
    assert status == 201, answer
    return "pipeline"


@pytest.fixture(scope="module")
def large_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that is larger than LEFT, compressed too."""
    return build_demo(tmp_path_factory.mktemp("large") / "large.tar", "--size-mb", "24")


def token(platform: Trial) -> str:
    """The operator's token."""
    platform.call("GET", "/api/v1/apps")  # makes it
    return platform.token


def address(platform: Trial, app: str, wait: str = "60") -> str:
    return f"http://127.0.0.1:{platform.port}/api/v1/apps/{app}/deployments?wait={wait}"


def curl(
    platform: Trial, app: str, *options: str, body: bytes | None = None, wait: str = "60"
) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "-H", f"Authorization: Bearer {token(platform)}"]
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


def test_a_root_file_system_runs_with_the_command_it_is_given(platform: Trial, app: str, demo_archive: Path) -> None:
    with tarfile.open(demo_archive) as archive:
        names = json.loads(archive.extractfile("manifest.json").read())[0]["Layers"]  # type: ignore[union-attr]
        root = lzma.compress(archive.extractfile(names[0]).read(), preset=0)  # type: ignore[union-attr]
    refused = json.loads(curl(platform, app, "-X", "POST", "-T", "-", body=root).stdout)
    assert (refused["status"], refused["code"]) == (422, "no_command")
    done = curl(platform, app, "-X", "POST", "-T", "-", body=root, wait="60&command=/app/serve")
    assert done.returncode == 0, done.stdout
    assert platform.get(app, "/health")[0] == 200


def test_urllib_and_httpx_are_answered_alike(platform: Trial, app: str, demo_archive: Path) -> None:
    headers = {"Authorization": f"Bearer {token(platform)}", "Content-Type": "application/x-tar"}
    request = urllib.request.Request(address(platform, app), demo_archive.read_bytes(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=90) as answer:
        assert answer.status == 201
    with demo_archive.open("rb") as file:
        assert httpx.post(address(platform, app), content=file, headers=headers, timeout=90).status_code == 201


class Answer(NamedTuple):
    """What a client's user gets: the status, the headers by lower-case name, the JSON, and how its program would end."""

    status: int
    headers: dict[str, str]
    problem: dict[str, Any]
    failed: bool


def by_curl(url: str, token: str, archive: Path) -> Answer:
    """The line of the README: compressed on the way, from a pipe."""
    line = 'gzip -1 -c "$0" | curl -sS --fail-with-body -D - -T - -X POST -H "Authorization: Bearer $1" "$2"'
    done = subprocess.run(["bash", "-c", line, str(archive), token, url], capture_output=True, check=False, timeout=90)
    heads, _, body = done.stdout.rpartition(b"\r\n\r\n")
    first, *rows = heads.rpartition(b"HTTP/1.1 ")[2].decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
    return Answer(int(first.split()[0]), headers, json.loads(body), done.returncode == 22)


def by_urllib(url: str, token: str, archive: Path) -> Answer:
    """The standard library's client, with a body of no known length: chunked."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-tar"}
    request = urllib.request.Request(url, pieces(archive), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return Answer(answer.status, lowered(answer.headers.items()), json.load(answer), failed=False)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, lowered(error.headers.items()), json.load(error), failed=True)


def by_httpx(url: str, token: str, archive: Path) -> Answer:
    """httpx, chunked."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-tar"}
    answer = httpx.post(url, content=pieces(archive), headers=headers, timeout=90)
    return Answer(answer.status_code, lowered(answer.headers.items()), answer.json(), failed=answer.is_error)


def pieces(archive: Path) -> Iterator[bytes]:
    """The archive bit by bit."""
    with archive.open("rb") as file:
        while piece := file.read(256 << 10):
            yield piece


def lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


CLIENTS = pytest.mark.parametrize("client", [by_curl, by_urllib, by_httpx])
type Client = Callable[[str, str, Path], Answer]


@CLIENTS
def test_a_corrupt_archive_is_refused_with_a_sentence(
    client: Client, platform: Trial, app: str, demo_archive: Path, tmp_path: Path
) -> None:
    content = bytearray(demo_archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    broken = tmp_path / "broken.tar"
    broken.write_bytes(content)
    answer = client(address(platform, app), token(platform), broken)
    assert answer.failed and answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "it is damaged" in answer.problem["detail"]


@pytest.fixture(scope="module")
def nearly_full(platform_running: Trial, app: str) -> Iterator[int]:
    """The team may hold no more than LEFT bytes beyond the images it has; gives what it may hold."""
    path = "/api/v1/teams/admin/quota"
    _, before = platform_running.call("GET", path)
    assert platform_running.call("PUT", path, before | {"image_bytes": 1})[0] == 200
    status, told = platform_running.call("POST", f"/api/v1/apps/{app}/deployments", b"some bytes")
    assert status == 413, told
    assert platform_running.call("PUT", path, before | {"image_bytes": told["used_bytes"] + LEFT})[0] == 200
    yield told["used_bytes"] + LEFT
    platform_running.call("PUT", path, before)


@CLIENTS
def test_an_archive_over_the_quota_is_refused_on_its_way_and_every_client_hears_why(
    client: Client, platform: Trial, app: str, large_archive: Path, nearly_full: int
) -> None:
    answer = client(address(platform, app), token(platform), large_archive)
    assert answer.failed and answer.status == answer.problem["status"] == 413
    assert re.match(r"Team admin may hold .* of images and holds .*; this needs .* more\.", answer.problem["detail"])
    assert answer.problem["allowed_bytes"] == nearly_full
    assert LEFT < answer.problem["wanted_bytes"] < 2 * LEFT  # and not when all of it was there


def test_an_archive_whose_length_is_known_is_refused_before_its_first_byte(
    platform: Trial, app: str, large_archive: Path, nearly_full: int
) -> None:
    size = large_archive.stat().st_size
    done = curl(platform, app, "-X", "POST", "-T", str(large_archive))
    assert done.returncode == 22 and json.loads(done.stdout)["wanted_bytes"] == size
    headers = {"Authorization": f"Bearer {token(platform)}", "Content-Type": "application/x-tar"}
    request = urllib.request.Request(address(platform, app), large_archive.read_bytes(), headers, method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 413 and json.load(refused.value)["wanted_bytes"] == size
    answer = httpx.post(address(platform, app), content=large_archive.read_bytes(), headers=headers, timeout=60)
    assert answer.status_code == 413 and answer.json()["wanted_bytes"] == size


@CLIENTS
def test_a_wait_that_runs_out_says_where_to_look(client: Client, platform: Trial, app: str, demo_archive: Path) -> None:
    answer = client(address(platform, app, wait="0.001"), token(platform), demo_archive)
    assert answer.failed and answer.status == 504
    assert answer.problem["code"] == "wait_elapsed" and answer.problem["hint"]
    number = answer.problem["deployment"]["number"]
    assert answer.headers["location"] == f"/api/v1/apps/{app}/deployments/{number}"
    status, there = platform.call("GET", answer.headers["location"])
    assert (status, there["number"]) == (200, number)


def test_a_stranger_is_told_nothing(platform: Trial, app: str, demo_archive: Path) -> None:
    done = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-T", str(demo_archive), address(platform, app)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "401"
