"""The way in, with a real HAProxy: routes, pages, headers, switches under load, and what a kill leaves."""

from __future__ import annotations

import contextlib
import http.client
import json
import pwd
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.worker.haproxy import Host, host, portal_at, serving
from worker.errors import IngressFault
from worker.ingress_table import SLOTS_STEP, AppRoute, Server


@pytest.fixture
def ingress() -> Iterator[Host]:
    with host() as found:
        yield found


def app(name: str, *servers: Server, page: str = "starting") -> AppRoute:
    return AppRoute(app=name, names=(f"{name}.localhost",), servers=servers, page=page)


def word(answer: tuple[int, str, object]) -> str:
    assert answer[0] == 200, answer[1]
    return answer[1].splitlines()[0]


def test_a_name_leads_to_its_app_with_or_without_a_port(ingress: Host) -> None:
    with serving("one") as one, serving("two") as two:
        ingress.route(app("hello", one), app("other", two))
        assert word(ingress.get("hello.localhost")) == "one"
        assert word(ingress.get(f"HELLO.localhost:{ingress.port}")) == "one"
        assert word(ingress.get("other.localhost")) == "two"


def test_what_parses_strangers_requests_is_not_root(ingress: Host) -> None:
    assert ingress.process
    master = ingress.process.pid

    def users() -> set[int]:
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return {Path(f"/proc/{child}").stat().st_uid for child in children}

    haproxy = pwd.getpwnam("haproxy").pw_uid
    assert users() == {haproxy}
    ingress.gateway.reload()
    assert users() == {haproxy}
    with portal_at(ingress.config.web_socket):
        assert word(ingress.get("localhost")) == "portal"


def test_an_unknown_name_is_told_no_such_app_and_never_reaches_the_portal(ingress: Host) -> None:
    with portal_at(ingress.config.web_socket):
        for name in ("nobody.localhost", "evil.example.org", "", "localhost.evil.example"):
            status, body, _ = ingress.get(name, Accept="text/html")
            assert status == 404
            assert "No such app" in body


def test_the_portals_names_lead_to_the_portal(ingress: Host) -> None:
    with portal_at(ingress.config.web_socket):
        for name in ("localhost", f"localhost:{ingress.port}", "127.0.0.1", f"[::1]:{ingress.port}"):
            assert word(ingress.get(name)) == "portal"


@pytest.mark.parametrize(("page", "status", "says"), [
    ("starting", 503, "is starting"), ("stopped", 503, "is stopped"), ("failed", 503, "did not come up"),
    ("unreachable", 503, "does not answer"), ("deleted", 410, "was deleted"),
])  # fmt: skip
def test_an_app_without_an_instance_has_a_page_that_says_why(ingress: Host, page: str, status: int, says: str) -> None:
    ingress.route(app("hello", page=page))
    found, body, headers = ingress.get("hello.localhost", Accept="text/html")
    assert found == status
    assert says in body
    assert "<html" in body
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert ("retry-after" in headers) == (status == 503)
    plain = ingress.get("hello.localhost", Accept="*/*")[1]
    assert says in plain
    assert "<" not in plain


def test_a_page_follows_its_app_as_it_starts_and_stops(ingress: Host) -> None:
    with serving("one") as one:
        ingress.route(app("hello"))
        assert ingress.get("hello.localhost")[0] == 503
        ingress.route(app("hello", one))
        assert word(ingress.get("hello.localhost")) == "one"
        ingress.route(app("hello", page="stopped"))
        assert "is stopped" in ingress.get("hello.localhost")[1]


def test_an_app_whose_server_is_dead_has_a_page_too(ingress: Host) -> None:
    ingress.route(app("hello", Server("gone", "127.0.0.1", 1)))
    status, body, _ = ingress.get("hello.localhost")
    assert status == 503
    assert "does not answer" in body


def test_a_dead_portal_says_that_it_restarts_and_apps_go_on(ingress: Host) -> None:
    with serving("one") as one:
        ingress.route(app("hello", one))
        status, body, headers = ingress.get("localhost")
        assert status == 503
        assert "portal is restarting" in body
        assert headers["retry-after"]
        assert word(ingress.get("hello.localhost")) == "one"


def test_a_client_of_the_api_is_told_by_problem_details_that_the_portal_restarts(ingress: Host) -> None:
    status, body, headers = ingress.get("localhost", "/api/v1/apps")
    assert status == json.loads(body)["status"] == 503
    assert headers["content-type"] == "application/problem+json"
    assert headers["retry-after"]


def test_forwarded_headers_are_ours_and_not_the_clients(ingress: Host) -> None:
    with serving("one") as one:
        ingress.route(app("hello", one))
        spoofed = {
            "X_Forwarded_For": "6.6.6.6", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil", "X_Real_IP": "6.6.6.6",
            "Forwarded": "for=6.6.6.6", "X_Request_ID": "mine", "X_Forwarded_Prefix": "/evil",
        }  # fmt: skip
        _, body, headers = ingress.get("hello.localhost:80", **spoofed)
        lines = body.splitlines()
        assert "x-forwarded-for: 127.0.0.1" in lines
        assert "x-forwarded-proto: http" in lines
        assert "x-forwarded-host: hello.localhost:80" in lines
        assert not [line for line in lines if "6.6.6.6" in line or "evil" in line or "mine" in line]
        assert f"x-request-id: {headers['x-request-id']}" in lines


