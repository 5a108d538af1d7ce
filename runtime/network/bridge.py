"""The networks of one engine: bridges, sandboxes, endpoints, published ports. The engine's only door to the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from runtime.network.model import Counters, Endpoint, Leftovers, Network, PortBinding, Sandbox


class Parked:
    """A sandbox without a container: a namespace with an unattached veth, held by file descriptors alone.

    It dies with the process that made it, so it can leave nothing behind.
    """


class Networks:
    """All networks of one state directory. Open once per engine process; methods are for its event loop only."""

    @classmethod
    async def open(cls, state_dir: Path, run_dir: Path, pool: str = "10.201.0.0/16") -> Self:
        """Make the kernel as the records say: bridges, firewall, DNS; forget endpoints whose sandbox is gone.

        `state_dir` is `$MOORAGE_STATE`, `run_dir` is `/run/moorage/<short>`. Turns `ip_forward` on and logs that.
        Raises NetworkFault if `pool` meets a route of the host.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Stop answering DNS and let go of parked sandboxes; all else stays as it is, for the next engine."""
        raise NotImplementedError

    async def destroy(self) -> None:
        """Take everything of this state out of the kernel (`make down`): sandboxes, links, the firewall's tables."""
        raise NotImplementedError

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
        raise NotImplementedError

    def get(self, name_or_id: str) -> Network:
        """The network of that name, id or unique id prefix. Raises NoSuchNetwork."""
        raise NotImplementedError

    def list(self) -> Sequence[Network]:
        """All networks, the default one (`bridge`) first."""
        raise NotImplementedError

    async def remove(self, name_or_id: str) -> None:
        """Remove a network without endpoints. Raises NoSuchNetwork, NetworkInUse; the default network stays."""
        raise NotImplementedError

    async def park(self) -> Parked:
        """Prepare a sandbox with an unattached veth, ahead of need."""
        raise NotImplementedError

    async def adopt(self, parked: Parked, container_id: str) -> Sandbox:
        """Give a parked sandbox to a container."""
        raise NotImplementedError

    async def discard(self, parked: Parked) -> None:
        """Let a parked sandbox go."""
        raise NotImplementedError

    async def create_sandbox(self, container_id: str) -> Sandbox:
        """Make a network namespace with only `lo` for a container, at `<run_dir>/netns/<first 12 digits>`."""
        raise NotImplementedError

    async def connect(
        self,
        sandbox: Sandbox,
        network: Network | str,
        *,
        address: str | None = None,
        aliases: Iterable[str] = (),
        rate_in_bps: int = 0,
        rate_out_bps: int = 0,
    ) -> Endpoint:
        """Give a sandbox an interface in a network. The first endpoint has the default route.

        Rates are bits per second, 0 unlimited. `address` must be free and in the subnet, else the next free one.
        `aliases` are names that resolve on this network, also as `<alias>.internal`. Raises NetworkFault.
        """
        raise NotImplementedError

    async def set_rates(self, endpoint: Endpoint, *, rate_in_bps: int, rate_out_bps: int) -> Endpoint:
        """Change the rates of a connected endpoint at once. Returns the endpoint as it is now."""
        raise NotImplementedError

    async def publish(self, endpoint: Endpoint, bindings: Iterable[PortBinding]) -> Endpoint:
        """Lead ports of the host to the endpoint; returned `ports` carry the real host ports. Raises NetworkInUse."""
        raise NotImplementedError

    async def unpublish(self, endpoint: Endpoint) -> Endpoint:
        """Take back all published ports of an endpoint."""
        raise NotImplementedError

    async def disconnect(self, endpoint: Endpoint) -> None:
        """Take one interface out of a sandbox that lives on. Idempotent."""
        raise NotImplementedError

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        """Let a sandbox go with all its endpoints, names and ports. Idempotent.

        Returns when addresses and rules are gone; the kernel takes the links along in the background.
        """
        raise NotImplementedError

    def sandbox(self, container_id: str) -> Sandbox | None:
        """The sandbox of a container, also after a restart of the engine; None if there is none."""
        raise NotImplementedError

    def endpoints(self, container_id: str) -> tuple[Endpoint, ...]:
        """A container's endpoints in the order they were connected."""
        raise NotImplementedError

    def members(self, network_id: str) -> tuple[Endpoint, ...]:
        """All endpoints of a network."""
        raise NotImplementedError

    def resolv_conf(self, container_id: str) -> str:
        """Text for the container's /etc/resolv.conf: the DNS of its first network."""
        raise NotImplementedError

    def sample(self, endpoint: Endpoint) -> Counters:
        """One endpoint's counters; zeros if its link is gone."""
        raise NotImplementedError

    def sample_all(self) -> dict[str, Counters]:
        """Counters of all endpoints by endpoint id, in one pass over the kernel (0.3 ms for 100)."""
        raise NotImplementedError

    def leftovers(self) -> Leftovers:
        """What the kernel holds for this state though no record asks for it."""
        raise NotImplementedError
