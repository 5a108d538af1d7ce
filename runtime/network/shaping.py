"""Holding an endpoint to its rates: a token bucket (tc-tbf(8)) on each end of the veth pair."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from runtime.network.model import Queue
from runtime.network.netlink import NLM_F_CREATE, NLM_F_REPLACE, Socket, attr, attributes, message, nest, text, u32

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
TCA_KIND, TCA_OPTIONS, TCA_STATS2, TCA_STATS_QUEUE = 1, 2, 7, 3
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TC_H_ROOT, HANDLE = 0xFFFFFFFF, 0x00010000
TC_LINKLAYER_ETHERNET = 1
NO_QDISC = (2, 22)  # ENOENT, EINVAL: nothing to delete

_TCMSG = struct.Struct("=BxxxiIII")
_RATESPEC = struct.Struct("=BBHhHI")

MIN_BURST_BYTES = 16 * 1024
BURST_S = 0.008
QUEUE_S = 0.1
MIN_QUEUE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Bucket:
    """Parameters of one token bucket, in bytes and bytes per second."""

    rate: int
    burst: int
    limit: int


def bucket(rate_bps: int) -> Bucket:
    """The bucket that holds `rate_bps` (bits per second) over seconds, not only on average over minutes.

    The burst lets one segmentation-offload packet of 64 kB pass at high rates; at low rates the kernel cuts such a
    packet up (tbf_segment), so a small burst keeps the first second honest. The queue holds 100 ms, and no less than
    256 kB: with 48 or 96 a single TCP stream at 1 Mbit/s loses so much that it falls to 0.7 to 0.9 of the rate.
    """
    rate = max(rate_bps // 8, 1)
    burst = max(MIN_BURST_BYTES, int(rate * BURST_S))
    return Bucket(rate, burst, burst + max(MIN_QUEUE_BYTES, int(rate * QUEUE_S)))


def shape(index: int, rate_bps: int) -> bytes:
    """Put a bucket on a link, or change the one that is there."""
    wanted = bucket(rate_bps)
    spec = _RATESPEC.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, min(wanted.rate, 0xFFFFFFFF))
    parms = spec + bytes(_RATESPEC.size) + struct.pack("=III", wanted.limit, 0, 0)
    options = [attr(TCA_TBF_PARMS, parms), u32(TCA_TBF_BURST, wanted.burst)]
    if wanted.rate > 0xFFFFFFFF:
        options.append(attr(TCA_TBF_RATE64, struct.pack("=Q", wanted.rate)))
    body = _TCMSG.pack(socket.AF_UNSPEC, index, HANDLE, TC_H_ROOT, 0)
    return message(
        RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body + text(TCA_KIND, "tbf") + nest(TCA_OPTIONS, *options)
    )


def wake(index: int) -> bytes:
    """Give a link that is up the queue it has anyway, which makes the kernel start it at once."""
    body = _TCMSG.pack(socket.AF_UNSPEC, index, 0, TC_H_ROOT, 0) + text(TCA_KIND, "noqueue")
    return message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body)


def unshape(index: int) -> bytes:
    """Take the bucket of a link away; refusals in `NO_QDISC` mean there was none."""
    return message(RTM_DELQDISC, 0, _TCMSG.pack(socket.AF_UNSPEC, index, HANDLE, TC_H_ROOT, 0))


def set_rate(sock: Socket, index: int, rate_bps: int) -> None:
    """Hold a link's outgoing traffic to a rate, 0 for none."""
    if rate_bps:
        sock.transact([shape(index, rate_bps)])
    else:
        sock.transact([unshape(index)], forgive=NO_QDISC)


def queues(sock: Socket) -> dict[int, Queue]:
    """What buckets made wait and dropped, by link index."""
    found = {}
    for _, body in sock.dump(message(RTM_GETQDISC, 0, _TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0))):
        index = struct.unpack_from("=i", body, 4)[0]
        values = dict(attributes(body, _TCMSG.size))
        if bytes(values.get(TCA_KIND, b"")) != b"tbf\0":
            continue
        for kind, value in attributes(values.get(TCA_STATS2, b"")):
            if kind == TCA_STATS_QUEUE:
                _, _, drops, _, overlimits = struct.unpack_from("=5I", value)  # struct gnet_stats_queue
                found[index] = Queue(overlimits, drops)
    return found
