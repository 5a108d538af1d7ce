"""Pulling an image: documents first, then the layers that are not here, several at a time, unpacked as they arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from runtime.images.extract_layer import LayerLimits
from runtime.images.extraction import Extraction
from runtime.images.faults import RegistryFault
from runtime.images.format import (
    Descriptor,
    ImageConfig,
    ImageFault,
    Index,
    Manifest,
    Reference,
    choose_platform,
    digest_of,
    parse_config,
    parse_manifest,
)
from runtime.images.nursery import Nursery
from runtime.images.recipes import Recipes
from runtime.images.records import PullProgress, RegistryAuth
from runtime.images.registry import Registry, RegistryPolicy
from runtime.storage.driver import Driver

PARALLEL_LAYERS = 3

type Report = Callable[[PullProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An image's documents, verified. `top_digest` is what the name led to: the index's digest where there is one."""

    registry: Registry
    manifest: Manifest
    config: ImageConfig
    config_data: bytes
    top_digest: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    descriptor: Descriptor
    diff_id: str
    chain_id: str


@dataclass(frozen=True, slots=True)
class _Fetch:
    """What the layers of one pull share."""

    registry: Registry
    nursery: Nursery
    report: Report
    stop: threading.Event


class _KeyedLocks:
    """One lock a key while anyone wants it: two pulls of the same layer fetch it once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks.pop(key)
                if users > 1:
                    self._locks[key] = (lock, users - 1)


class Puller:
    """Fetches images for one store."""

    def __init__(
        self, driver: Driver, recipes: Recipes, limits: LayerLimits, architecture: str, policy: RegistryPolicy
    ) -> None:
        self._driver, self._recipes, self._limits = driver, recipes, limits
        self._architecture, self._policy = architecture, policy
        self._locks = _KeyedLocks()

    def fetch_documents(self, reference: Reference, auth: RegistryAuth | None, report: Report) -> Fetched:
        """Manifest and config of an image; raises NoSuchImage, RegistryFault, ImageFault."""
        self._policy.check(reference.domain)
        registry = Registry(reference.domain, reference.path, auth, insecure=self._policy.insecure)
        report(PullProgress(what=reference.familiar, status=f"Pulling from {reference.path}"))
        data, kind = registry.manifest(reference.digest or reference.tag or "latest")
        top_digest = digest_of(data)
        found = parse_manifest(data, kind)
        if isinstance(found, Index):
            chosen = choose_platform(found, self._architecture)
            data, kind = registry.manifest(chosen.digest)
            found = parse_manifest(data, chosen.media_type or kind)
        if isinstance(found, Index):
            raise ImageFault("The index leads to another index.", "Build the image for one platform.")
        config_data = registry.document(found.config)
        config = parse_config(config_data)
        if len(config.diff_ids) != len(found.layers):
            raise ImageFault(
                f"The image's config names {len(config.diff_ids)} layers, its manifest {len(found.layers)}."
            )
        return Fetched(registry=registry, manifest=found, config=config, config_data=config_data, top_digest=top_digest)

    def fetch_layers(self, fetched: Fetched, report: Report) -> int:
        """Fetch and commit the layers that are missing; returns the sum of all layers' sizes in bytes.

        The caller keeps the chain ids from being pruned. The first fault ends the other fetches.
        """
        config = fetched.config
        layers = [_Wanted(*row) for row in zip(fetched.manifest.layers, config.diff_ids, config.chain_ids, strict=True)]
        stop = threading.Event()
        first = {layer.diff_id: layer for layer in reversed(layers)}
        with Nursery() as nursery, ThreadPoolExecutor(PARALLEL_LAYERS, thread_name_prefix="pull") as pool:
            fetch = _Fetch(fetched.registry, nursery, report, stop)
            futures = [pool.submit(self._fetch, fetch, layer) for layer in first.values()]
            errors = [error for future in futures if (error := future.exception())]
        causes = [error for error in errors if not isinstance(error, _Stopped)]
        if errors:
            raise (causes or errors)[0]
        committed = [
            self._driver.commit_layer(None, chain_id=layer.chain_id, diff_id=layer.diff_id, size_bytes=0)
            for layer in layers
        ]
        return sum(layer.size_bytes for layer in committed)

    def _fetch(self, fetch: _Fetch, layer: _Wanted) -> None:
        try:
            with self._locks.hold(layer.diff_id):
                if self._driver.find_diff(layer.diff_id) is not None and self._recipes.has(layer.diff_id):
                    fetch.report(PullProgress(what=layer.descriptor.digest, status="Already exists"))
                else:
                    self._fetch_missing(fetch, layer)
        except BaseException:
            fetch.stop.set()
            raise

    def _fetch_missing(self, fetch: _Fetch, layer: _Wanted) -> None:
        descriptor, report = layer.descriptor, fetch.report
        draft, recipe = self._driver.new_layer(), self._recipes.draft()
        try:
            with Extraction(fetch.nursery, draft.path, recipe, self._limits) as extraction:
                done = 0
                for chunk in fetch.registry.blob(descriptor):
                    if fetch.stop.is_set():
                        raise _Stopped("Another layer could not be fetched.")
                    extraction.write(chunk)
                    done += len(chunk)
                    report(
                        PullProgress(
                            what=descriptor.digest,
                            status="Downloading",
                            current_bytes=done,
                            total_bytes=descriptor.size,
                        )
                    )
                report(PullProgress(what=descriptor.digest, status="Extracting"))
                unpacked = extraction.finish()
            if unpacked.diff_id != layer.diff_id:
                raise ImageFault(
                    f"The layer {descriptor.digest} unpacks to {unpacked.diff_id}; the image's config says {layer.diff_id}."
                )
            self._driver.commit_layer(
                draft, chain_id=layer.chain_id, diff_id=layer.diff_id, size_bytes=unpacked.size_bytes
            )
            self._recipes.keep(recipe, layer.diff_id)
        finally:
            draft.discard()
            recipe.discard()
        report(PullProgress(what=descriptor.digest, status="Pull complete"))


class _Stopped(RegistryFault):
    """This fetch ended because another one failed."""
