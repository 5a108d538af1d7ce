"""Images the rows need beside the demo's own: one that prints what it is sent, one with a web server that costs nothing."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from scripts.demo_image import Contents, build

LISTENS = 9000  # where the printing image takes what it prints
_SERVER = """
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 60s
frontend web
  bind :8080
  http-request return status 200 content-type text/plain string "ok"
"""


_APP = """
import asyncio
async def answer(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            request, *lines = head.decode("latin-1").split("\\r\\n")[:-2]
            headers = dict(line.lower().split(": ", 1) for line in lines)
            text = request.split(" ")[1] + " for " + headers["host"] + "\\n"
            writer.write(f"HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\nContent-Length: {len(text)}\\r\\n\\r\\n{text}".encode())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(answer, "0.0.0.0", 8080, backlog=512)
    await server.serve_forever()
asyncio.run(main())
"""
_LOADED = """
import asyncio, collections, encodings.idna, encodings.latin_1, sys
print(*filter(None, (getattr(module, "__file__", None) for module in list(sys.modules.values()))))
print(collections.__path__[0] + "/abc.py")  # goes by another name once it is loaded
"""


def write(path: Path, contents: Contents) -> Path:
    """The image as an archive."""
    with path.open("wb") as file:
        build(file, contents, tag=f"{path.stem}:latest")
    return path


def changed_layer(folder: Path, number: int) -> Path:
    """The demo image with 5 MiB on top that no other number has."""
    return write(folder / "changed.tar", Contents(size_mb=5, seed=number))


def printing(folder: Path) -> Path:
    """Prints to its log what is sent to its port `LISTENS`, without a stamp or a buffer between."""
    script = f"while :; do nc -l -p {LISTENS}; done & exec /app/serve"
    return write(folder / "printing.tar", Contents(command=("sh", "-c", script)))


def libraries(*programs: str) -> set[str]:
    """The shared objects that they load."""
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(/\S+) \(", said))


def layer(paths: set[str], **texts: str) -> bytes:
    """A tar with files of this machine, and with texts by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for name in sorted(paths):
            tar.add(name, arcname=name.lstrip("/"))
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def asyncio_app(folder: Path) -> Path:
    """A small app as people write them: asyncio's streams in this Python, the head of each request read into a dict."""
    program = os.path.realpath(sys.executable)
    said = subprocess.run([program, "-I", "-S", "-c", _LOADED], capture_output=True, text=True, check=True).stdout
    modules = set(said.split())
    loaded = libraries(program, *(name for name in modules if name.endswith(".so")))
    contents = layer({program} | modules | loaded, **{"app.py": _APP})
    return write(folder / "app.tar", Contents(command=(program, "-I", "-S", "/app.py"), layer=contents))


def web_server(folder: Path) -> Path:
    """The distribution's HAProxy that answers every request itself with two bytes, on one thread."""
    program = shutil.which("haproxy")
    if program is None:
        raise SystemExit("haproxy is needed as the app of this row: install the package haproxy.")
    contents = layer({program} | libraries(program), server=_SERVER)
    return write(folder / "server.tar", Contents(command=(program, "-db", "-f", "/server"), layer=contents))
