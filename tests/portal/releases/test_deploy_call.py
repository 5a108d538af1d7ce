"""`POST /api/v1/apps/{app}/deployments` as a pipeline makes it: a real server, real archives, curl, urllib and httpx."""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from portal.hosting.models import App
from portal.images.models import Image
from portal.plans.models import TeamQuota
from portal.releases.models import Deployment, Release
from tests.conftest import People
from tests.corpus import tar
from tests.portal.host import HostDriver, HostThread
from tests.portal.images import archives
from tests.portal.images.serving import serving

pytestmark = pytest.mark.django_db(transaction=True)

HEALTHY = {"state": "healthy"}
CRASHED = {
    "state": "exited",
    "exit_code": 3,
    "reason": "exited with code 3 after 0.2 s",
    "last_log": ("no config", "bye"),
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The whole portal on a port."""
    from portal.asgi import application

    with serving(application) as made:
        yield made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The demo image as a file."""
    path = tmp_path / "image.tar"
    path.write_bytes(archives.demo())
    return path


@pytest.fixture
def token(people: People, app: App) -> str:
    """A developer's token for deploying."""
    return people.token(people.developer, "deploy")


@pytest.fixture
def judged(host: HostDriver) -> Callable[[dict[str, Any]], HostThread]:
    """A host on which every instance looks as given."""
    return lambda looks: HostThread(host, lambda instance: looks)


def curl(*arguments: str, stdin: bytes | None = None) -> tuple[int, int, dict[str, Any]]:
    """Exit code, status, and body of `curl --fail-with-body`."""
    run = subprocess.run(
        ["curl", "-sS", "--fail-with-body", "-w", "\n%{http_code}", "--max-time", "60", *arguments],
        input=stdin,
        capture_output=True,
    )
    body, _, status = run.stdout.decode().rpartition("\n")
    return run.returncode, int(status), json.loads(body) if body else {}


def auth(token: str) -> tuple[str, ...]:
    return ("-H", f"Authorization: Bearer {token}", "-X", "POST")


def test_curl_gets_201_once_the_release_is_live(
    url: str, token: str, archive: Path, judged: Callable[[dict[str, Any]], HostThread]
) -> None:
    with judged(HEALTHY):
        code, status, body = curl(*auth(token), "-T", str(archive), f"{url}/api/v1/apps/hello/deployments?wait=30")
    assert (code, status) == (0, 201), body
    assert (body["state"], body["team"], body["number"]) == ("live", "acme", 1)
    assert body["url"] == "http://hello.localhost:8080/"


def test_a_gzip_pipe_is_taken_chunked(
    url: str, token: str, archive: Path, judged: Callable[[dict[str, Any]], HostThread]
) -> None:
    packed = subprocess.run(["gzip", "-1", "-c", str(archive)], capture_output=True, check=True).stdout
    with judged(HEALTHY):
        code, status, body = curl(*auth(token), "-T", "-", f"{url}/api/v1/apps/hello/deployments?wait=30", stdin=packed)
    assert (code, status) == (0, 201), body


def test_a_crash_answers_422_with_reason_and_last_lines_and_curl_fails(
    url: str, token: str, archive: Path, judged: Callable[[dict[str, Any]], HostThread]
) -> None:
    with judged(CRASHED):
        code, status, body = curl(*auth(token), "-T", str(archive), f"{url}/api/v1/apps/hello/deployments?wait=30")
    assert (code, status) == (22, 422)
    assert body["code"] == "deployment_failed"
    assert "exited with code 3" in body["reason"]
    assert body["last_log"] == ["no config", "bye"]


def test_without_wait_the_answer_is_202_with_an_address_to_ask(
    url: str, token: str, archive: Path, host: HostDriver
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{url}/api/v1/apps/hello/deployments", content=archive.read_bytes(), headers=headers)
    assert answer.status_code == 202
    assert answer.headers["Location"] == "/api/v1/apps/hello/deployments/1"
    asked = httpx.get(url + answer.headers["Location"], headers=headers)
    assert (asked.status_code, asked.json()["state"]) == (200, "pulling")


def test_when_wait_runs_out_it_answers_504_in_time_and_the_deployment_goes_on(
    url: str, token: str, archive: Path, host: HostDriver
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    begun = time.monotonic()
    answer = httpx.post(f"{url}/api/v1/apps/hello/deployments?wait=1", content=archive.read_bytes(), headers=headers)
    assert answer.status_code == 504
    assert 1 <= time.monotonic() - begun < 8
    assert answer.json()["code"] == "wait_elapsed"
    assert answer.headers["Location"].endswith("/deployments/1")
    assert Deployment.objects.get().state == "pulling"


def test_a_waiting_call_wakes_when_the_deployment_ends(url: str, token: str, archive: Path, host: HostDriver) -> None:
    answers: list[tuple[float, httpx.Response]] = []

    def call() -> None:
        headers = {"Authorization": f"Bearer {token}"}
        content = archive.read_bytes()
        answer = httpx.post(
            f"{url}/api/v1/apps/hello/deployments?wait=30", content=content, headers=headers, timeout=40
        )
        answers.append((time.monotonic(), answer))

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + 20
    while not Deployment.objects.filter(state="pulling").exists() and time.monotonic() < deadline:
        host.report()
    host.carry_out()
    ended = time.monotonic()
    thread.join(30)
    assert answers[0][1].status_code == 201
    assert answers[0][0] - ended < 2, "woken by the hint, not by the look every 5 s"


@pytest.mark.parametrize("client", ["curl", "curl without Expect", "urllib", "httpx"])
def test_a_corrupt_archive_is_refused_with_a_sentence_every_client_sees(
    url: str, token: str, tmp_path: Path, host: HostDriver, client: str
) -> None:
    wrong = tmp_path / "wrong.tar"
    wrong.write_bytes(b"this is no archive " * 400_000)  # 7.6 MB: more than any socket buffer
    status, body = send(client, f"{url}/api/v1/apps/hello/deployments?wait=5", token, wrong)
    assert status in (400, 422)
    assert body["detail"].endswith(".")
    assert not Image.objects.exists()
    assert not Deployment.objects.exists()


@pytest.mark.parametrize("client", ["curl", "curl without Expect", "urllib", "httpx"])
def test_an_archive_over_the_teams_quota_answers_413_every_client_sees(
    url: str, token: str, people: People, tmp_path: Path, host: HostDriver, client: str
) -> None:
    TeamQuota.objects.filter(team=people.team).update(image_bytes=100_000)
    big = tmp_path / "big.tar"
    big.write_bytes(archives.demo(size_mb=8))
    status, body = send(client, f"{url}/api/v1/apps/hello/deployments?wait=5", token, big)
    assert status == 413
    assert "acme" in body["detail"]
    assert not Image.objects.exists()


def send(client: str, address: str, token: str, file: Path) -> tuple[int, dict[str, Any]]:
    if client == "httpx":
        answer = httpx.post(address, content=file.read_bytes(), headers={"Authorization": f"Bearer {token}"})
        return answer.status_code, answer.json()
    if client == "urllib":
        request = urllib.request.Request(
            address, data=file.read_bytes(), headers={"Authorization": f"Bearer {token}"}, method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        return refused.value.code, json.loads(refused.value.read())
    expect = () if client == "curl" else ("-H", "Expect:")
    _, status, body = curl(*auth(token), *expect, "-T", str(file), address)
    return status, body


def test_an_app_that_does_not_exist_answers_404_with_how_to_make_it(url: str, token: str, archive: Path) -> None:
    code, status, body = curl(*auth(token), "-T", str(archive), f"{url}/api/v1/apps/nope/deployments")
    assert (code, status) == (22, 404)
    assert "POST /api/v1/apps" in body["hint"]


@pytest.mark.parametrize(
    ("who", "scope", "status"), [("viewer", "deploy", 403), ("stranger", "write", 404), ("developer", "read", 403)]
)
def test_who_may_not_deploy_is_told_so(
    url: str, people: People, app: App, archive: Path, who: str, scope: str, status: int
) -> None:
    other = people.token(getattr(people, who), scope)
    assert curl(*auth(other), "-T", str(archive), f"{url}/api/v1/apps/hello/deployments")[1] == status


def test_no_token_answers_401_and_a_bad_wait_and_an_empty_body_422(url: str, token: str, archive: Path) -> None:
    address = f"{url}/api/v1/apps/hello/deployments"
    assert curl("-X", "POST", "-T", str(archive), address)[1] == 401
    assert curl(*auth(token), "-T", str(archive), f"{address}?wait=soon")[1] == 422
    assert curl(*auth(token), address)[1] == 422


def test_an_image_that_is_here_is_deployed_by_reference_or_digest(
    url: str, token: str, app: App, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    image = make_image(app)
    headers = {"Authorization": f"Bearer {token}"}
    address = f"{url}/api/v1/apps/hello/deployments"
    for name in ("hello:one", image.digest, image.digest.removeprefix("sha256:")[:12]):
        answer = httpx.post(address, json={"image": name}, headers=headers)
        assert answer.status_code == 202, answer.text
        assert answer.json()["image"] == image.digest
    assert httpx.post(address, json={"image": "other:1"}, headers=headers).status_code == 404
    assert httpx.post(address, json={"image": ""}, headers=headers).status_code == 422
    assert httpx.post(address, json=["x"], headers=headers).status_code == 422


def test_the_same_idempotency_key_deploys_once(url: str, token: str, archive: Path, host: HostDriver) -> None:
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "build-77"}
    numbers = [
        httpx.post(f"{url}/api/v1/apps/hello/deployments", content=archive.read_bytes(), headers=headers).json()[
            "number"
        ]
        for _ in range(2)
    ]
    assert numbers == [1, 1]


def test_rollback_waits_and_answers_as_a_deployment(
    url: str, token: str, archive: Path, judged: Callable[[dict[str, Any]], HostThread]
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    with judged(HEALTHY), httpx.Client(base_url=f"{url}/api/v1/apps/hello", headers=headers, timeout=40) as http:
        for _ in range(2):
            assert http.post("/deployments?wait=30", content=archive.read_bytes()).status_code == 201
        back = http.post("/rollback?wait=30", json={"release": 1})
        assert (back.status_code, back.json()["release"], back.json()["kind"]) == (201, 1, "rollback")
        assert http.post("/rollback", json={"release": 99}).status_code == 404
        assert http.post("/rollback", json={"release": "one"}).status_code == 422


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(
    url: str, token: str, archive: Path, host: HostDriver
) -> None:
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    head = f"POST /api/v1/apps/hello/deployments HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    with socket.create_connection((parts.hostname, parts.port)) as client:
        client.sendall(f"{head}Content-Length: 5000000\r\n\r\n".encode() + archive.read_bytes()[:100_000])
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert not Deployment.objects.exists()


def test_static_files_are_kept_for_ever_under_their_digest_only(url: str) -> None:
    from django.conf import settings

    kept = httpx.get(f"{url}{settings.STATIC_URL}css/app.css", headers={"Accept-Encoding": "gzip"})
    assert (kept.status_code, kept.headers["content-encoding"]) == (200, "gzip")
    assert "immutable" in kept.headers["cache-control"]
    assert httpx.get(f"{url}/static/0ld/css/app.css").headers["cache-control"] == "no-cache"
    for path in ("/static/x/../../manage.py", "/static/x/%2e%2e/%2e%2e/manage.py", "/static/x/none.css", "/static/"):
        assert httpx.get(url + path).status_code == 404


def root_file_system() -> bytes:
    """A root file system without a command, as `tar` makes it."""
    return gzip.compress(tar.layer(tar.folder("./"), tar.folder("./bin"), tar.entry("./bin/app", b"#!", mode=0o755)))


def test_a_root_file_system_runs_the_command_it_is_given_and_keeps_it(
    url: str, app: App, token: str, judged: Callable[[dict[str, Any]], HostThread], tmp_path: Path
) -> None:
    file = tmp_path / "root.tar.gz"
    file.write_bytes(root_file_system())
    address = f"{url}/api/v1/apps/{app.slug}/deployments"
    with judged(HEALTHY):
        code, status, problem = curl(*auth(token), "-T", str(file), address)
        assert (code, status, problem["code"]) == (22, 422, "no_command") and "?command=" in str(problem)
        code, status, made = curl(
            *auth(token), "-T", str(file), f"{address}?wait=30&command=/bin/app%20--port%20%22a%20b%22"
        )
        assert (code, status) == (0, 201), made
        wanted = ["/bin/app", "--port", "a b"]
        assert Release.objects.get(app=app).processes["web"]["command"] == wanted
        image = Image.objects.get(team=app.team)
        assert image.config["command"] == [] and len(image.config["layers"]) == 1
        body = json.dumps({"image": image.digest}).encode()
        again = (*auth(token), "-H", "Content-Type: application/json", "--data-binary", "@-", f"{address}?wait=30")
        assert curl(*again, stdin=body)[1] == 201
        assert Release.objects.get(app=app, number=2).processes["web"]["command"] == wanted
        body = json.dumps({"image": image.digest, "command": ["/bin/other"]}).encode()
        assert curl(*again, stdin=body)[1] == 201
        assert Release.objects.get(app=app, number=3).processes["web"]["command"] == ["/bin/other"]
        status, problem = curl(*again, stdin=json.dumps({"image": image.digest, "command": "x"}).encode())[1:]
        assert status == 422 and "not a list of words" in problem["detail"]
