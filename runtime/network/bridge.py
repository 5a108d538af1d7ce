"""The networks of one engine: bridges, sandboxes, endpoints, published ports. The engine's only door to the network.

Decisions are made in the event loop, where the records live; what the kernel has to do runs in one thread, in order.
Modes without a bridge need nothing here: `host` has no sandbox, `none` a sandbox without endpoints, `container` the
sandbox of another container.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Self

from runtime.network import firewall, ipam, leftovers, namespaces
from runtime.network.book import Book, Seat, Wanted
from runtime.network.firewall import Names, Pin, Port
from runtime.network.lingering import Lingering
from runtime.network.links import mac_of
from runtime.network.model import DEFAULT_NETWORK, Counters, Endpoint, Leftovers, Network, PortBinding, Queue, Sandbox
from runtime.network.namespaces import Namespace
from runtime.network.ports import HeldPorts
from runtime.network.reconcile import reconcile
from runtime.network.records import Records, SandboxRecord
from runtime.network.resolving import Resolvers
from runtime.network.whole import whole
from runtime.network.wiring import Parked, Wiring

__all__ = ["Networks", "Parked"]


class Networks:
    """All networks of one state directory. Open once per engine process; methods are for its event loop only.

    What changes something is carried to its end even when the caller is cancelled. One call at a time per container.
    """

    def __init__(self, state_dir: Path, run_dir: Path, pool: IPv4Network) -> None:
        self._state_dir, self._run_dir, self._pool = state_dir, run_dir, pool
        self._names: Names = leftovers.names_of(state_dir)
        self._records = Records.of(state_dir, run_dir)
        self._thread = ThreadPoolExecutor(1, "network")
        self._wiring = Wiring(self._names)
        self._book = Book()
        self._changing = asyncio.Lock()  # networks are made and removed one at a time
        self._resolvers = Resolvers(self._book)
        self._open: dict[str, Parked] = {}  # sandboxes whose namespace is still held open, by container
        self._ports = HeldPorts()
        self._indexes: dict[str, int] = {}  # of outer links
        self._lingering = Lingering(lambda link: self._thread.submit(self._wiring.delete_links, [link]))

    @classmethod
    async def open(cls, state_dir: Path, run_dir: Path, pool: str = "10.201.0.0/16") -> Self:
        """Make the kernel as the records say: bridges, firewall, DNS; forget endpoints whose sandbox is gone.

        `state_dir` is `$MOORAGE_STATE`, `run_dir` is `/run/moorage/<short>`. Turns `ip_forward` on and logs that.
        Subnets of `pool` that the host reaches otherwise (another engine's, say) are passed over.
        """
        networks = cls(state_dir, run_dir, ipam.parse_pool(pool))
        try:
            await networks._start()
        except BaseException:
            await networks.close()
            raise
        return networks

    async def _start(self) -> None:
        (self._run_dir / "netns").mkdir(mode=0o700, parents=True, exist_ok=True)
        self._records.prepare()
        self._indexes = await self._run(reconcile, self._book, self._records, self._wiring, self._run_dir / "netns")
        await self._apply()
        for network in self._book.networks.values():
            await self._resolvers.serve(network)
        if not any(network.name == DEFAULT_NETWORK for network in self._book.networks.values()):
            await self._create(Wanted(DEFAULT_NETWORK))
        for endpoint in self._book.everyone():
            self._ports.hold_again(endpoint)

    async def close(self) -> None:
        """Stop answering DNS and let go of parked sandboxes; all else stays as it is, for the next engine."""
        await self._resolvers.close()
        self._lingering.close()
        for parked in self._open.values():
            parked.namespace.close()
        self._ports.close()
        await asyncio.to_thread(self._thread.shutdown)
        self._wiring.close()

    async def destroy(self) -> None:
        """Take everything of this state out of the kernel (`make down`): sandboxes, links, the firewall's tables."""
        await self.close()
        await asyncio.to_thread(leftovers.destroy, self._state_dir, self._run_dir)

    # Networks

    @whole
    async def create(
        self,
        name: str,
        *,
        subnet: str | None = None,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        internal: bool = False,
    ) -> Network:
        """Make a network; without `subnet` (CIDR) the next free /24 of the pool. Raises NetworkInUse, NetworkFault."""
        async with self._changing:
            return await self._create(Wanted(name, subnet, labels or {}, options or {}, internal))

    def get(self, name_or_id: str) -> Network:
        """The network of that name, id or unique id prefix. Raises NoSuchNetwork."""
        return self._book.get(name_or_id)

    def list(self) -> Sequence[Network]:
        """All networks, the default one (`bridge`) first."""
        return self._book.sorted()

    @whole
    async def remove(self, name_or_id: str) -> None:
        """Remove a network without endpoints. Raises NoSuchNetwork, NetworkInUse; the default network stays."""
        async with self._changing:
            network = self._book.check_removable(name_or_id)
            del self._book.networks[network.id]
            self._resolvers.stop(network)
            await self._run(self._records.forget_network, network)
            await self._run(self._wiring.delete_links, [network.bridge])
            await self._apply()

    # Sandboxes

    async def park(self) -> Parked:
        """Prepare a sandbox with an unattached veth, ahead of need."""
        return await self._run(self._wiring.park)

    @whole
    async def adopt(self, parked: Parked, container_id: str) -> Sandbox:
        """Give a parked sandbox to a container that will be connected."""
        record, path = SandboxRecord(container_id), self._path(container_id)
        await self._run(self._keep, parked, record, path)
        self._book.sandboxes[container_id] = record
        self._open[container_id] = parked
        return Sandbox(container_id=container_id, path=path)

    async def discard(self, parked: Parked) -> None:
        """Let a parked sandbox go."""
        await self._run(parked.namespace.close)

    async def create_sandbox(self, container_id: str) -> Sandbox:
        """Make a network namespace with only `lo` for a container, at `<run_dir>/netns/<first 12 digits>`."""
        parked = Parked(await self._run(Namespace.make))
        return await self.adopt(parked, container_id)

    @whole
    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        """Let a sandbox go with all its endpoints, names and ports. Idempotent.

        Returns when nothing leads to it any more; the kernel takes the links along in the background.
        """
        record = self._book.sandboxes.pop(sandbox.container_id, None)
        parked = self._open.pop(sandbox.container_id, None)
        if parked:
            parked.namespace.close()
        endpoints = record.endpoints if record else ()
        for endpoint in endpoints:
            self._let_go(endpoint)
            self._lingering.expect_gone(endpoint.host_link)
        await self._run(self._end, sandbox, endpoints)

    def sandbox(self, container_id: str) -> Sandbox | None:
        """The sandbox of a container, also after a restart of the engine; None if there is none."""
        known = container_id in self._book.sandboxes
        return Sandbox(container_id=container_id, path=self._path(container_id)) if known else None

    def sandboxes(self) -> tuple[Sandbox, ...]:
        """All sandboxes: on start the engine removes those of containers it does not know."""
        return tuple(Sandbox(container_id=one, path=self._path(one)) for one in self._book.sandboxes)

    # Endpoints

    @whole
    async def connect(
        self,
        sandbox: Sandbox,
        network: Network | str,
        *,
        address: str | None = None,
        preferred: str = "",
        aliases: Iterable[str] = (),
        rate_in_bps: int = 0,
        rate_out_bps: int = 0,
    ) -> Endpoint:
        """Give a sandbox an interface in a network. The first endpoint has the default route.

        Rates are bits per second, 0 unlimited. `address` must be free and in the subnet; without it `preferred` is taken when it
        is, else the next free one.
        `aliases` are names that resolve on this network, also as `<alias>.internal`. Raises NetworkFault.
        """
        network = self.get(network) if isinstance(network, str) else network
        book, container_id = self._book, sandbox.container_id
        book.check_connect(container_id, network)
        wish = Seat(address or "", preferred)
        chosen = book.choose_address(container_id, network, wish, self._records.last_address(network.id))
        endpoint = Endpoint(
            id=secrets.token_hex(32),
            container_id=container_id,
            network_id=network.id,
            network=network.name,
            address=str(chosen),
            prefix=IPv4Network(network.subnet).prefixlen,
            gateway=network.gateway,
            mac=mac_of(str(chosen)),
            host_link="",
            interface=book.free_interface(container_id),
            aliases=tuple(dict.fromkeys(alias.lower() for alias in aliases if alias)),
            rate_in_bps=rate_in_bps,
            rate_out_bps=rate_out_bps,
        )
        book.claimed.add(chosen)
        self.release(container_id)
        try:
            endpoint, index = await self._run(self._attach, endpoint, network, self.endpoints(container_id))
            book.put(endpoint)
        finally:
            book.claimed.discard(chosen)
        self._indexes[endpoint.host_link] = index
        self._resolvers.changed(network.id)
        return endpoint

    def reserve(self, container_id: str, network: str, address: str) -> None:
        """Keep an address for a container until it is connected or `release`d. Raises NoSuchNetwork."""
        self._book.reserved[container_id] = self.get(network).id, IPv4Address(address)

    def release(self, container_id: str) -> None:
        """Keep no address for a container any more."""
        self._book.reserved.pop(container_id, None)

    @whole
    async def set_rates(self, endpoint: Endpoint, *, rate_in_bps: int, rate_out_bps: int) -> Endpoint:
        """Change the rates of a connected endpoint at once. Returns the endpoint as it is now."""
        changed = replace(self._book.current(endpoint), rate_in_bps=rate_in_bps, rate_out_bps=rate_out_bps)
        await self._run(self._wiring.set_rates, self._path(endpoint.container_id), changed)
        return await self._save(changed)

    @whole
    async def publish(self, endpoint: Endpoint, bindings: Iterable[PortBinding]) -> Endpoint:
        """Lead ports of the host to the endpoint; returned `ports` carry the real host ports. Raises NetworkInUse."""
        current = self._book.current(endpoint)
        real = self._ports.hold(endpoint.id, bindings)
        try:
            await self._run(self._wiring.publish, current, real)
        except BaseException:
            self._ports.free(endpoint.id)
            raise
        return await self._save(replace(current, ports=(*current.ports, *real)))

    @whole
    async def unpublish(self, endpoint: Endpoint) -> Endpoint:
        """Take back all published ports of an endpoint."""
        current = self._book.current(endpoint)
        await self._run(self._wiring.unpublish, current)
        self._ports.free(endpoint.id)
        return await self._save(replace(current, ports=()))

    @whole
    async def disconnect(self, endpoint: Endpoint) -> None:
        """Take one interface out of a sandbox that lives on. Idempotent."""
        if endpoint.id not in {one.id for one in self.endpoints(endpoint.container_id)}:
            return
        current = self._book.current(endpoint)
        record = self._book.drop(current)
        self._let_go(current)
        heir = record.endpoints[0] if record.endpoints else None
        await self._run(self._wiring.detach, self._path(endpoint.container_id), current, heir)
        await self._run(self._records.save_sandbox, record)

    def endpoints(self, container_id: str) -> tuple[Endpoint, ...]:
        """A container's endpoints in the order they were connected."""
        return self._book.endpoints(container_id)

    def members(self, network_id: str) -> tuple[Endpoint, ...]:
        """All endpoints of a network."""
        return self._book.members(network_id)

    def resolv_conf(self, container_id: str) -> str:
        """Text for the container's /etc/resolv.conf: the DNS of its first network; empty without one."""
        found = self.endpoints(container_id)
        return f"nameserver {found[0].gateway}\noptions timeout:4 attempts:2\n" if found else ""

    # Looking

    def sample(self, endpoint: Endpoint) -> Counters:
        """One endpoint's counters; zeros if its link is gone. For many use `sample_all`."""
        return self.sample_all().get(endpoint.id, Counters())

    def sample_all(self) -> dict[str, Counters]:
        """Counters of all endpoints by endpoint id, in one pass over the kernel (0.9 ms for 100)."""
        everyone = tuple(self._book.everyone())
        found, queues = self._wiring.counters(queues=any(endpoint.rate_in_bps for endpoint in everyone))
        indexes = {endpoint.id: self._indexes.get(endpoint.host_link, 0) for endpoint in everyone}
        return {key: _counters(found.get(i, (0, 0, 0)), queues.get(i)) for key, i in indexes.items()}

    async def outgoing(self, endpoint: Endpoint) -> Queue | None:
        """The queue before what a container sends (0.3 ms); None when no rate holds it, or it is gone."""
        with suppress(OSError):
            path = self._path(endpoint.container_id)
            return await self._run(self._wiring.outgoing, path, endpoint.interface)
        return None

    def leftovers(self) -> Leftovers:
        """What the kernel holds for this state though no record asks for it."""
        return leftovers.leftovers(self._state_dir, self._run_dir, running=True)

    # In the thread

    async def _run[**P, T](self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, functools.partial(function, *args, **kwargs)
        )

    def _keep(self, parked: Parked, record: SandboxRecord, path: Path) -> None:
        try:
            namespaces.unbind(path)
            parked.namespace.bind(path)
            self._records.save_sandbox(record)
        except BaseException:
            namespaces.unbind(path)
            parked.namespace.close()
            raise

    def _attach(self, endpoint: Endpoint, network: Network, before: tuple[Endpoint, ...]) -> tuple[Endpoint, int]:
        parked = self._open.pop(endpoint.container_id, None)
        parked = parked or Parked(Namespace.open(self._path(endpoint.container_id)))
        try:
            endpoint, index = self._wiring.attach(parked, endpoint, network, default_route=not before)
        finally:
            parked.namespace.close()
        self._records.save_last_address(network.id, endpoint.address)
        self._records.save_sandbox(SandboxRecord(endpoint.container_id, (*before, endpoint)))
        return endpoint, index

    def _end(self, sandbox: Sandbox, endpoints: Iterable[Endpoint]) -> None:
        namespaces.unbind(sandbox.path)
        self._records.forget_sandbox(sandbox.container_id)
        for endpoint in endpoints:
            self._wiring.close_to(endpoint)

    # Between

    def _path(self, container_id: str) -> Path:
        return self._run_dir / "netns" / container_id[:12]

    async def _create(self, wanted: Wanted) -> Network:
        routes, mtu = await self._run(self._wiring.foreign_routes), await self._run(self._wiring.host_mtu)
        network = self._book.decide(wanted, self._pool, self._names.bridge, routes=routes, mtu=mtu)
        self._book.networks[network.id] = network
        try:
            await self._apply()
            await self._run(self._wiring.make_bridge, network)
            await self._run(self._records.save_network, network)
        except BaseException:
            del self._book.networks[network.id]
            await self._run(self._wiring.delete_links, [network.bridge])
            await self._apply()
            raise
        await self._resolvers.serve(network)
        return network

    async def _apply(self) -> None:
        everyone = tuple(self._book.everyone())
        pins = [Pin(endpoint.host_link, endpoint.mac, endpoint.address) for endpoint in everyone]
        published = [Port(binding, endpoint.address) for endpoint in everyone for binding in endpoint.ports]
        text = firewall.ruleset(self._names, tuple(self._book.networks.values()), pins, published)
        await self._run(firewall.apply, text)

    async def _save(self, endpoint: Endpoint) -> Endpoint:
        await self._run(self._records.save_sandbox, self._book.put(endpoint))
        return endpoint

    def _let_go(self, endpoint: Endpoint) -> None:
        self._ports.free(endpoint.id)
        self._resolvers.changed(endpoint.network_id)
        self._indexes.pop(endpoint.host_link, None)


def _counters(link: tuple[int, int, int], queue: Queue | None) -> Counters:
    received, sent, drops = link  # of the host's end: what it sends the container receives
    return Counters(sent, received, drops + (queue.drops if queue else 0), queue)
