"""A push with a real client to the whole platform: it deploys, and what was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from scripts.trial import Trial

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def app(platform_running: Trial) -> str:
    """An app that deploys what is pushed as `live`."""
    body = {"app": "pushed", "plan": "nano", "deploy_on_push": True, "follow_tag": "live"}
    status, answer = platform_running.call("POST", "/api/v1/apps", body)
    assert status == 201, answer
    return "pushed"


def test_a_pushed_tag_goes_live(platform: Trial, app: str, demo_archive: Path) -> None:
    target = f"docker://127.0.0.1:{platform.port}/admin/{app}:live"
    creds = f"--dest-creds=any:{platform.token}"
    push = ["skopeo", "copy", "-q", "--dest-tls-verify=false", creds, f"docker-archive:{demo_archive}", target]
    subprocess.run(push, check=True, timeout=60)
    deadline, state = time.monotonic() + 60, ""
    while state != "live":
        assert time.monotonic() < deadline, state
        status, answer = platform.call("GET", f"/api/v1/apps/{app}/deployments/1")
        assert status == 200, answer
        assert answer["state"] not in ("failed", "cancelled"), answer
        state = answer["state"]
        time.sleep(0.05)
    assert platform.get(app, "/health")[0] == 200


def request(
    platform: Trial, method: str, path: str, body: bytes | None = None, **headers: str
) -> http.client.HTTPResponse:
    """One call to the registry through the ingress, answered whole."""
    connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=60)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Host": f"localhost:{platform.port}", "Authorization": f"Bearer {platform.token}"} | fields
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_an_upload_cut_in_half_sends_only_the_rest(platform: Trial, app: str) -> None:
    data = os.urandom(24 << 20)
    digest, half = f"sha256:{hashlib.sha256(data).hexdigest()}", len(data) // 2
    begun = request(platform, "POST", f"/v2/admin/{app}/blobs/uploads/")
    address = begun.headers["Location"]
    head = [f"PATCH {address} HTTP/1.1", f"Host: localhost:{platform.port}", f"Authorization: Bearer {platform.token}"]
    with socket.create_connection(("127.0.0.1", platform.port)) as cut:
        cut.sendall("\r\n".join([*head, f"Content-Length: {len(data)}"]).encode() + b"\r\n\r\n" + data[:half])
        cut.shutdown(socket.SHUT_WR)
        cut.settimeout(30)
        cut.recv(1)  # the end of it, or an answer: the portal has noticed
    deadline = time.monotonic() + 30
    while request(platform, "PATCH", address).status != 202:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    have = int(request(platform, "GET", address).headers["Range"].removeprefix("0-")) + 1
    assert half - (1 << 20) <= have <= half  # no more is lost than what was on its way
    rest = data[have:]
    chunk = request(platform, "PATCH", address, rest, Content_Range=f"{have}-{len(data) - 1}")
    assert chunk.status == 202
    assert len(rest) <= len(data) - half + (1 << 20)
    assert request(platform, "PUT", f"{address}?digest={digest}").status == 201
    assert request(platform, "HEAD", f"/v2/admin/{app}/blobs/{digest}").headers["Content-Length"] == str(len(data))
