"""After a start of the engine: what the records say and the kernel still has goes on, all else is taken away."""

from __future__ import annotations

import logging
from pathlib import Path

from runtime.network import namespaces
from runtime.network.book import Book
from runtime.network.records import Records, SandboxRecord
from runtime.network.wiring import Wiring

log = logging.getLogger(__name__)


def surviving(record: SandboxRecord, links: set[str], networks: set[str]) -> SandboxRecord:
    """A sandbox's record without endpoints whose link or network is gone. Pure."""
    kept = tuple(one for one in record.endpoints if one.host_link in links and one.network_id in networks)
    return SandboxRecord(record.container_id, kept)


def reconcile(book: Book, records: Records, wiring: Wiring, netns: Path) -> dict[str, int]:
    """Fill the book from the records, make bridges and memberships right, remove strays. Returns outer links' indexes."""
    book.networks = {network.id: network for network in records.load_networks()}
    found = {link.name: link.index for link in wiring.links()}
    for record in records.load_sandboxes():
        if not namespaces.is_bound(netns / record.container_id[:12]):
            records.forget_sandbox(record.container_id)
            continue
        kept = surviving(record, set(found), set(book.networks))
        if kept != record:
            records.save_sandbox(kept)
        book.sandboxes[record.container_id] = kept
    _remove_strays(book, wiring, netns, set(found))
    wiring.enable_forwarding()
    for network in book.networks.values():
        wiring.make_bridge(network)
        for endpoint in book.members(network.id):
            wiring.reattach(endpoint, network.bridge)
    return found


def _remove_strays(book: Book, wiring: Wiring, netns: Path, found: set[str]) -> None:
    kept_paths = {container_id[:12] for container_id in book.sandboxes}
    for path in netns.iterdir():
        if path.name not in kept_paths:
            log.warning("Removing the network namespace %s: no record asks for it.", path)
            namespaces.unbind(path)
    kept = {endpoint.host_link for endpoint in book.everyone()} | {n.bridge for n in book.networks.values()}
    strays = {name for name in found if name.startswith((wiring.names.bridge, wiring.names.veth))} - kept
    if strays:
        log.warning("Removing links no record asks for: %s", ", ".join(sorted(strays)))
        wiring.delete_links(strays)
