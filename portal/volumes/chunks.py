"""Where backups lie: chunks by the sha256 of their plain content, each once for a team, compressed; and lists of chunks.

<root>/<team>/c/<first two hex digits>/<hex>   a chunk, one zstd frame       <root>/<team>/m/<backup>   its chunks' digests, 32 bytes each
Joined, the frames of a backup are a .tar.zst.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from backports import zstd

from portal.config import config
from portal.errors import Invalid, PortalError

CHUNK_BYTES = 1 << 20
YOUNG_S = 24 * 3600.0  # a chunk that no list names yet may be of a backup under way
DIGEST_BYTES = 32


class Damaged(PortalError):
    """A part of a backup is missing or is not what it was."""

    code = "backup_damaged"
    status = 500


class ChunkStore:
    """The backups of one team."""

    def __init__(self, team_id: int, root: Path | None = None) -> None:
        self._root = (root or config().portal_dir / "backups") / str(team_id)
        for name in ("c", "m"):
            (self._root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _chunk(self, digest: bytes) -> Path:
        text = digest.hex()
        return self._root / "c" / text[:2] / text

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those that are not here; the others become young again."""
        found = []
        for digest in digests:
            try:
                os.utime(self._chunk(digest))
            except FileNotFoundError:
                found.append(digest)
        return found

    def put(self, digest: bytes, packed: bytes) -> int:
        """Keep a chunk; bytes it takes, 0 when it was here. Raises Invalid when it is not what it says."""
        plain = _unpacked(packed)
        if plain is None or hashlib.sha256(plain).digest() != digest:
            raise Invalid("The chunk is not what its digest says.", "Send it again.")
        target = self._chunk(digest)
        if target.exists():
            return 0
        target.parent.mkdir(mode=0o700, exist_ok=True)
        _write(target, packed)
        return len(packed)

    def keep_list(self, backup_id: int, digests: bytes) -> None:
        """A backup's chunks in order. Raises Damaged when one of them is not here."""
        if self.missing(dict.fromkeys(_split(digests))):
            raise Damaged("Not all chunks of the backup have arrived.", "The host sends it again.")
        _write(self._root / "m" / str(backup_id), digests)

    def packed(self, backup_id: int) -> Iterator[bytes]:
        """The zstd frames of a backup, in order; each is looked at. Raises Damaged."""
        for digest, packed, _ in self._parts(backup_id):
            del digest
            yield packed

    def plain(self, backup_id: int) -> Iterator[bytes]:
        """The tar in pieces. Raises Damaged."""
        for _, _, plain in self._parts(backup_id):
            yield plain

    def _parts(self, backup_id: int) -> Iterator[tuple[bytes, bytes, bytes]]:
        try:
            digests = (self._root / "m" / str(backup_id)).read_bytes()
        except FileNotFoundError:
            raise Damaged("The backup's list of chunks is gone.", "Restore another backup.") from None
        for digest in _split(digests):
            try:
                packed = self._chunk(digest).read_bytes()
            except FileNotFoundError:
                raise Damaged(f"Chunk {digest.hex()[:12]} of the backup is gone.", "Restore another backup.") from None
            plain = _unpacked(packed)
            if plain is None or hashlib.sha256(plain).digest() != digest:
                raise Damaged(f"Chunk {digest.hex()[:12]} of the backup is damaged.", "Restore another backup.")
            yield digest, packed, plain

    def forget(self, backup_id: int) -> None:
        """A backup goes; its chunks with the next `collect`."""
        (self._root / "m" / str(backup_id)).unlink(missing_ok=True)

    def collect(self, *, young_s: float = YOUNG_S) -> int:
        """Remove chunks that no backup has; bytes that are free again."""
        kept: set[bytes] = set()
        for path in (self._root / "m").iterdir():
            kept.update(_split(path.read_bytes()))
        freed, oldest = 0, time.time() - young_s
        for path in (self._root / "c").glob("*/*"):
            known = len(path.name) == 2 * DIGEST_BYTES and bytes.fromhex(path.name) in kept
            found = path.stat()
            if not known and found.st_mtime <= oldest:
                path.unlink(missing_ok=True)
                freed += found.st_size
        return freed

    def stored_bytes(self) -> int:
        """What all of it takes."""
        return sum(path.stat().st_size for path in (self._root / "c").glob("*/*"))


def _split(digests: bytes) -> Iterator[bytes]:
    if len(digests) % DIGEST_BYTES:
        raise Invalid("The list of chunks is cut off.")
    return (digests[n : n + DIGEST_BYTES] for n in range(0, len(digests), DIGEST_BYTES))


def _unpacked(packed: bytes) -> bytes | None:
    """A frame's plain bytes; None for one that is damaged or holds more than a chunk."""
    unpacker = zstd.ZstdDecompressor()
    try:
        plain: bytes = unpacker.decompress(packed, CHUNK_BYTES + 1)
    except zstd.ZstdError:
        return None
    return plain if unpacker.eof and len(plain) <= CHUNK_BYTES and not unpacker.unused_data else None


def _write(target: Path, data: bytes) -> None:
    """Whole or not at all, also after a power cut."""
    draft = target.with_name(f".{secrets.token_hex(8)}")
    with draft.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(target)
