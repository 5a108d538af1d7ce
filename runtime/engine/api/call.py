"""One request as handlers see it: the engine, the path's names, the query's values, the body as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from aiohttp import web

from runtime.engine.errors import Invalid
from runtime.engine.fields import MAX_CONSOLE
from runtime.engine.filters import Filters

if TYPE_CHECKING:
    from runtime.engine.daemon import Engine

type Handler = Callable[[Call], Coroutine[Any, Any, web.StreamResponse]]


class Call:
    """A request on its way through a handler."""

    def __init__(
        self, engine: Engine, request: web.BaseRequest, names: dict[str, str], version: tuple[int, int]
    ) -> None:
        self.engine = engine
        self.request = request
        self.names = names
        self.version = version

    def text(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self.request.query.get(name, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A query parameter as Docker reads booleans: absent, "", 0, no, false and none are false."""
        value = self.request.query.get(name)
        if value is None:
            return default
        return value.strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str, default: int | None = None) -> int | None:
        """A query parameter as an integer; raises Invalid."""
        value = self.request.query.get(name)
        if not value:
            return default
        try:
            return int(value)
        except ValueError as error:
            raise Invalid(f"{name} {value[:32]!r} is not a number.") from error

    def size(self) -> tuple[int, int]:
        """The query parameters `h` and `w`, a terminal's height and width in characters; raises Invalid."""
        sizes = [self.number(name) for name in ("h", "w")]
        height, width = (-1 if size is None else size for size in sizes)
        if not (0 <= height <= MAX_CONSOLE and 0 <= width <= MAX_CONSOLE):
            raise Invalid(
                f"h and w are {self.text('h')[:32]!r} and {self.text('w')[:32]!r}; give both, 0 to {MAX_CONSOLE}."
            )
        return height, width

    def filters(self, known: frozenset[str]) -> Filters:
        """The query parameter `filters`."""
        return Filters.parse(self.text("filters"), known)

    async def json(self) -> Any:
        """The body; an empty one is an empty object. Raises Invalid, or 413 above 1 MiB."""
        data = await self.request.read()
        if not data.strip():
            return {}
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Invalid(f"The body is not JSON: {error}.") from error


def answer(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON response."""
    return web.Response(
        body=json.dumps(data, separators=(",", ":")).encode(),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def nothing(status: int = 204) -> web.Response:
    """A response without a body."""
    return web.Response(status=status)


async def stream(call: Call, content_type: str, headers: dict[str, str] | None = None) -> web.StreamResponse:
    """A response whose head is sent at once and whose body follows in pieces."""
    response = web.StreamResponse(headers={"Content-Type": content_type, **(headers or {})})
    response.enable_chunked_encoding()
    await response.prepare(call.request)
    return response
