"""Static files through ASGI: one small tree, read once, under a path that changes with its content."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMPRESSIBLE = {".css", ".js", ".svg", ".json", ".html", ".txt", ".map", ".webmanifest"}


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else []


def tree_digest(root: Path) -> str:
    """12 hex digits over every path and content below `root`."""
    digest = hashlib.sha256()
    for path in _files(root):
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    zipped: bytes | None
    content_type: str


class StaticFiles:
    """ASGI application for `/static/<digest>/<path>`; any digest serves the present file, only the present one is cached for ever."""

    def __init__(self, root: Path, digest: str) -> None:
        self.root = root.resolve()
        self.digest = digest
        self._files: dict[str, _File] = {}

    def _read(self, name: str) -> _File | None:
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root) or not path.is_file():
            return None
        body = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if kind.startswith("text/") or path.suffix in {".js", ".svg", ".json"}:
            kind += "; charset=utf-8"
        zipped = gzip.compress(body, 6, mtime=0) if path.suffix in _COMPRESSIBLE else None
        return _File(body, zipped, kind)

    async def _find(self, name: str) -> _File | None:
        if name not in self._files:
            file = await asyncio.to_thread(self._read, name)
            if file is None:
                return None
            self._files[name] = file
        return self._files[name]

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer GET and HEAD."""
        digest, _, name = scope["path"].removeprefix("/static/").partition("/")
        file = await self._find(name) if scope["method"] in {"GET", "HEAD"} and name else None
        if file is None:
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return
        accepts = dict(scope["headers"]).get(b"accept-encoding", b"")
        zipped = file.zipped if b"gzip" in accepts else None
        body = file.body if zipped is None else zipped
        cache = b"public, max-age=31536000, immutable" if digest == self.digest else b"no-cache"
        headers = [
            (b"content-type", file.content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", cache),
            (b"vary", b"accept-encoding"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if zipped is not None:
            headers.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
