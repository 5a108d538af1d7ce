"""Which names each network answers, and the resolvers that do it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from ipaddress import IPv4Network

from runtime.network.book import Book
from runtime.network.dns import Resolver
from runtime.network.model import Network

log = logging.getLogger(__name__)


class Resolvers:
    """One resolver a network; their tables are re-made at the first question after a change."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._running: dict[str, Resolver] = {}
        self._names: dict[str, dict[str, list[str]]] = {}

    async def serve(self, network: Network) -> None:
        """Begin to answer on a network's bridge. Says so when another server holds the port there."""
        resolver = Resolver(IPv4Network(network.subnet), lambda alias: self.lookup(network.id, alias))
        try:
            await resolver.start(network.gateway)
        except OSError as error:
            log.warning("No DNS on network %s: port 53 of %s: %s", network.name, network.gateway, error.strerror)
            resolver.close()
            return
        self._running[network.id] = resolver

    def stop(self, network: Network) -> None:
        """Stop answering for a network."""
        if resolver := self._running.pop(network.id, None):
            resolver.close()
        self.changed(network.id)

    async def close(self) -> None:
        """Stop answering everywhere."""
        for resolver in self._running.values():
            resolver.close()
        self._running.clear()
        await asyncio.sleep(0)  # transports close in the loop's next turn

    def changed(self, network_id: str) -> None:
        """Names of a network came or went."""
        self._names.pop(network_id, None)

    def lookup(self, network_id: str, alias: str) -> Sequence[str] | None:
        """Addresses of an alias in a network; None if nobody has it."""
        names = self._names.get(network_id)
        if names is None:
            names = self._names[network_id] = {}
            for endpoint in self._book.members(network_id):
                for one in endpoint.aliases:
                    names.setdefault(one, []).append(endpoint.address)
        return names.get(alias)
