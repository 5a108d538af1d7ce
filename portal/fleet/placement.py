"""Which host an instance goes to: pure. Feasible hosts by free plan capacity, one app spread over hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from portal.errors import PortalError
from portal.plans.check import size

DISK_RESERVE = 0.05  # of a host's disk that no instance may be promised
OVERCOMMIT_CPU = 4.0  # plans are ceilings, and most apps idle


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One host as it is now. 0 capacity means it has not said."""

    name: str
    ready: bool = True
    fresh: bool = True  # has reported lately
    cpu_millicores: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    disk_free_bytes: int = 0
    cpu_promised: int = 0
    memory_promised: int = 0
    disk_promised: int = 0
    of_this_app: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one instance needs."""

    cpu_millicores: int
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The host, None when none will do, and why each of the others was refused."""

    host: str | None
    refused: dict[str, str]


class NoHost(PortalError):
    """No host can take an instance; the message names each with its reason."""

    code = "no_host"
    status = 503


def refusal(offer: Offer, wanted: Wanted) -> str:
    """Why this host cannot take it, or nothing."""
    if not offer.ready:
        return "is being drained"
    if not offer.fresh:
        return "has not reported lately"
    if offer.cpu_millicores and wanted.cpu_millicores > offer.cpu_millicores:
        return f"has {offer.cpu_millicores / 1000:g} cores, {wanted.cpu_millicores / 1000:g} are needed"
    if offer.cpu_millicores and offer.cpu_promised + wanted.cpu_millicores > offer.cpu_millicores * OVERCOMMIT_CPU:
        return f"has promised {offer.cpu_promised / 1000:g} of {offer.cpu_millicores * OVERCOMMIT_CPU / 1000:g} cores"
    if offer.memory_bytes and offer.memory_promised + wanted.memory_bytes > offer.memory_bytes:
        return f"has promised {size(offer.memory_promised)} of {size(offer.memory_bytes)} memory"
    if offer.disk_bytes and offer.disk_free_bytes < offer.disk_bytes * DISK_RESERVE:
        return f"has {size(offer.disk_free_bytes)} of {size(offer.disk_bytes)} disk left"
    room = round(offer.disk_bytes * (1 - DISK_RESERVE))
    if offer.disk_bytes and offer.disk_promised + wanted.disk_bytes > room:
        return (
            f"has promised {size(offer.disk_promised)} of {size(room)} disk, {size(wanted.disk_bytes)} more are needed"
        )
    return ""


def choose_host(offers: Iterable[Offer], wanted: Wanted, volumes: Mapping[str, str] | None = None) -> Choice:
    """The feasible host with the fewest instances of this app, then the most free memory, then the first by name.

    `volumes` are names of what the instance needs and where it lies: another host is none.
    """
    refused: dict[str, str] = {}
    feasible: list[Offer] = []
    for offer in sorted(offers, key=lambda o: o.name):
        elsewhere = [f"{name} is on {host}" for name, host in (volumes or {}).items() if host != offer.name]
        reason = refusal(offer, wanted) or (f"lacks a volume: {', '.join(elsewhere)}" if elsewhere else "")
        if reason:
            refused[offer.name] = reason
        else:
            feasible.append(offer)
    if not feasible:
        return Choice(None, refused)
    best = min(feasible, key=lambda o: (o.of_this_app, o.memory_promised - o.memory_bytes))
    return Choice(best.name, refused)


def no_host(choice: Choice) -> NoHost:
    """The refusal as an error with every host's reason."""
    reasons = "; ".join(f"{name} {reason}" for name, reason in choice.refused.items())
    return NoHost(f"No host can take it: {reasons or 'there is none'}.", "Add a host, or choose a smaller plan.")
