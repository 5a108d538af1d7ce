"""How a volume comes into one container: pure data that the engine writes and the launcher's helper carries out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from runtime.dataclass import dataclass
from runtime.storage.driver import StorageFault

VOLUMES = "volumes.json"  # of a bundle
DATA, IMAGE = "_data", "disk.ext4"  # of a volume's folder
INSIDE = (
    "data"  # the folder of the image's file system that is the volume: beside it lies lost+found, which is nobody's
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePlan:
    """One mount of a volume, found by the `destination` of its mount in config.json.

    `folder` is the volume's, absolute. When `sized` its file system is in `disk.ext4` there, one loop device for all who mount it,
    held to its size by `reserved_clusters`; else it is the folder `_data`. `subpath` is looked up inside the volume, and
    made when `make_subpath`.
    """

    destination: str
    folder: str
    sized: bool = False
    reserved_clusters: int = 0
    subpath: str = ""
    make_subpath: bool = False


def write_plans(bundle: Path, plans: Iterable[VolumePlan]) -> None:
    """Write a bundle's `volumes.json`."""
    (bundle / VOLUMES).write_text(json.dumps([dataclasses.asdict(plan) for plan in plans]))


def read_plans(bundle: Path) -> dict[str, VolumePlan]:
    """What `write_plans` wrote, by destination; raises StorageFault when it is not there or not readable."""
    try:
        plans = [VolumePlan(**values) for values in json.loads((bundle / VOLUMES).read_bytes())]
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise StorageFault(
            f"The plan of the volumes is not readable: {error}.", "Start the container again."
        ) from error
    return {plan.destination: plan for plan in plans}
