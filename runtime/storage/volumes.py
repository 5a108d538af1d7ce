"""Volumes on disk: named, kept when containers go, with or without a size. Nothing here knows containers.

<name>/volume.json      the record                    <name>/_data     its content, or where the image is mounted (mounts.py of oci)
<name>/disk.ext4        with a size: a sparse file with a journal, as large as the largest size
.drafts/  .trash/       half-made, half-gone: emptied at the next start
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runtime.kernel import syscalls
from runtime.kernel.process import write_atomic
from runtime.storage import ext4, trees
from runtime.storage.driver import StorageFault
from runtime.storage.volumeplan import DATA, IMAGE, INSIDE, VolumePlan

RECORD = "volume.json"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")
SMALLEST_BYTES = 1 << 20
JOURNAL_MB = 16


class NoSuchVolume(StorageFault):
    """No volume has that name."""


class VolumeInUse(StorageFault):
    """A volume that something needs cannot go or change so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume. `size_bytes` 0 is without a limit; `free_blocks` are those of its file system when it was empty.

    `seeded`: a container has started with it that could put its image's content in.
    """

    name: str
    created_ns: int
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    size_bytes: int = 0
    free_blocks: int = 0
    seeded: bool = False


class Volumes:
    """All volumes below one folder. Synchronous; called from threads."""

    def __init__(self, root: Path, *, max_size_bytes: int) -> None:
        self.root = root
        self._max = max_size_bytes // ext4.BLOCK_BYTES * ext4.BLOCK_BYTES
        self._lock = threading.Lock()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (".drafts", ".trash"):
            (root / name).mkdir(exist_ok=True, mode=0o700)
        trees.discard(root / ".drafts", root / ".trash")
        (root / ".drafts").mkdir(mode=0o700)
        self._known = {v.name: v for path in root.glob(f"*/{RECORD}") if (v := _read(path))}

    def list(self) -> list[Volume]:
        """All, by name."""
        with self._lock:
            return sorted(self._known.values(), key=lambda volume: volume.name)

    def get(self, name: str) -> Volume:
        """One; raises NoSuchVolume."""
        try:
            return self._known[name]
        except KeyError:
            raise NoSuchVolume(f"get {name[:200]}: no such volume") from None

    def folder(self, name: str) -> Path:
        """Where a volume lies."""
        return self.root / name

    def create(
        self, name: str, *, size_bytes: int = 0, labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None, anonymous: bool = False,
    ) -> tuple[Volume, bool]:  # fmt: skip
        """Make a volume, or find the one of that name; the second value is whether it was made.

        Raises StorageFault for a name that is none, a size that cannot be, or an existing volume of another size.
        """
        if not NAME.fullmatch(name):
            raise StorageFault(
                f"{name[:200]!r} includes invalid characters for a local volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] "
                "are allowed, 2 to 128 of them."
            )
        with self._lock:
            known = self._known.get(name)
            if known:
                if size_bytes and size_bytes != known.size_bytes:
                    raise StorageFault(
                        f"A volume {name} of {known.size_bytes} bytes is there already.",
                        "Change its size (POST /moorage/volumes/{name}), or choose another name.",
                    )
                return known, False
            volume = Volume(
                name=name, created_ns=time.time_ns(), labels=dict(labels or {}), options=dict(options or {}),
                anonymous=anonymous, size_bytes=size_bytes,
            )  # fmt: skip
            volume = self._make(volume)
            self._known[name] = volume
            return volume, True

    def _make(self, volume: Volume) -> Volume:
        """Elsewhere first, then moved in: it is whole or not there."""
        draft = self.draft(volume.name)
        try:
            made = self._fill(draft, volume)
            write_atomic(draft / RECORD, _encoded(made), durable=True)
            draft.rename(self.folder(volume.name))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return made

    def draft(self, name: str) -> Path:
        """An empty folder for something of a volume that is not whole yet; one that stays is gone after the next start."""
        draft = self.root / ".drafts" / f"{name[:100]}-{os.urandom(6).hex()}"
        draft.mkdir(mode=0o700)
        return draft

    def _fill(self, folder: Path, volume: Volume) -> Volume:
        """An empty content in `folder`: `_data`, and the file system's image when it has a size."""
        (folder / DATA).mkdir(mode=0o755)
        if not volume.size_bytes:
            return volume
        self._check_size(volume.size_bytes)
        (folder / "content" / INSIDE).mkdir(parents=True, mode=0o755)
        ext4.make(folder / IMAGE, self._max, folder / "content", journal_mb=JOURNAL_MB)
        shutil.rmtree(folder / "content")
        made = replace(volume, free_blocks=ext4.read_superblock(folder / IMAGE).free_blocks)
        ext4.reserved_clusters(made.free_blocks, volume.size_bytes)
        return made

    def _check_size(self, size_bytes: int) -> None:
        if not SMALLEST_BYTES <= size_bytes <= self._max:
            raise StorageFault(
                f"A volume of {size_bytes} bytes cannot be; sizes here are {SMALLEST_BYTES} to {self._max} bytes.",
                "Ask for another size, or start the engine with a greater --max-disk.",
            )

    def set_size(self, name: str, size_bytes: int) -> bool:
        """Another size, up or down. True: live; False: nobody has it mounted, it holds from the next mount on.

        Raises StorageFault for a volume that was made without a size.
        """
        with self._lock:
            volume = self.get(name)
            if not volume.size_bytes:
                raise StorageFault(f"The volume {name} was made without a size.", "Make a new one with a size.")
            self._check_size(size_bytes)
            clusters = ext4.reserved_clusters(volume.free_blocks, size_bytes)
            self._save(replace(volume, size_bytes=size_bytes))
        loop = ext4.find_loop(self.folder(name) / IMAGE)
        return loop is not None and ext4.set_reserved(loop, clusters)

    def set_seeded(self, name: str) -> None:
        """The first content has come."""
        with self._lock:
            volume = self.get(name)
            if not volume.seeded:
                self._save(replace(volume, seeded=True))

    def fresh(self, name: str) -> Path:
        """An empty content like the volume's in a draft."""
        draft = self.draft(name)
        try:
            self._fill(draft, self.get(name))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return draft

    def swap(self, name: str, draft: Path) -> None:
        """Put a draft's content in the place of the volume's, in one step; the old goes. Nobody may have it mounted."""
        with self._lock:
            self._swap(replace(self.get(name), seeded=True), draft)

    def _swap(self, volume: Volume, draft: Path) -> None:
        part = IMAGE if volume.size_bytes else DATA
        folder = self.folder(volume.name)
        if volume.size_bytes:
            (draft / part).rename(folder / part)  # over the old
        else:
            syscalls.renameat2(draft / part, folder / part, syscalls.RENAME_EXCHANGE)
        self._save(volume)
        trees.discard(draft, self.root / ".trash")

    def remove(self, name: str) -> None:
        """Take a volume away with all it holds; raises NoSuchVolume."""
        with self._lock:
            self.get(name)
            trees.discard(self.folder(name), self.root / ".trash")
            del self._known[name]

    def used_bytes(self, name: str) -> int:
        """What it takes on the host's disk."""
        folder = self.folder(name)
        if self.get(name).size_bytes:
            return (folder / IMAGE).stat().st_blocks * 512
        return trees.disk_bytes(folder / DATA)

    def plan(self, name: str, destination: str, *, subpath: str = "", make_subpath: bool = False) -> VolumePlan:
        """How a container mounts it; an image that a crash of the host left unclean is repaired first."""
        volume = self.get(name)
        clusters = 0
        if volume.size_bytes:
            image = self.folder(name) / IMAGE
            clusters = ext4.reserved_clusters(volume.free_blocks, volume.size_bytes)
            if ext4.find_loop(image) is None:
                ext4.check(image)
        return VolumePlan(
            destination=destination, folder=str(self.folder(name)), sized=bool(volume.size_bytes),
            reserved_clusters=clusters, subpath=subpath, make_subpath=make_subpath,
        )  # fmt: skip

    def _save(self, volume: Volume) -> None:
        write_atomic(self.folder(volume.name) / RECORD, _encoded(volume), durable=True)
        self._known[volume.name] = volume


def _encoded(volume: Volume) -> bytes:
    return json.dumps(dataclasses.asdict(volume)).encode()


def _read(path: Path) -> Volume | None:
    """A record; None for what is no volume of ours."""
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        return Volume(**data)
    except (OSError, ValueError, TypeError):
        return None
