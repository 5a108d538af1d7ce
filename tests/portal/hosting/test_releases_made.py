"""What a release takes from image and app: port and health check."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from portal.hosting.models import App
from portal.images.models import Image
from portal.releases.making import health_of, image_port

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("exposed", "port"),
    [((), 8080), (("9000/tcp",), 9000), (("53/udp",), 8080), (("8443/tcp", "3000/tcp"), 3000), (("80",), 80)],
)
def test_the_port_is_the_lowest_tcp_port_the_image_exposes(
    app: App, make_image: Callable[..., Image], exposed: tuple[str, ...], port: int
) -> None:
    assert image_port(make_image(app, exposed_ports=list(exposed))) == port


@pytest.mark.parametrize(
    ("test", "kind", "path"),
    [
        (None, "tcp", "/"),
        (["CMD-SHELL", "curl -f http://localhost:8080/up || exit 1"], "http", "/up"),
        (["CMD", "wget", "-q", "http://127.0.0.1/"], "http", "/"),
        (["CMD-SHELL", "pg_isready"], "tcp", "/"),
        (["CMD-SHELL", "curl http://elsewhere.example/"], "tcp", "/"),
    ],
)
def test_the_health_check_is_http_when_the_image_asks_for_a_local_address(
    app: App, make_image: Callable[..., Image], test: list[str] | None, kind: str, path: str
) -> None:
    check = health_of(app, make_image(app, healthcheck={"test": test} if test else None))
    assert (check.kind, check.path) == (kind, path)
    assert check.host_header == ("hello.localhost" if kind == "http" else "")


def test_the_apps_own_path_goes_first(app: App, make_image: Callable[..., Image]) -> None:
    app.health_path = "/health"
    assert health_of(app, make_image(app)).path == "/health"
