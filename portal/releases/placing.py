"""Choosing hosts for new instances: gathers the offers, `fleet.placement` decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from django.db.models import Count, Q, Sum
from django.utils import timezone

from portal.fleet.models import Host
from portal.fleet.placement import Offer, Wanted, choose_host, no_host
from portal.hosting.models import App
from portal.releases.models import Instance
from portal.volumes.models import Volume

FRESH_S = 60


def is_fresh(host: Host) -> bool:
    """Whether the host has reported within the last minute."""
    return host.seen_at is not None and (timezone.now() - host.seen_at).total_seconds() < FRESH_S


def _offers(app: App) -> list[Offer]:
    rows = Instance.objects.exclude(wanted="removed").values("host__name").annotate(
        cpu=Sum("app__plan__cpu_millicores"),
        memory=Sum("app__plan__memory_bytes"),
        disk=Sum("app__plan__disk_bytes"),
        mine=Count("pk", filter=Q(app=app)),
    )  # fmt: skip
    promised = {row["host__name"]: row for row in rows}
    offers = []
    for host in Host.objects.all():
        facts, used = host.facts, promised.get(host.name, {})
        offers.append(
            Offer(
                name=host.name,
                ready=host.state == "ready",
                fresh=is_fresh(host),
                cpu_millicores=facts.get("cpu_millicores", 0),
                memory_bytes=facts.get("memory_bytes", 0),
                disk_bytes=facts.get("disk_bytes", 0),
                disk_free_bytes=facts.get("disk_free_bytes", 0),
                cpu_promised=used.get("cpu") or 0,
                memory_promised=used.get("memory") or 0,
                disk_promised=used.get("disk") or 0,
                of_this_app=used.get("mine") or 0,
            )
        )
    return offers


def _with_one_more(offer: Offer, wanted: Wanted) -> Offer:
    return dataclasses.replace(
        offer,
        cpu_promised=offer.cpu_promised + wanted.cpu_millicores,
        memory_promised=offer.memory_promised + wanted.memory_bytes,
        disk_promised=offer.disk_promised + wanted.disk_bytes,
        of_this_app=offer.of_this_app + 1,
    )


def place(app: App, slots: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Host]:
    """A host for each (process, ordinal); raises fleet.placement.NoHost with every host's reason."""
    plan = app.plan
    wanted = Wanted(cpu_millicores=plan.cpu_millicores, memory_bytes=plan.memory_bytes, disk_bytes=plan.disk_bytes)
    offers = {offer.name: offer for offer in _offers(app)}
    hosts = {host.name: host for host in Host.objects.all()}
    placed: dict[tuple[str, int], Host] = {}
    volumes = list(Volume.objects.filter(mounts__app=app).select_related("host").distinct())
    for slot in slots:
        choice = choose_host(offers.values(), wanted, {v.name: v.host.name for v in volumes if v.host})
        if choice.host is None:
            raise no_host(choice)
        placed[slot] = hosts[choice.host]
        for volume in volumes:  # from now on it lies there
            if volume.host is None:
                volume.host = hosts[choice.host]
                volume.save(update_fields=["host"])
        offers[choice.host] = _with_one_more(offers[choice.host], wanted)
    return placed
