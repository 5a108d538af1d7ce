"""A host's volumes made what they should be: there, of their size, or gone. An instance finds its volumes made."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from typing import Protocol

from worker.errors import EngineFault
from worker.protocol import DesiredVolume, ObservedVolume

log = logging.getLogger(__name__)


class VolumeEngine(Protocol):
    """What is asked of the engine."""

    def volumes(self) -> list[ObservedVolume]:
        """Those that the portal asked for."""

    def make_volume(self, volume: DesiredVolume) -> None:
        """Make one."""

    def resize_volume(self, volume: DesiredVolume) -> None:
        """Give one another size."""

    def remove_volume(self, name: str) -> None:
        """Remove one."""


class HostVolumes:
    """`observed` is what the next report says; None while nothing was looked at."""

    def __init__(self, engine: VolumeEngine) -> None:
        self._engine = engine
        self._settled: tuple[DesiredVolume, ...] | None = None
        self.observed: tuple[ObservedVolume, ...] | None = None

    def look_again(self) -> None:
        """Ask the engine at the next `settle`, also when nothing else is wanted than before."""
        self._settled = None

    def settle(self, wanted: tuple[DesiredVolume, ...]) -> bool:
        """Carry out what differs; True when there is something to report. A volume the portal does not name is left alone."""
        if wanted == self._settled:
            return False
        if not wanted:
            self._settled, self.observed = (), ()
            return False
        try:
            there = {volume.name: volume for volume in self._engine.volumes()}
        except EngineFault as error:
            log.warning("%s", error)
            return False
        trouble = {volume.name: self._settle_one(volume, there.get(volume.name)) for volume in wanted}
        found = tuple(self._after(wanted, there, trouble))
        news, self.observed = found != self.observed, found
        self._settled = wanted if not any(trouble.values()) else None
        return news

    def _settle_one(self, wanted: DesiredVolume, found: ObservedVolume | None) -> str:
        """What could not be done, in a sentence."""
        try:
            if wanted.gone:
                if found is not None:
                    self._engine.remove_volume(wanted.name)
            elif found is None:
                self._engine.make_volume(wanted)
            elif found.size_bytes != wanted.size_bytes:
                self._engine.resize_volume(wanted)
        except EngineFault as error:
            log.warning("%s", error)
            return str(error)
        return ""

    @staticmethod
    def _after(
        wanted: Iterable[DesiredVolume], there: dict[str, ObservedVolume], trouble: dict[str, str]
    ) -> Iterable[ObservedVolume]:
        for volume in wanted:
            said, found = trouble[volume.name], there.get(volume.name)
            if volume.gone and not said:
                yield ObservedVolume(name=volume.name, gone=True)
            elif said:
                yield dataclasses.replace(found or ObservedVolume(name=volume.name), trouble=said)
            else:
                used = found.used_bytes if found else 0
                yield ObservedVolume(name=volume.name, size_bytes=volume.size_bytes, used_bytes=used)
