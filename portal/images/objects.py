"""The blob store in an S3-compatible object store, by django-storages.

An object store has neither rename nor lock. So the rows of `BlobObject` say what is here and how young it is: to touch is
one UPDATE, to remove is one DELETE of a row that is old, and the object goes after its row. Each writing has an object of
its own, `sha256/<first two hex digits>/<hex>-<8 digits>`: one that is being removed is never one that was just written.
A blob is spooled to `incoming/` on the portal's disk while it is hashed, because its name is its digest.

This module costs 40 MB (boto3): `store` imports it only where MOORAGE_BLOBS_URL asks for it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files import File
from django.db import IntegrityError, transaction
from django.utils import timezone
from storages.backends.s3 import S3Storage

from portal.config import ConfigError
from portal.images.blobs import INCOMING_KEPT_S, BlobMissing, BlobWriter, StoredBlob, checked, sweep
from portal.images.faults import StoreUnavailable
from portal.images.models import BlobObject

CONNECT_S, READ_S, TRIES = 5, 60, 4
_FOLDER = "sha256"


def storage_of(url: str, credentials: Path) -> S3Storage:
    """`s3://<bucket>/<prefix>?endpoint=<url>&region=<name>` with the key id and the secret as the two lines of a 0600 file.

    Without the file boto3 looks where it always does (AWS_ACCESS_KEY_ID, ~/.aws, the machine's role). Raises ConfigError.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.hostname or parts.username or parts.password:
        raise ConfigError(
            "MOORAGE_BLOBS_URL must be s3://<bucket>/<prefix>?endpoint=<url>&region=<name>, without a password: "
            f"that goes into {credentials} (two lines, mode 0600: key id, secret)."
        )
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if unknown := sorted(options.keys() - {"endpoint", "region"}):
        raise ConfigError(f"MOORAGE_BLOBS_URL has {', '.join(unknown)}: it takes endpoint and region.")
    key, secret = _credentials(credentials)
    return S3Storage(
        bucket_name=parts.hostname,
        location=parts.path.strip("/"),
        endpoint_url=options.get("endpoint"),
        region_name=options.get("region", "us-east-1"),
        access_key=key,
        secret_key=secret,
        default_acl=None,
        file_overwrite=True,
        client_config=Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"total_max_attempts": TRIES, "mode": "standard"},
            request_checksum_calculation="when_required",  # not every store knows the newer ones
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if "endpoint" in options else "auto"},
            signature_version="s3v4",
        ),
    )


