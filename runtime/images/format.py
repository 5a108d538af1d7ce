"""Formats of images: the one module that engine, portal and tests import for them. Pure: no disk, no network.

An archive becomes blobs and images in one pass:

    reader = ArchiveReader(sink)
    while chunk := stream.read(1 << 20):
        reader.feed(chunk)
    reader.finish()
    for image in images(reader, "amd64"): ...
"""

from runtime.images.format_archive import ArchiveReader
from runtime.images.format_archived import ArchivedImage
from runtime.images.format_blobs import BlobSink, BlobWriter, StoredBlob
from runtime.images.format_config import Healthcheck, ImageConfig, parse_config
from runtime.images.format_digest import (
    CONFIG_TYPES,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    LAYER_TYPES,
    MANIFEST_TYPES,
    MAX_BLOB_BYTES,
    MAX_DOCUMENT_BYTES,
    MAX_ID,
    MAX_LAYERS,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    ImageFault,
    chain_ids,
    check_digest,
    digest_of,
    is_digest,
    layer_media_type,
    shown,
)
from runtime.images.format_images import images
from runtime.images.format_manifest import (
    MACHINES,
    Descriptor,
    Index,
    Manifest,
    choose_platform,
    make_manifest,
    parse_manifest,
)
from runtime.images.format_reference import Reference, parse_reference
from runtime.images.format_stream import StreamLimits, Unpacker, sniff
from runtime.images.format_tar import TarLimits, TarReader, TarVisitor
from runtime.images.format_tar_header import Kind, TarHeader

__all__ = [
    "CONFIG_TYPES",
    "DOCKER_INDEX",
    "DOCKER_MANIFEST",
    "INDEX_TYPES",
    "LAYER_TYPES",
    "MACHINES",
    "MANIFEST_TYPES",
    "MAX_BLOB_BYTES",
    "MAX_DOCUMENT_BYTES",
    "MAX_ID",
    "MAX_LAYERS",
    "OCI_CONFIG",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_MANIFEST",
    "ArchiveReader",
    "ArchivedImage",
    "BlobSink",
    "BlobWriter",
    "Descriptor",
    "Healthcheck",
    "ImageConfig",
    "ImageFault",
    "Index",
    "Kind",
    "Manifest",
    "Reference",
    "StoredBlob",
    "StreamLimits",
    "TarHeader",
    "TarLimits",
    "TarReader",
    "TarVisitor",
    "Unpacker",
    "chain_ids",
    "check_digest",
    "choose_platform",
    "digest_of",
    "images",
    "is_digest",
    "layer_media_type",
    "make_manifest",
    "parse_config",
    "parse_manifest",
    "parse_reference",
    "shown",
    "sniff",
]
