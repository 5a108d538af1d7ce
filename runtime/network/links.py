"""rtnetlink messages for links, addresses, routes and counters (rtnetlink(7), include/uapi/linux/if_link.h)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from runtime.network.netlink import NLM_F_CREATE, NLM_F_EXCL, Socket, attr, attributes, message, nest, text, u32

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE, RTM_GETSTATS = 20, 22, 24, 26, 94
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
IFLA_AF_SPEC, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 26, 8, 1
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING = 1, 5, 23
IFLA_STATS_LINK_64 = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD, IFA_F_PERMANENT, RT_SCOPE_UNIVERSE = 0x02, 0x80, 0
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RT_TABLE_LOCAL, RTPROT_BOOT, RTN_UNICAST = 254, 255, 3, 1
IFF_UP = 1
LOOPBACK_INDEX = 1

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_STATS = struct.Struct("=BxHII")
_COUNTERS = struct.Struct("=8Q")


@dataclass(frozen=True, slots=True)
class Link:
    """One link as a dump shows it."""

    index: int
    name: str
    mtu: int
    master: int


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a link, of either family, with its attributes as the kernel has them."""

    index: int
    family: int
    prefix: int
    flags: int
    scope: int
    values: tuple[tuple[int, bytes], ...]

    @property
    def stays(self) -> bool:
        """Whether somebody gave it for good, to be reached from elsewhere."""
        return bool(self.flags & IFA_F_PERMANENT) and self.scope == RT_SCOPE_UNIVERSE

    def message(self, index: int) -> bytes:
        """Give the same to a link; nobody waits for its being a duplicate."""
        body = _IFADDR.pack(self.family, self.prefix, 0, self.scope, index) + u32(IFA_FLAGS, self.flags | IFA_F_NODAD)
        body += b"".join(attr(kind, value) for kind, value in self.values)
        return message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


def mac_of(address: str) -> str:
    """The locally administered MAC that belongs to an IPv4 address, so that stale neighbour entries stay right."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def mac_bytes(mac: str) -> bytes:
    """Six bytes of `aa:bb:cc:dd:ee:ff`."""
    return bytes.fromhex(mac.replace(":", ""))


def new_bridge(name: str, *, mac: str, mtu: int) -> bytes:
    """Make a bridge that forwards at once, without spanning tree or multicast snooping."""
    data = nest(
        IFLA_INFO_DATA,
        u32(IFLA_BR_FORWARD_DELAY, 0),
        u32(IFLA_BR_STP_STATE, 0),
        attr(IFLA_BR_MCAST_SNOOPING, b"\0"),
    )
    info = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), data)
    body = _ifinfo() + text(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, mac_bytes(mac)) + u32(IFLA_MTU, mtu) + info
    return message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def new_veth(name: str, peer: str, *, netns_fd: int, peer_index: int, mtu: int) -> bytes:
    """Make a veth pair with its far end already inside a namespace. One queue: more only cost memory and time."""
    queues = u32(IFLA_NUM_TX_QUEUES, 1) + u32(IFLA_NUM_RX_QUEUES, 1)
    common = u32(IFLA_MTU, mtu) + queues
    far = _ifinfo(peer_index) + text(IFLA_IFNAME, peer) + u32(IFLA_NET_NS_FD, netns_fd) + common
    data = nest(IFLA_INFO_DATA, attr(VETH_INFO_PEER, far))
    info = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), data)
    return message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _ifinfo() + text(IFLA_IFNAME, name) + common + info)


def set_link(
    index: int, *, up: bool = True, master: int | None = None, mac: str | None = None, mtu: int | None = None
) -> bytes:
    """Change a link: bring it up or down, enslave it, give it a MAC or MTU."""
    body = _ifinfo(index, IFF_UP if up else 0, IFF_UP)
    if mac is not None:
        body += attr(IFLA_ADDRESS, mac_bytes(mac))
    if mtu is not None:
        body += u32(IFLA_MTU, mtu)
    if master is not None:
        body += u32(IFLA_MASTER, master)
    return message(RTM_SETLINK, 0, body)


def move_link(index: int, netns_fd: int, name: str) -> bytes:
    """Move a link into another namespace under a name; one that is taken there is EEXIST, and nothing is moved."""
    return message(RTM_SETLINK, 0, _ifinfo(index) + u32(IFLA_NET_NS_FD, netns_fd) + text(IFLA_IFNAME, name))


def without_ipv6(index: int) -> bytes:
    """Keep the kernel from giving a link an IPv6 address of its own when it comes up."""
    mode = attr(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
    body = _ifinfo(index) + nest(IFLA_AF_SPEC, nest(socket.AF_INET6, mode))
    return message(RTM_SETLINK, 0, body)


def delete_link(name: str) -> bytes:
    """Delete a link by name (27 ms for a veth: do it where nobody waits)."""
    return message(RTM_DELLINK, 0, _ifinfo() + text(IFLA_IFNAME, name))


def new_address(index: int, address: str, prefix: int) -> bytes:
    """Give a link an IPv4 address."""
    interface = ipaddress.IPv4Interface(f"{address}/{prefix}")
    packed = interface.packed
    body = _IFADDR.pack(socket.AF_INET, prefix, 0, 0, index)
    body += attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)
    body += attr(IFA_BROADCAST, interface.network.broadcast_address.packed)
    return message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def new_default_route(index: int, gateway: str) -> bytes:
    """The default route through a gateway on a link."""
    body = _RTMSG.pack(socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0)
    body += attr(RTA_GATEWAY, ipaddress.IPv4Address(gateway).packed) + u32(RTA_OIF, index)
    return message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)


def list_links(sock: Socket) -> list[Link]:
    """All links of the socket's namespace."""
    found = []
    for _, body in sock.dump(message(RTM_GETLINK, 0, _ifinfo())):
        index = struct.unpack_from("=i", body, 4)[0]
        values = {k: bytes(v) for k, v in attributes(body, 16) if k in (IFLA_IFNAME, IFLA_MTU, IFLA_MASTER)}
        name = values[IFLA_IFNAME].rstrip(b"\0").decode(errors="replace")
        mtu, master = (int.from_bytes(values.get(k, b""), "little") for k in (IFLA_MTU, IFLA_MASTER))
        found.append(Link(index, name, mtu, master))
    return found


