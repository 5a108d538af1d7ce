"""Unpacked layers below `<store>/l`, shared by all images whose layer has the same content.

A layer's folder is named by a short form of its diff id; `<store>/layers/<chain id>.json` says which folder a chain id means.
A folder counts only once such a record names it: what a crash leaves half-made is swept at start.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.kernel import syscalls
from runtime.kernel.process import boot_id, write_atomic
from runtime.storage import trees
from runtime.storage.driver import Draft, Layer, StorageFault

SHORT_LETTERS = 10  # 127 names and their colons stay far below the page that mount(2) takes


@dataclass(frozen=True, slots=True)
class _Record:
    chain_id: str
    diff_id: str
    folder: str
    size_bytes: int
    unsynced_boot: str  # boot id while the files may not be on disk yet, "" afterwards


class LayerDraft:
    """A folder below `<store>/tmp` (see `Draft`)."""

    def __init__(self, path: Path, trash: Path) -> None:
        self._path, self._trash = path, trash
        path.mkdir(mode=0o755)

    @property
    def path(self) -> Path:
        """The empty folder to unpack into."""
        return self._path

    def discard(self) -> None:
        """Remove what was unpacked; harmless after a commit."""
        trees.discard(self._path, self._trash)


class Layers:
    """The layers of one store. Thread-safe."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._lock = threading.RLock()
        for name in ("l", "layers", "tmp", "trash"):
            (store / name).mkdir(parents=True, exist_ok=True)
        self._records = {record.chain_id: record for record in self._read()}
        self._sweep()

    def get(self, chain_id: str) -> Layer | None:
        """A committed layer."""
        with self._lock:
            record = self._records.get(chain_id)
        return None if record is None else self._layer(record)

    def folder(self, chain_id: str) -> str:
        """Path of a layer relative to the store, for a mount; raises StorageFault when it is missing."""
        with self._lock:
            record = self._records.get(chain_id)
        if record is None:
            raise StorageFault(f"The layer {chain_id} is not in the store.", "Pull or load the image again.")
        return f"l/{record.folder}"

    def find_diff(self, diff_id: str) -> Layer | None:
        """Any layer with this content."""
        with self._lock:
            found = next((record for record in self._records.values() if record.diff_id == diff_id), None)
        return None if found is None else self._layer(found)

    def draft(self) -> LayerDraft:
        """An empty folder to unpack into."""
        return LayerDraft(self._store / "tmp" / os.urandom(8).hex(), self._store / "trash")

    def commit(self, draft: Draft | None, *, chain_id: str, diff_id: str, size_bytes: int) -> Layer:
        """See `Driver.commit_layer`."""
        with self._lock:
            record = self._records.get(chain_id)
            if record is None:
                record = self._commit(draft, chain_id, diff_id, size_bytes)
        if draft is not None:
            draft.discard()
        return self._layer(record)

    def prune(self, keep: Iterable[str]) -> list[str]:
        """Forget the layers whose chain id is not in `keep`; folders that no record names any more go to the trash."""
        kept = set(keep)
        with self._lock:
            gone = [record for chain_id, record in self._records.items() if chain_id not in kept]
            for record in gone:
                self._path(record.chain_id).unlink(missing_ok=True)
                del self._records[record.chain_id]
            used = {record.folder for record in self._records.values()}
            for folder in {record.folder for record in gone} - used:
                (self._store / "l" / folder).rename(self._store / "trash" / f"{folder}-{os.urandom(6).hex()}")
        return [record.chain_id for record in gone]

    def settle(self) -> None:
        """Bring all layers to disk (a `syncfs`, may take seconds); until then a crash of the host makes the store forget them."""
        with self._lock:
            waiting = [record for record in self._records.values() if record.unsynced_boot]
        if not waiting:
            return
        fd = os.open(self._store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.syncfs(fd)
        finally:
            os.close(fd)
        with self._lock:
            for record in waiting:
                if record.chain_id in self._records:
                    self._write(replace(record, unsynced_boot=""))

    def _commit(self, draft: Draft | None, chain_id: str, diff_id: str, size_bytes: int) -> _Record:
        twin = next((record for record in self._records.values() if record.diff_id == diff_id), None)
        if twin is not None:
            record = replace(twin, chain_id=chain_id)
        elif draft is None:
            raise StorageFault(f"The layer {diff_id} is not in the store.", "Pull or load the image again.")
        else:
            folder = self._free_name(diff_id)
            draft.path.rename(self._store / "l" / folder)
            record = _Record(chain_id, diff_id, folder, size_bytes, boot_id())
        self._write(record)
        return record

    def _free_name(self, diff_id: str) -> str:
        """Short and unlike any other's, also for digests made to look alike at their start."""
        letters = base64.b32encode(bytes.fromhex(diff_id.removeprefix("sha256:"))).decode().rstrip("=")
        used = {record.folder for record in self._records.values()}
        for count in range(SHORT_LETTERS, len(letters) + 1):
            if letters[:count] not in used:
                return letters[:count]
        raise StorageFault(f"The layer {diff_id} is there already.")

    def _layer(self, record: _Record) -> Layer:
        return Layer(
            chain_id=record.chain_id,
            diff_id=record.diff_id,
            size_bytes=record.size_bytes,
            path=self._store / "l" / record.folder,
        )

    def _path(self, chain_id: str) -> Path:
        return self._store / "layers" / f"{chain_id.removeprefix('sha256:')}.json"

    def _write(self, record: _Record) -> None:
        data = {name: getattr(record, name) for name in _Record.__slots__}
        write_atomic(self._path(record.chain_id), json.dumps(data).encode(), durable=not record.unsynced_boot)
        self._records[record.chain_id] = record

    def _read(self) -> Iterable[_Record]:
        for path in (self._store / "layers").glob("*.json"):
            try:
                record = _Record(**json.loads(path.read_text()))
            except (ValueError, TypeError):  # cut off by a crash of the host: it was not durable yet
                path.unlink()
                continue
            if record.unsynced_boot in {"", boot_id()} and (self._store / "l" / record.folder).is_dir():
                yield record
            else:
                path.unlink()

    def _sweep(self) -> None:
        used = {record.folder for record in self._records.values()} | {"empty"}
        left = [path for path in (self._store / "l").iterdir() if path.name not in used]
        left += (self._store / "tmp").iterdir()
        left += (self._store / "layers").glob(".*")
        for path in left:
            path.rename(self._store / "trash" / f"{path.name}-{os.urandom(6).hex()}")
        trees.empty(self._store / "trash")
