"""This host's way in: files first, then HAProxy's runtime socket; a reload only when the backends run out or the text changed.

`python -m worker.ingress write` writes the files HAProxy is started with.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from worker.config import WorkerConfig, config
from worker.errors import IngressFault, WorkerFault
from worker.haproxy_socket import LiveServer, RuntimeSocket
from worker.ingress_config import HOSTS_MAP, ROUTES_FILE, SERVER_OPTIONS, STATES_MAP, Ingress, files, skeleton_digest
from worker.ingress_table import AppRoute, Table, assign

RELOAD_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 20_000
RESERVED_FILES = 200
ACCOUNT = "haproxy"  # which its distribution package makes


class Gateway:
    """The ingress of one host. Methods block for a few milliseconds; one thread at a time."""

    def __init__(self, settings: Ingress, master: Path) -> None:
        self._settings = settings
        self._runtime = RuntimeSocket(settings.admin_socket)
        self._master = RuntimeSocket(master)
        self._written: dict[str, str] = {}
        self.table = read_table(settings.home)

    def apply(self, routes: Iterable[AppRoute]) -> None:
        """Make `routes` true: on disk, then in the running HAProxy, whatever state that is in.

        Raises IngressFault when HAProxy is away or refuses; the files are right by then, and it comes up with them.
        """
        routes = list(routes)
        live = self._live()
        old = {r.slot for r in self.table.routes if r.slot is not None}
        occupied = {int(s.backend.removeprefix("app_")) for s in live or ()} - old
        self.write(assign(routes, self.table, occupied))
        if live is None:
            raise IngressFault("HAProxy is not running.", "It comes up with its files.")
        if self._runtime.config_digest() != skeleton_digest(self._settings, self.table.slots):
            self.reload()
            live = self._runtime.servers()
        self._reconcile({(s.backend, s.name): s for s in live})

    def write(self, table: Table | None = None) -> None:
        """Write all files of `table` (or of the present one) that differ from what is there, each in one rename."""
        self.table = table or self.table
        for name, text in files(self._settings, self.table).items():
            if self._written.get(name) != text:
                _replace(self._settings.home / name, text)
                self._written[name] = text

    def sessions(self, instance: str) -> int:
        """Requests and open websockets HAProxy has with an instance now; 0 when it does not know it."""
        return sum(s.sessions for s in self._live() or () if s.name == instance)

    def reload(self) -> None:
        """Tell the master to start a worker with the files as they are, and wait until that one answers. Open connections
        stay with the old worker. A master that has just forked a worker executes itself anew and refuses for a moment."""
        wanted = skeleton_digest(self._settings, self.table.slots)
        asked = False
        deadline = time.monotonic() + RELOAD_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(IngressFault):
                if not asked:
                    self._master.ask("reload")
                    asked = True
                if self._runtime.config_digest() == wanted:
                    return
            time.sleep(0.02)  # 2.6 tells of the end of a reload by nothing else
        raise IngressFault(
            f"HAProxy has not taken its new configuration within {RELOAD_TIMEOUT_S:g} s.", "See its log."
        )

    def _live(self) -> list[LiveServer] | None:
        try:
            return self._runtime.servers()
        except IngressFault:
            return None

    def _reconcile(self, live: dict[tuple[str, str], LiveServer]) -> None:
        """New servers, then the maps, then away with old servers: at no moment does a name lead to nothing."""
        wanted = self.table.servers
        for key, server in wanted.items():
            self._admit("/".join(key), f"{server.address}:{server.port}", live.get(key))
        for name, rows in ((HOSTS_MAP, self.table.hosts), (STATES_MAP, self.table.states)):
            path = self._settings.home / name
            if self._runtime.map_rows(path) != rows:
                self._runtime.replace_map(path, rows)
        for key, found in live.items():
            if key not in wanted:
                self._dismiss("/".join(key), found)

    def _admit(self, path: str, address: str, found: LiveServer | None) -> None:
        if found is None:
            added = f"add server {path} {address} {SERVER_OPTIONS}; enable server {path}"
            self._runtime.must(added, "New server registered")
            return
        if f"{found.address}:{found.port}" != address:
            ip, _, port = address.rpartition(":")
            self._runtime.must(
                f"set server {path} addr {ip} port {port}", "changed", "no need to change", "nothing changed"
            )
        if not found.ready:
            self._runtime.must(f"set server {path} state ready")

    def _dismiss(self, path: str, found: LiveServer) -> None:
        if found.ready:  # new requests go elsewhere from here on; those it has, it keeps
            self._runtime.must(f"set server {path} state drain")
            return
        if found.sessions:
            return
        # An idle connection kept for reuse makes `del` refuse; the server gets no requests, and the next round tries again.
        self._runtime.must(f"set server {path} state maint")
        self._runtime.ask(f"del server {path}")


def read_table(home: Path) -> Table:
    """The routes as last written; empty when there are none or they cannot be read (they are made again from Desired)."""
    try:
        return Table.from_json(json.loads((home / ROUTES_FILE).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return Table()


def gateway(c: WorkerConfig) -> Gateway:
    """The gateway of a configured host; makes its folder, and lets HAProxy's account through to the portal's socket."""
    (c.haproxy / "pages").mkdir(parents=True, exist_ok=True)
    group = account_group()
    if group is not None and c.run.is_dir():
        os.chown(c.run, -1, group)
        c.run.chmod(0o710)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    settings = Ingress(
        home=c.haproxy,
        binds=binds(c.bind, c.port),
        admin_socket=c.haproxy_socket,
        web_socket=c.web_socket,
        portal_names=tuple(dict.fromkeys((c.portal_host, "localhost", "127.0.0.1", "[::1]"))),
        scheme=c.scheme,
        maxconn=max(100, min(MAX_CONNECTIONS, (hard - RESERVED_FILES) // 2)),
        threads=max(1, len(os.sched_getaffinity(0)) // 2),
        account="" if group is None else ACCOUNT,
    )
    return Gateway(settings, c.haproxy_master)


def account_group() -> int | None:
    """The group of the account that parses strangers' requests; None, and they stay root's, without it or without root."""
    try:
        return pwd.getpwnam(ACCOUNT).pw_gid if os.geteuid() == 0 else None
    except KeyError:
        return None


def binds(address: str, port: int) -> tuple[str, ...]:
    """HAProxy's `bind` addresses: the loopback of both families for 127.0.0.1, both families for 0.0.0.0, else as given."""
    six = _has_ipv6()
    if address == "127.0.0.1" and six:
        return f"127.0.0.1:{port}", f"[::1]:{port}"
    if address in ("0.0.0.0", "*", "::") and six:
        return (f":::{port} v4v6",)
    return (f"[{address}]:{port}" if ":" in address else f"{address}:{port}",)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::1", 0))
    except OSError:
        return False
    return True


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    os.replace(temporary, path)  # noqa: PTH105  (one system call, the name says what it does)


def main(argv: list[str]) -> int:
    """`write`: the files for `make up`, with the routes known from before."""
    if argv != ["write"]:
        print("usage: python -m worker.ingress write", file=sys.stderr)
        return 2
    try:
        c = config()
        gateway(c).write()
    except (WorkerFault, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(c.haproxy / "haproxy.cfg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
