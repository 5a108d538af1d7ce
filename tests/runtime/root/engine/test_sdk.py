"""docker-py, the client the worker uses, and the API's own edges by raw HTTP."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, ImageNotFound, NotFound

from tests.runtime.root.engine.conftest import Engine


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    """docker-py on the engine's socket."""
    client = docker.DockerClient(base_url=f"unix://{engine.socket}", version="auto", timeout=30)
    yield client
    client.close()


def test_the_sdk_runs_waits_reads_and_removes(client: docker.DockerClient) -> None:
    assert client.ping() and client.version()["ApiVersion"] == "1.44"
    assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    container = client.containers.run("busybox", ["sh", "-c", "echo a; echo b >&2; exit 3"], detach=True, name="sdk")
    assert container.wait()["StatusCode"] == 3
    assert container.logs(stdout=True, stderr=False) == b"a\n"
    assert container.logs(stdout=False, stderr=True) == b"b\n"
    container.reload()
    assert container.status == "exited"
    container.remove()
    with pytest.raises(NotFound):
        client.containers.get("sdk")


def test_the_sdk_execs_streams_and_reads_stats(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "60"], detach=True, mem_limit="64m", nano_cpus=500_000_000)
    code, output = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (code, output) == (4, (b"out\n", b"err\n"))
    assert b"".join(container.exec_run(["seq", "1", "3"], stream=True).output) == b"1\n2\n3\n"
    assert container.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
    first = next(container.stats(stream=True, decode=True))
    assert first["id"] == container.id
    container.update(mem_limit="96m", memswap_limit="192m")
    container.reload()
    assert container.attrs["HostConfig"]["Memory"] == 96 << 20
    assert container.top()["Processes"]
    container.kill()
    container.wait()
    container.remove(force=True)


def test_the_sdk_follows_logs_and_events(client: docker.DockerClient) -> None:
    events = client.events(decode=True, filters={"type": ["container"]})
    container = client.containers.run(
        "busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"], detach=True
    )
    assert list(container.logs(stream=True, follow=True)) == [b"1\n", b"2\n", b"3\n"]
    found = [next(events)["Action"] for _ in range(3)]
    assert found == ["create", "start", "die"]
    events.close()
    container.remove()


def test_the_sdk_uses_networks_and_images(client: docker.DockerClient, archive: bytes) -> None:
    network = client.networks.create("sdk-net", driver="bridge", labels={"a": "b"})
    assert network.name in [n.name for n in client.networks.list(filters={"label": "a=b"})]
    container = client.containers.run("busybox", ["sleep", "60"], detach=True, network="sdk-net")
    network.reload()
    assert container.id in network.attrs["Containers"]
    container.remove(force=True)
    network.remove()
    assert client.images.load(io.BytesIO(archive))[0].tags == ["busybox:latest"]
    with pytest.raises(ImageNotFound):
        client.containers.create("nosuch:image")
    with pytest.raises(APIError):
        client.containers.create("busybox", privileged=True)


def test_a_bad_archive_is_refused_and_leaves_nothing(engine: Engine, archive: bytes) -> None:
    images = engine.docker("images", "-q", "--no-trunc")
    for body in (b"", b"not an archive" * 1000, archive[: len(archive) // 2]):
        code, answer = engine.call("POST", "/images/load?quiet=1", body)
        assert code == 400 and answer["message"], answer
    assert engine.docker("images", "-q", "--no-trunc") == images


def test_a_client_that_leaves_during_a_start_does_not_break_it(engine: Engine) -> None:
    engine.docker("create", "--name", "started", "busybox", "sleep", "60")
    for _ in range(3):
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(str(engine.socket))
        raw.sendall(b"POST /containers/started/start HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        raw.close()
    code, _ = engine.call("POST", "/containers/started/start")
    assert code in (204, 304)
    assert engine.status("started") == "running"


def test_many_at_once_get_names_ids_and_addresses_of_their_own(engine: Engine) -> None:
    errors: list[BaseException] = []

    def cycle(number: int) -> None:
        try:
            for turn in range(5):
                name = f"c{number}-{turn}"
                body = {
                    "Image": "busybox",
                    "Cmd": ["sleep", "60"],
                    "HostConfig": {"Memory": 32 << 20, "CgroupParent": f"t{number}/a"},
                }
                assert engine.call("POST", f"/containers/create?name={name}", body)[0] == 201
                assert engine.call("POST", f"/containers/{name}/start")[0] == 204
                seen.append(engine.call("GET", f"/containers/{name}/json")[1])
                assert engine.call("DELETE", f"/containers/{name}?force=1")[0] == 204
        except BaseException as error:
            errors.append(error)
            raise

    seen: list[dict[str, dict[str, object]]] = []
    threads = [threading.Thread(target=cycle, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(seen) == 20
    assert len({str(s["Id"]) for s in seen}) == 20
    assert len({s["Moorage"]["IdBase"] for s in seen}) == 20


def test_hostile_requests_are_answered_in_words(engine: Engine) -> None:
    for path, body, code in (
        ("/containers/create", b"{", 400),
        ("/containers/create", b"[" * 100_000, 400),
        ("/containers/create", b"x" * (2 << 20), 413),
        ("/containers/create?name=../../etc", {"Image": "busybox"}, 400),
        ("/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["/etc:/x"]}}, 403),
        ("/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["../../..:/x"]}}, 403),
    ):
        assert engine.call("POST", path, body)[0] == code
    assert engine.call("GET", "/containers/json?filters=[]")[0] == 400
    assert engine.call("GET", "/containers/json?limit=x")[0] == 400
    assert engine.call("GET", "/containers/..%2f..%2fetc/json")[0] == 404
