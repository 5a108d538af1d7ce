"""The images of this host: what was loaded or pulled, under which names, and the layers they need.

Synchronous, called from threads; locks are inside. See `runtime.images.records` for what it returns.
"""

from __future__ import annotations

import builtins
import errno
import json
import platform
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from runtime.images.catalog import Catalog, Stored, tag_of
from runtime.images.extract_layer import LayerLimits
from runtime.images.faults import ImageInUse, NoSuchImage
from runtime.images.format import (
    MACHINES,
    ArchivedImage,
    ArchiveReader,
    ImageConfig,
    ImageFault,
    Manifest,
    images,
    is_digest,
    parse_config,
    parse_manifest,
    parse_reference,
)
from runtime.images.intake import Batch
from runtime.images.nursery import Nursery
from runtime.images.outgoing import LayerTars, Outgoing, archive, plain_manifest
from runtime.images.pull import Puller
from runtime.images.push import Push
from runtime.images.recipes import Recipes
from runtime.images.records import ImageRecord, LoadResult, PullProgress, RegistryAuth, Removed
from runtime.images.registry import Registry, RegistryPolicy
from runtime.images.registry_push import WritableRegistry
from runtime.storage.driver import Driver

SETTLE_AFTER_S = 10.0
_READ_BYTES = 1 << 20
_HEX = re.compile(r"[0-9a-f]{1,64}")


def host_architecture() -> str:
    """This machine's name in images (GOARCH)."""
    return MACHINES.get(platform.machine(), platform.machine())


