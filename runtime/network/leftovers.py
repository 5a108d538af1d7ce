"""What a state directory holds in the kernel, with and without records: for `make doctor` and `make down`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from runtime.network import firewall, links, namespaces
from runtime.network.firewall import Names
from runtime.network.model import Leftovers
from runtime.network.netlink import Socket
from runtime.network.records import Records
from runtime.network.wiring import GONE


def names_of(state_dir: Path) -> Names:
    """The names everything of a state directory goes by."""
    return Names(hashlib.sha256(os.path.realpath(state_dir).encode()).hexdigest()[:8])


def leftovers(state_dir: Path, run_dir: Path, *, running: bool) -> Leftovers:
    """What is there though no record asks for it; with `running` false (after `make down`) all that is there.

    Links without a bridge are a living engine's parked ones and count only when it does not run.
    """
    names, records = names_of(state_dir), Records.of(state_dir, run_dir)
    sandboxes = records.load_sandboxes()
    known = {endpoint.host_link for record in sandboxes for endpoint in record.endpoints}
    known |= {network.bridge for network in records.load_networks()}
    with Socket() as sock:
        found = [link for link in links.list_links(sock) if link.name.startswith((names.bridge, names.veth))]
    paths = [path for path in (run_dir / "netns").glob("*") if namespaces.is_bound(path)]
    if not running:
        return Leftovers(
            links=tuple(link.name for link in found),
            netns=tuple(map(str, paths)),
            tables=tuple(firewall.tables(names)),
            records=tuple(record.container_id for record in sandboxes),
        )
    kept = {record.container_id[:12] for record in sandboxes}
    return Leftovers(
        links=tuple(link.name for link in found if link.name not in known and link.master),
        netns=tuple(str(path) for path in paths if path.name not in kept),
        records=tuple(
            r.container_id for r in sandboxes if not namespaces.is_bound(run_dir / "netns" / r.container_id[:12])
        ),
    )


def destroy(state_dir: Path, run_dir: Path) -> None:
    """Take everything of a state directory out of the kernel. Networks stay on record; no engine may be running."""
    names, records = names_of(state_dir), Records.of(state_dir, run_dir)
    for path in (run_dir / "netns").glob("*"):
        namespaces.unbind(path)
    for record in records.load_sandboxes():
        records.forget_sandbox(record.container_id)
    with Socket() as sock:
        _delete(
            sock, (link.name for link in links.list_links(sock) if link.name.startswith((names.bridge, names.veth)))
        )
    firewall.apply(firewall.removal(names))


def _delete(sock: Socket, wanted: Iterable[str]) -> None:
    for name in wanted:
        sock.transact([links.delete_link(name)], forgive=GONE)
