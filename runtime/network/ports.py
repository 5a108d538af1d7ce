"""Ports of the host that lead to containers: held by a bound socket, so that no other program takes them meanwhile."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address

from runtime.network.model import Endpoint, NetworkFault, NetworkInUse, PortBinding

log = logging.getLogger(__name__)

ANY = "0.0.0.0"
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def checked(binding: PortBinding) -> PortBinding:
    """A binding with its host address in IPv4 words. Raises NetworkFault for what cannot be published."""
    if not 1 <= binding.container_port <= 65535 or not 0 <= binding.host_port <= 65535:
        raise NetworkFault(
            f"Port {binding.host_port}:{binding.container_port} is out of range.", "Ports go from 1 to 65535."
        )
    if binding.protocol not in KINDS:
        raise NetworkFault(f"Protocol {binding.protocol!r} cannot be published.", "Use tcp or udp.")
    text = ANY if binding.host_address in ("", "::") else binding.host_address
    try:
        return replace(binding, host_address=str(IPv4Address(text)))
    except AddressValueError as error:
        raise NetworkFault(f"{text!r} is not an IPv4 address of this host.", "Publish on an IPv4 address.") from error


def hold(bindings: Iterable[PortBinding]) -> tuple[tuple[PortBinding, ...], list[socket.socket]]:
    """Take the host's ports; 0 becomes a free one. All or none. Raises NetworkInUse, NetworkFault."""
    real: list[PortBinding] = []
    held: list[socket.socket] = []
    try:
        for binding in map(checked, bindings):
            sock = _bind(binding)
            held.append(sock)
            real.append(replace(binding, host_port=sock.getsockname()[1]))
    except BaseException:
        for sock in held:
            sock.close()
        raise
    return tuple(real), held


class HeldPorts:
    """The bound sockets of one engine, by endpoint id."""

    def __init__(self) -> None:
        self._sockets: dict[str, list[socket.socket]] = {}

    def hold(self, endpoint_id: str, bindings: Iterable[PortBinding]) -> tuple[PortBinding, ...]:
        """Take ports for an endpoint, as the function `hold` does."""
        real, held = hold(bindings)
        self._sockets.setdefault(endpoint_id, []).extend(held)
        return real

    def hold_again(self, endpoint: Endpoint) -> None:
        """Take ports back after a restart of the engine; one that another program took meanwhile is said and left."""
        for binding in endpoint.ports:
            try:
                self._sockets.setdefault(endpoint.id, []).append(_bind(binding))
            except NetworkFault as fault:
                log.warning("A published port is shared with a program that gets no packets: %s", fault.message)

    def free(self, endpoint_id: str) -> None:
        """Give an endpoint's ports back."""
        for sock in self._sockets.pop(endpoint_id, []):
            sock.close()

    def close(self) -> None:
        """Give all ports back."""
        for endpoint_id in tuple(self._sockets):
            self.free(endpoint_id)


def _bind(binding: PortBinding) -> socket.socket:
    sock = socket.socket(socket.AF_INET, KINDS[binding.protocol] | socket.SOCK_CLOEXEC)
    try:
        sock.bind((binding.host_address, binding.host_port))
    except OSError as error:
        sock.close()
        where = f"{binding.host_address}:{binding.host_port}/{binding.protocol}"
        if error.errno == errno.EADDRINUSE:
            raise NetworkInUse(f"Port {where} is in use on this host.", "Publish another one, or 0 for any.") from error
        raise NetworkFault(f"{where} cannot be published: {error.strerror}.", "Use an address of this host.") from error
    return sock