def _credentials(path: Path) -> tuple[str | None, str | None]:
    if not path.exists():
        return None, None
    lines = path.read_text().split()
    if len(lines) != 2:
        raise ConfigError(f"{path} must have two lines: the key id and the secret.")
    return lines[0], lines[1]


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """What the object store refuses, or that it does not answer, as a sentence."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StoreUnavailable(
            f"The object store that holds the images cannot be used now ({type(error).__name__}).",
            "Nothing was lost. Try again in a minute, or ask the operator: the web process's log says more.",
        ) from error


class ObjectStore:
    """Blobs as objects (`blobs.Blobs`). `incoming` is a folder on the portal's disk."""

    def __init__(self, storage: S3Storage, incoming: Path) -> None:
        self._storage = storage
        self.incoming = incoming
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)

    def has(self, digest: str) -> bool:
        """See `Blobs`."""
        return BlobObject.objects.filter(digest=checked(digest)).exists()

    def touch(self, digest: str) -> bool:
        """See `Blobs`."""
        return BlobObject.objects.filter(digest=checked(digest)).update(touched_at=timezone.now()) == 1

    def hold(self, digest: str) -> BlobWriter | None:
        """See `Blobs`: an object cannot be held; it stays young while it is touched."""
        self._row(digest)
        return None

    def size(self, digest: str) -> int:
        """See `Blobs`."""
        return self._row(digest).size_bytes

    def _row(self, digest: str) -> BlobObject:
        row = BlobObject.objects.filter(digest=checked(digest)).first()
        if row is None:
            raise BlobMissing(f"no blob {digest}")
        return row

    def open(self, digest: str) -> BinaryIO:
        """See `Blobs`; bytes are fetched as they are read."""
        row = self._row(digest)
        return cast(BinaryIO, _Object(self._storage, row.key, row.size_bytes))

    def read(self, digest: str) -> bytes:
        """See `Blobs`."""
        with self.open(digest) as file:
            return file.read()

    def writer(self, *, hashed_elsewhere: bool = False, whole: Path | None = None) -> BlobWriter:
        """See `Blobs`."""
        return BlobWriter(self, hashed_elsewhere=hashed_elsewhere, whole=whole)

    def add(self, data: bytes) -> StoredBlob:
        """See `Blobs`."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def secure(self, path: Path, digest: str) -> str:
        """Upload the file; the key of its object, "" when the blob is here already."""
        if self.touch(digest):
            return ""
        text = digest.removeprefix("sha256:")
        key = f"{_FOLDER}/{text[:2]}/{text}-{secrets.token_hex(4)}"
        with _reached(), path.open("rb") as file:
            self._storage.save(key, File(file))
        return key

    def keep(self, path: Path, digest: str, secured: str, size_bytes: int) -> None:
        """Write the row; when another writer was first, his object stays and this one goes."""
        key = secured or self.secure(path, digest)  # it was here when this blob was sealed, and is gone meanwhile
        try:
            with transaction.atomic():
                BlobObject.objects.create(digest=digest, key=key, size_bytes=size_bytes, touched_at=timezone.now())
        except IntegrityError:
            self.touch(digest)
            self.discard(key)

    def discard(self, secured: str) -> None:
        """Delete an object that no row names. One that stays because the store is away is swept after a day."""
        with contextlib.suppress(StoreUnavailable), _reached():
            self._storage.delete(secured)

    def remove(self, digest: str, *, unless_younger_than_s: float = 0) -> bool:
        """See `Blobs`: who deletes the row deletes the object."""
        old = timezone.now() - dt.timedelta(seconds=unless_younger_than_s)
        row = BlobObject.objects.filter(digest=checked(digest), touched_at__lte=old).first()
        if row is None or not BlobObject.objects.filter(pk=row.pk, touched_at__lte=old).delete()[0]:
            return False
        self.discard(row.key)
        return True

    def digests(self) -> Iterator[str]:
        """See `Blobs`."""
        yield from BlobObject.objects.values_list("digest", flat=True)

    def sweep_incoming(self, *, older_than_s: float = INCOMING_KEPT_S) -> int:
        """Spooled files and objects without a row that are older."""
        gone = sweep(self.incoming, older_than_s)
        old = timezone.now() - dt.timedelta(seconds=older_than_s)
        named = set(BlobObject.objects.values_list("key", flat=True))
        location = f"{self._storage.location}/" if self._storage.location else ""
        with _reached():
            for found in self._storage.bucket.objects.filter(Prefix=f"{location}{_FOLDER}/"):
                key = found.key.removeprefix(location)
                if key not in named and found.last_modified < old:
                    self._storage.delete(key)
                    gone += 1
        return gone


class _Object(io.RawIOBase):
    """An object for reading: one request from where it is read, another after a seek."""

    def __init__(self, storage: S3Storage, key: str, size: int) -> None:
        location = f"{storage.location}/" if storage.location else ""
        self._object: Any = storage.bucket.Object(f"{location}{key}")
        self._size, self._at = size, 0
        self._body: Any = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The next byte's place."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on from another place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset != self._at:
            self._end()
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """The next bytes; 0 at the end. Raises BlobMissing when the object is gone, StoreUnavailable."""
        if self._at >= self._size:
            return 0
        with _reached():
            if self._body is None:
                self._body = self._fetch()
            data: bytes = self._body.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _fetch(self) -> Any:
        try:
            return self._object.get(Range=f"bytes={self._at}-")["Body"]
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                raise BlobMissing(f"the object {self._object.key} is gone") from error
            raise

    def _end(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def close(self) -> None:
        """End the request."""
        self._end()
        super().close()