def list_addresses(sock: Socket) -> list[Address]:
    """All addresses of the socket's namespace."""
    found = []
    for _, body in sock.dump(message(RTM_GETADDR, 0, _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))):
        family, prefix, flags, scope, index = _IFADDR.unpack_from(body)
        values = {kind: bytes(value) for kind, value in attributes(body, _IFADDR.size)}
        flags = int.from_bytes(values.get(IFA_FLAGS, bytes([flags])), "little")
        kept = tuple((k, values[k]) for k in (IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST) if k in values)
        found.append(Address(index, family, prefix, flags, scope, kept))
    return found


def list_routes(sock: Socket) -> list[tuple[ipaddress.IPv4Network, int]]:
    """IPv4 routes of the main table as (destination, outgoing link index)."""
    found = []
    request = message(RTM_GETROUTE, 0, _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))
    for _, body in sock.dump(request):
        bits, table = body[1], body[4]
        if table != RT_TABLE_MAIN:
            continue
        values = {k: bytes(v) for k, v in attributes(body, 12) if k in (RTA_DST, RTA_OIF)}
        destination = ipaddress.IPv4Network((values.get(RTA_DST, bytes(4)), bits))
        found.append((destination, int.from_bytes(values.get(RTA_OIF, b""), "little")))
    return found


def counters(sock: Socket) -> dict[int, tuple[int, int, int]]:
    """(rx bytes, tx bytes, drops) of every link by index, as the host's end counts them."""
    found = {}
    request = message(RTM_GETSTATS, 0, _STATS.pack(socket.AF_UNSPEC, 0, 0, 1 << (IFLA_STATS_LINK_64 - 1)))
    for _, body in sock.dump(request):
        index = struct.unpack_from("=I", body, 4)[0]
        for kind, value in attributes(body, 12):
            if kind == IFLA_STATS_LINK_64:
                _, _, rx, tx, _, _, rx_dropped, tx_dropped = _COUNTERS.unpack_from(value)
                found[index] = (rx, tx, rx_dropped + tx_dropped)
    return found
