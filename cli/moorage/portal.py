"""The portal's REST API: one connection, every refusal a Fault with the portal's own sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from moorage.faults import Fault
from moorage.login import Login

TIMEOUT = httpx.Timeout(60, connect=10)


class Portal:
    """Calls below `/api/v1`."""

    def __init__(self, login: Login, transport: httpx.BaseTransport | None = None) -> None:
        self.url = login.url
        headers = {"Authorization": f"Bearer {login.token}", "User-Agent": "moorage-cli"}
        self._http = httpx.Client(base_url=f"{login.url}/api/v1", headers=headers, timeout=TIMEOUT, transport=transport)

    def get(self, path: str, **params: Any) -> Any:
        """GET, decoded."""
        return self.send("GET", path, params=params).json()

    def post(self, path: str, body: Any, **params: Any) -> Any:
        """POST of JSON, decoded."""
        return self.send("POST", path, json=body, params=params).json()

    def send(self, method: str, path: str, *, timeout_s: float | None = None, **more: Any) -> httpx.Response:
        """One request; raises Fault for what the portal refuses, and when it cannot be reached."""
        with _reached(self.url):
            if timeout_s is not None:
                more["timeout"] = httpx.Timeout(timeout_s, connect=TIMEOUT.connect)
            answer = self._http.request(method, path, **more)
        if answer.status_code >= 400:
            raise refusal(answer)
        return answer

    def lines(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """NDJSON as it comes, until the portal or the reader ends it."""
        headers = {"Accept": "application/x-ndjson"}
        with (
            _reached(self.url),
            self._http.stream("GET", path, params=params, headers=headers, timeout=httpx.Timeout(30)) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
                raise refusal(answer)
            for line in answer.iter_lines():
                if line.strip():
                    yield json.loads(line)


@contextmanager
def _reached(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise Fault(f"{url} cannot be reached ({type(error).__name__}).", "Is the address right?") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise Fault(f"{url!r} is no address.", "Give one like https://moorage.example.org.") from error


def refusal(answer: httpx.Response) -> Fault:
    """problem+json as a Fault; what another server answers is named by its status."""
    try:
        body = answer.json()
        return Fault(str(body["detail"]), str(body.get("hint", "")), body=body, status=answer.status_code)
    except (ValueError, KeyError, TypeError):
        return Fault(
            f"The portal answered {answer.status_code}.", "Is this address a Moorage portal?", status=answer.status_code
        )