class ImageStore:
    """Images below `root` (`<state>/engine/images`), their layers in `driver`."""

    def __init__(
        self,
        root: Path,
        driver: Driver,
        *,
        registries: RegistryPolicy | None = None,
        limits: LayerLimits | None = None,
        architecture: str = "",
    ) -> None:
        self._driver = driver
        self._limits = limits or LayerLimits()
        self._architecture = architecture or host_architecture()
        self._lock = threading.RLock()
        self._held: Counter[str] = Counter()  # chain ids that a load or pull is about to need
        self._timer: threading.Timer | None = None
        root.mkdir(parents=True, exist_ok=True)
        self._recipes = Recipes(root / "recipes")
        self._policy = registries or RegistryPolicy()
        self._puller = Puller(driver, self._recipes, self._limits, self._architecture, self._policy)
        self._catalog = Catalog(root, self._complete)
        self._prune()
        driver.empty_trash()
        self._settle_soon()  # what an engine that was killed had not brought to disk

    def load(self, stream: BinaryIO) -> list[LoadResult]:
        """Read a `docker save` archive or an OCI layout tar (plain or compressed); raises ImageFault with nothing left behind."""
        with _full_disk_said(), self._batch() as batch:
            reader = ArchiveReader(batch)
            while chunk := stream.read(_READ_BYTES):
                reader.feed(chunk)
            reader.finish()
            found = images(reader, self._architecture)
            for image in found:
                self._check_architecture(image.config)
                for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
                    batch.verify(layer.digest, diff_id)
            return [self._add_archived(image, batch) for image in found]

    def _batch(self) -> Batch:
        return Batch(self._driver, self._recipes, self._limits, self._known_diff)

    def pull(
        self, reference: str, auth: RegistryAuth | None = None, progress: Callable[[PullProgress], None] | None = None
    ) -> ImageRecord:
        """Fetch an image by the distribution protocol; layers that are here are not fetched. Raises RegistryFault, ImageFault."""
        wanted = parse_reference(reference)
        report = progress or _silent
        with self._lock:
            here = self._catalog.tagged(wanted.familiar) if wanted.digest else None
            if here is not None:  # a digest never means another image: no need to ask
                report(PullProgress(what=wanted.familiar, status="Image is up to date"))
                return self._catalog.record(here)
        fetched = self._puller.fetch_documents(wanted, auth, report)
        self._check_architecture(fetched.config)
        with _full_disk_said(), self._hold(fetched.config.chain_ids):
            size = self._puller.fetch_layers(fetched, report)
            digests = [f"{wanted.familiar_name}@{fetched.top_digest}"]
            tags = [] if wanted.digest else [wanted.familiar]
            record = self._add(fetched.manifest, fetched.config_data, size, tags=tags, digests=digests)
        report(PullProgress(what=wanted.familiar, status="Pull complete"))
        return record

    def save(self, references: Sequence[str]) -> Iterator[bytes]:
        """An archive of these images, as `docker save` writes it; a repository without a tag means all its tags.

        Raises NoSuchImage, or ImageFault for a layer that cannot be made again, before the first byte.
        """
        with self._lock:
            chosen = self._chosen(references)
            chains = [chain for image_id in chosen for chain in self._catalog.config(image_id).chain_ids]
            documents = {image_id: self._catalog.documents(image_id) for image_id in chosen}
            self._held.update(chains)
        try:
            with Nursery() as nursery:
                tars = LayerTars(self._driver, self._recipes, nursery)
                yield from archive([self._outgoing(*documents[name], chosen[name], tars) for name in chosen], tars)
        finally:
            self._let_go(chains)

    def _chosen(self, references: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Tags by image id."""
        found: dict[str, tuple[str, ...]] = {}
        for reference in references:
            names = self._catalog.tags_of(parse_reference(reference).familiar_name) if ":" not in reference else {}
            if not names:
                tag = self._named(reference)
                names = {tag if tag is not None and "@" not in tag else "": self._find(reference)}
            for tag, image_id in names.items():
                found[image_id] = tuple(dict.fromkeys((*found.get(image_id, ()), *((tag,) if tag else ()))))
        return found

    @staticmethod
    def _outgoing(config_data: bytes, manifest_data: bytes, tags: tuple[str, ...], tars: LayerTars) -> Outgoing:
        config = parse_config(config_data)
        manifest = plain_manifest(manifest_data, config, config_data, tars.size)
        return Outgoing(config=config, config_data=config_data, manifest=manifest, tags=tags)

    def add_layer(
        self, base: str, layer: Iterable[bytes], make_config: Callable[[dict[str, Any], str], bytes], name: str = ""
    ) -> ImageRecord:
        """A new image: `base` (an image, "" for none) with one more layer, given as a tar, plain or compressed.

        `make_config` is given the base's config document and the layer's diff id. Raises NoSuchImage, ImageFault.
        """
        tags = (parse_reference(name).familiar,) if name else ()
        with self._lock:
            base_id = self._find(base) if base else ""
            document = json.loads(self._catalog.documents(base_id)[0]) if base else {}
            chains = self._catalog.config(base_id).chain_ids if base else ()
        with _full_disk_said(), self._hold(chains), self._batch() as batch:
            intake = batch.begin()
            for chunk in layer:
                intake.write(memoryview(chunk))
            config_data = make_config(document, batch.diff_id(intake))
            config = parse_config(config_data)
            with self._hold(config.chain_ids):
                size = batch.commit(config.diff_ids, config.chain_ids, config.diff_ids)
                manifest = plain_manifest(b"", config, config_data, self._recipes.tar_bytes)
                return self._add(manifest, config_data, size, tags=tags)

    def push(
        self, reference: str, auth: RegistryAuth | None = None, progress: Callable[[PullProgress], None] | None = None
    ) -> Manifest:
        """Send an image of that name to the registry of its name; what is there is not sent. Raises NoSuchImage, RegistryFault."""
        wanted = parse_reference(reference)
        self._policy.check(wanted.domain)
        with self._lock:
            image_id = self._find(wanted.familiar)
            config_data, manifest_data = self._catalog.documents(image_id)
            config, manifest = self._catalog.config(image_id), parse_manifest(manifest_data)
        assert isinstance(manifest, Manifest)
        with self._hold(config.chain_ids), Nursery() as nursery:
            pushed = Push(
                registry=WritableRegistry(wanted.domain, wanted.path, auth, insecure=self._policy.insecure),
                tag=wanted.tag or "latest",
                config=config,
                config_data=config_data,
                manifest=manifest,
                tars=LayerTars(self._driver, self._recipes, nursery),
                report=progress or _silent,
            ).run()
        with self._lock:
            if self._catalog.stored(image_id) is not None:
                self._catalog.name(image_id, digests=[f"{wanted.familiar_name}@{pushed.digest}"])
        return pushed

    def sign_in(self, domain: str, auth: RegistryAuth) -> None:
        """Whether a registry takes these credentials; raises RegistryFault when it does not, or may not be asked."""
        self._policy.check(domain)
        Registry(domain, "", auth, insecure=self._policy.insecure).sign_in()

    def resolve(self, reference: str) -> ImageRecord:
        """Find an image by name[:tag], name@digest, id or a unique start of the id; raises NoSuchImage."""
        with self._lock:
            return self._catalog.record(self._find(reference))

    def list(self) -> builtins.list[ImageRecord]:
        """All images, newest first."""
        with self._lock:
            records = [self._catalog.record(image_id) for image_id in self._catalog.ids()]
        return sorted(records, key=lambda record: (record.created, record.id), reverse=True)

    def tag(self, reference: str, name: str) -> None:
        """Give an image another name; a name that was another image's moves."""
        target = parse_reference(name)
        if target.digest:
            raise ImageFault("A name with a digest cannot be given as a tag.")
        with self._lock:
            self._catalog.name(self._find(reference), tags=[target.familiar])

    def remove(self, reference: str, *, in_use: Collection[str] = (), force: bool = False) -> Removed:
        """Untag, and delete with the last name. `in_use` are ids of images that containers need: they stay (ImageInUse)."""
        with self._lock:
            image_id = self._find(reference)
            record = self._catalog.record(image_id)
            names = self._names_to_remove(record, reference, force=force)
            if set(names) < {*record.repo_tags, *record.repo_digests}:
                self._catalog.unname(names)
                return Removed(untagged=names, deleted=())
            if image_id in in_use:
                raise ImageInUse(
                    f"The image {reference} is used by a container.", "Remove its containers first (docker ps -a)."
                )
            self._catalog.remove(image_id)
            gone = self._prune()
        self._driver.empty_trash()
        return Removed(untagged=names, deleted=(image_id, *gone))

    def settle(self) -> None:
        """Bring what came in to disk; runs by itself, in a thread, some seconds after a load or pull."""
        with self._lock:
            self._timer = None
        self._driver.settle()

    def close(self) -> None:
        """Bring to disk what still waits. The store may be left without; a crash of the host then costs what came last."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._driver.settle()

    def _settle_soon(self) -> None:
        """Once for all that come in a row, and not while the deployment that asked for them writes its own files."""
        with self._lock:
            if self._timer is not None:
                return
            self._timer = threading.Timer(SETTLE_AFTER_S, self.settle)
            self._timer.daemon = True
            self._timer.start()

    def _names_to_remove(self, record: ImageRecord, reference: str, *, force: bool) -> tuple[str, ...]:
        """The names that go: the one given, with the digests of its repository when it is the last tag there; by id all."""
        named = self._named(reference)
        if named is None:
            if len(record.repo_tags) > 1 and not force:
                raise ImageInUse(
                    f"The image {reference} has {len(record.repo_tags)} names.", "Remove them, or use force."
                )
            return (*record.repo_tags, *record.repo_digests)
        repository = re.split(r"@|:(?=[^:/]*$)", named)[0]
        others = [tag for tag in record.repo_tags if tag != named and tag.rpartition(":")[0] == repository]
        if named in record.repo_digests or others:
            return (named,)
        digests = [name for name in record.repo_digests if name.startswith(f"{repository}@")]
        return (named, *digests)

    def _named(self, reference: str) -> str | None:
        """The familiar name that `reference` is, None when it is an id."""
        if is_digest(reference):
            return None
        try:
            name = tag_of(reference)
        except ImageFault:
            return None
        return name if self._catalog.tagged(name) else None

    def _find(self, reference: str) -> str:
        name = self._named(reference)
        found = self._catalog.tagged(name) if name is not None else None
        if found is not None:
            return found
        digits = reference.removeprefix("sha256:")
        ids = self._catalog.starting_with(digits) if _HEX.fullmatch(digits) else []
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise NoSuchImage(f"{len(ids)} images have an id that begins with {digits}.", "Give more digits.")
        raise NoSuchImage(f"No such image: {reference[:300]}.", "docker images lists those that are here.")

    def _complete(self, config: ImageConfig) -> bool:
        return all(self._driver.layer(chain_id) is not None for chain_id in config.chain_ids)

    def _check_architecture(self, config: ImageConfig) -> None:
        if config.architecture not in {"", self._architecture}:
            raise ImageFault(
                f"The image is for linux/{config.architecture[:40]}; this host is linux/{self._architecture}.",
                f"Build it for linux/{self._architecture}.",
            )

    def _known_diff(self, digest: str) -> str | None:
        """The diff id of a layer that is here, by the digest it was transported with or its diff id."""
        with self._lock:
            diff_id = self._catalog.layer_diffs().get(digest, digest)
        return diff_id if self._driver.find_diff(diff_id) is not None and self._recipes.has(diff_id) else None

    def _add_archived(self, image: ArchivedImage, batch: Batch) -> LoadResult:
        chain_ids = image.config.chain_ids
        with self._hold(chain_ids):
            digests = [layer.digest for layer in image.manifest.layers]
            size = batch.commit(digests, chain_ids, image.config.diff_ids)
            record = self._add(image.manifest, image.config_data, size, tags=image.tags)
        return LoadResult(image=record, names=image.tags)

    def _add(
        self, manifest: Manifest, config_data: bytes, size: int, *, tags: Iterable[str], digests: Iterable[str] = ()
    ) -> ImageRecord:
        stored = Stored(
            id=manifest.config.digest,
            manifest_digest=manifest.digest,
            manifest_media_type=manifest.media_type,
            layer_digests=tuple(layer.digest for layer in manifest.layers),
            size_bytes=size,
        )
        with self._lock:
            self._catalog.add(stored, config_data, manifest.data)
            self._catalog.name(stored.id, tags=tags, digests=digests)
            record = self._catalog.record(stored.id)
        self._settle_soon()
        return record

    @contextmanager
    def _hold(self, chain_ids: Collection[str]) -> Iterator[None]:
        """Keep layers from being pruned while an image that needs them is on its way; prune when it did not arrive."""
        with self._lock:
            self._held.update(chain_ids)
        try:
            yield
        except BaseException:
            self._let_go(chain_ids)
            raise
        with self._lock:
            self._held -= Counter(chain_ids)

    def _let_go(self, chain_ids: Collection[str]) -> None:
        with self._lock:
            self._held -= Counter(chain_ids)
            self._prune()
        self._driver.empty_trash()

    def _prune(self) -> builtins.list[str]:
        """Remove layers that no image, container, load or pull needs."""
        with self._lock:
            keep = {chain for image_id in self._catalog.ids() for chain in self._catalog.config(image_id).chain_ids}
            gone = self._driver.prune_layers(keep | set(self._held))
            used = {diff_id for image_id in self._catalog.ids() for diff_id in self._catalog.config(image_id).diff_ids}
            self._recipes.prune(lambda diff_id: diff_id in used or self._driver.find_diff(diff_id) is not None)
        return gone


@contextmanager
def _full_disk_said() -> Iterator[None]:
    """A full disk is a sentence, not a traceback."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise ImageFault(
            "The disk is full: the image does not fit.", "Remove images that are no longer needed."
        ) from error


def _silent(step: PullProgress) -> None:
    """Progress nobody watches."""
