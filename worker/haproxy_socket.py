"""HAProxy's runtime API over its admin socket (management.txt of HAProxy 2.6, "Unix Socket commands")."""

from __future__ import annotations

import csv
import io
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from worker.errors import IngressFault

TIMEOUT_S = 3.0
PAYLOAD_BYTES = 12_000  # above 16 kB HAProxy resets the connection
ADMIN_MAINT = 0x01 | 0x02 | 0x04  # srv_admin_state bits of maintenance, include/haproxy/server-t.h


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveServer:
    """A server as HAProxy has it now. `sessions` counts requests and open websockets."""

    backend: str
    name: str
    address: str
    port: int
    ready: bool
    maintenance: bool
    sessions: int


class RuntimeSocket:
    """One admin (or master) socket; each call opens its own connection, which costs 0.04 ms."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, command: str, timeout_s: float = TIMEOUT_S) -> str:
        """Say one line of commands (joined by `;`) and answer all HAProxy says; raises IngressFault when it is not there."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                s.settimeout(timeout_s)
                s.connect(str(self._path))
                s.sendall(command.encode() + b"\n")
                parts = []
                while data := s.recv(65_536):
                    parts.append(data)
        except OSError as error:
            raise IngressFault(
                f"HAProxy does not answer on {self._path}: {error.strerror or error}.", "It comes up with its files."
            ) from error
        return b"".join(parts).decode(errors="replace").strip()

    def must(self, command: str, *fine: str) -> str:
        """As `ask`, for commands that answer with nothing or one of `fine`; anything else is an IngressFault."""
        answer = self.ask(command)
        if answer and not any(word in answer for word in fine):
            raise IngressFault(f"HAProxy refused {command!r}: {answer[:300]}")
        return answer

    def config_digest(self) -> str:
        """The digest of the configuration the running process was started with (MOORAGE_CONFIG); "" when it has none."""
        answer = self.ask("show env MOORAGE_CONFIG")
        return answer.partition("=")[2].strip() if answer.startswith("MOORAGE_CONFIG=") else ""

    def servers(self) -> list[LiveServer]:
        """All servers of the apps' backends (`app_N`), from `show servers state` and `show stat`."""
        state = self.ask("show servers state")
        sessions = self._sessions()
        found = []
        for line in state.splitlines():
            field = line.split()
            if len(field) < 19 or not field[1].startswith("app_"):
                continue
            admin = int(field[6])
            found.append(
                LiveServer(
                    backend=field[1],
                    name=field[3],
                    address=field[4],
                    port=int(field[18]),
                    ready=admin == 0,
                    maintenance=bool(admin & ADMIN_MAINT),
                    sessions=sessions.get((field[1], field[3]), 0),
                )
            )
        return found

    def map_rows(self, path: Path) -> dict[str, str]:
        """The rows of a map file as the running process has them."""
        answer = self.ask(f"show map {path}")
        if answer.startswith(("Unknown map", "Missing map")):
            raise IngressFault(f"HAProxy does not know the map {path}: {answer}")
        rows = (line.split(maxsplit=2) for line in answer.splitlines())
        return {row[1]: row[2] for row in rows if len(row) == 3}

    def replace_map(self, path: Path, rows: dict[str, str]) -> None:
        """Swap a whole map in one step: prepare a version, fill it, commit it."""
        version = self.ask(f"prepare map {path}").rpartition(":")[2].strip()
        if not version.isdecimal():
            raise IngressFault(f"HAProxy would not prepare the map {path}: {version[:200]}")
        for chunk in _chunks(f"{key} {value}\n" for key, value in rows.items()):
            self.must(f"add map @{version} {path} <<\n{chunk}")
        self.must(f"commit map @{version} {path}")

    def _sessions(self) -> dict[tuple[str, str], int]:
        rows = csv.DictReader(io.StringIO(self.ask("show stat -1 4 -1").removeprefix("# ")))
        return {(row["pxname"], row["svname"]): int(row["scur"] or 0) for row in rows}


def _chunks(lines: Iterable[str]) -> Iterable[str]:
    chunk: list[str] = []
    size = 0
    for line in lines:
        if size + len(line) > PAYLOAD_BYTES and chunk:
            yield "".join(chunk)
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield "".join(chunk)