def test_no_request_is_lost_over_fifty_switches(ingress: Host) -> None:
    lost: list[str] = []
    counted = 0
    over = threading.Event()

    def load() -> None:
        nonlocal counted
        while not over.is_set():
            try:
                status, body, _ = ingress.get("hello.localhost")
            except OSError as error:
                status, body = 0, str(error)
            counted += 1
            if status != 200:
                lost.append(f"{status} {body[:100]}")

    with ThreadPoolExecutor(4) as pool:
        old = serving("r0", slow_s=0.005)
        ingress.route(app("hello", old.__enter__()))
        loops = [pool.submit(load) for _ in range(4)]
        for release in range(1, 51):
            new = serving(f"r{release}", slow_s=0.005)
            ingress.route(app("hello", new.__enter__()))
            while ingress.gateway.sessions(f"r{release - 1}"):
                time.sleep(0.005)
            old.__exit__(None, None, None)
            old = new
        over.set()
        for loop in loops:
            loop.result(30)
        old.__exit__(None, None, None)
    assert lost == []
    assert counted > 500


def test_requests_share_a_connection_to_an_instance_whether_it_was_there_at_the_start_or_came_later(
    ingress: Host,
) -> None:
    def connections() -> set[str]:
        client = http.client.HTTPConnection("127.0.0.1", ingress.port, timeout=30)
        with contextlib.closing(client):
            found = set()
            for _ in range(20):
                client.request("GET", "/", headers={"Host": "hello.localhost"})
                found.add(client.getresponse().read().decode().splitlines()[1])
        return found

    with serving("one") as one:
        ingress.route(app("hello", one))
        assert len(connections()) == 1
        ingress.stop()
        ingress.start()
        assert len(connections()) == 1


def test_a_restart_of_haproxy_brings_the_routes_back_from_the_files(ingress: Host) -> None:
    with serving("one") as one, serving("two") as two:
        ingress.route(app("hello", one), app("off", page="stopped"))
        ingress.route(app("hello", two), app("off", page="stopped"))
        ingress.stop()
        with pytest.raises(IngressFault):
            ingress.route(app("hello", one), app("off", page="failed"))
        ingress.start()
        assert word(ingress.get("hello.localhost")) == "one"
        assert "did not come up" in ingress.get("off.localhost")[1]


def test_a_haproxy_that_lost_its_run_time_changes_is_mended(ingress: Host) -> None:
    with serving("one") as one, serving("two") as two:
        ingress.route(app("hello", one))
        ingress.stop()
        for name in ("haproxy.cfg", "hosts.map", "states.map"):
            (ingress.config.haproxy / name).write_text(
                (ingress.config.haproxy / name).read_text().replace("one", "old")
            )
        ingress.start()
        ingress.route(app("hello", two))
        assert {word(ingress.get("hello.localhost")) for _ in range(6)} == {"two"}


def test_an_instance_that_moved_to_another_address_is_followed(ingress: Host) -> None:
    with serving("one") as one, serving("two") as two:
        ingress.route(app("hello", Server("web-1", one.address, one.port)))
        ingress.route(app("hello", Server("web-1", two.address, two.port)))
        assert word(ingress.get("hello.localhost")) == "two"


def test_backends_that_run_out_are_added_by_a_reload_without_losing_what_is_there(ingress: Host) -> None:
    with serving("one") as one:
        ingress.route(app("hello", one))
        many = [app(f"a{n}", one) for n in range(SLOTS_STEP)]
        ingress.route(app("hello", one), *many)
        assert ingress.gateway.table.slots == 2 * SLOTS_STEP
        assert word(ingress.get("hello.localhost")) == "one"
        assert word(ingress.get(f"a{SLOTS_STEP - 1}.localhost")) == "one"


def test_a_master_that_refuses_for_a_moment_is_asked_again(ingress: Host) -> None:
    socket_file = ingress.config.haproxy_master
    aside = socket_file.with_name("aside")
    with serving("one") as one, ThreadPoolExecutor(1) as pool:
        socket_file.rename(aside)
        routed = pool.submit(ingress.route, *(app(f"a{n}", one) for n in range(SLOTS_STEP + 1)))
        with pytest.raises(TimeoutError):
            routed.result(0.3)
        aside.rename(socket_file)
        routed.result(10)
        assert word(ingress.get(f"a{SLOTS_STEP}.localhost")) == "one"


def test_an_open_connection_holds_its_server_until_it_ends(ingress: Host) -> None:
    with serving("slow", slow_s=0.6) as slow, serving("new") as new, ThreadPoolExecutor(1) as pool:
        ingress.route(app("hello", slow))
        request = pool.submit(ingress.get, "hello.localhost")
        deadline = time.monotonic() + 5
        while not ingress.gateway.sessions("slow"):
            assert time.monotonic() < deadline
        ingress.route(app("hello", new))
        assert ingress.gateway.sessions("slow") == 1
        assert word(ingress.get("hello.localhost")) == "new"
        assert word(request.result(10)) == "slow"
        ingress.route(app("hello", new))
        assert ingress.gateway.sessions("slow") == 0


def test_the_written_configuration_passes_haproxys_own_check_without_a_warning(ingress: Host) -> None:
    with serving("one") as one:
        ingress.route(app("hello", one))
    check = subprocess.run(
        ["haproxy", "-c", "-f", str(ingress.config.haproxy / "haproxy.cfg")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0
    assert "WARNING" not in check.stderr
