"""`linux.netDevices`: interfaces of the host's that a container has for as long as it lives (config-linux.md, "Network Devices").

Moved with a name for inside, their permanent addresses of global scope, and up. The kernel gives a physical one back when the container's
network namespace ends, and ends a virtual one.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from runtime.network import links
from runtime.network.namespaces import Namespace
from runtime.network.netlink import Socket
from runtime.oci.fields import SpecFault
from runtime.oci.spec import Linux, NetDevice

_NAME = re.compile(r"[^\s/:\0]{1,15}")  # dev_valid_name() in net/core/dev.c


def check(linux: Linux) -> None:
    """Raise SpecFault for names the kernel does not take, two of the same, and a container in the host's network."""
    wanted = linux.net_devices
    if wanted and linux.namespace("network") is None:
        raise SpecFault("linux.netDevices: the network is the host's, which has them.", 'Add {"type": "network"}.')
    inside = [device.name or name for name, device in wanted.items()]
    for name in (*wanted, *inside):
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise SpecFault(
                f"linux.netDevices: {name!r} is no name of an interface.", "Up to 15 bytes, no / : or space."
            )
    if twice := {name for name in inside if inside.count(name) > 1}:
        raise SpecFault(f"linux.netDevices: two are to be named {min(twice)}.", "Give each its own name.")


class Lender:
    """Lends interfaces of the network namespace that it is made in, which this process may leave afterwards."""

    def __init__(self, devices: dict[str, NetDevice]) -> None:
        self._devices = devices
        self._opened = ExitStack()
        self._home = self._open(Path("/proc/thread-self/ns/net"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def lend(self, netns: Path, undo: ExitStack) -> None:
        """Move all into a namespace; `undo`, before this is closed, gives them back. Raises SpecFault, OSError."""
        away = self._open(netns)
        for name, device in self._devices.items():
            inside = device.name or name
            _move(self._home, name, away, inside)
            undo.callback(_move, away, inside, self._home, name)

    def _open(self, path: Path) -> Namespace:
        opened = Namespace.open(path)
        self._opened.callback(opened.close)
        return opened


def _move(source: Namespace, name: str, target: Namespace, new: str) -> None:
    index = _index(source.sock, name)
    addresses = [address for address in links.list_addresses(source.sock) if address.index == index and address.stays]
    source.sock.transact([links.move_link(index, target.fd, new)])
    there = _index(target.sock, new)
    target.sock.transact([links.set_link(there), *(address.message(there) for address in addresses)])


def _index(sock: Socket, name: str) -> int:
    for link in links.list_links(sock):
        if link.name == name:
            return link.index
    raise SpecFault(f"linux.netDevices: there is no interface {name} here.", "`ip link` lists them.")
