"""Tags: names of a repository's manifests, rows of their own that move."""

from __future__ import annotations

import re

from portal.images.models import Image, Tag

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
LATEST = "latest"


def is_tag(text: str) -> bool:
    """Whether it may name a manifest (distribution-spec, "Pulling manifests")."""
    return NAME.fullmatch(text) is not None


def move(image: Image, name: str) -> Tag:
    """Let a pushed tag name this manifest from now on. The caller is in a transaction."""
    tag, _ = Tag.objects.update_or_create(
        repository=image.repository, name=name, defaults={"image": image, "pushed": True}
    )
    return tag


def name_archive(image: Image, reference: str) -> None:
    """An image that came as an archive is `latest`, and has the tag it was saved under."""
    tag = reference.rpartition(":")[2] if ":" in reference else ""
    for name in {LATEST, tag}:
        if is_tag(name):
            Tag.objects.update_or_create(repository=image.repository, name=name, defaults={"image": image})


def image_of(repository: str, name: str) -> Image | None:
    """What a tag names."""
    tag = Tag.objects.select_related("image").filter(repository=repository, name=name).first()
    return tag.image if tag is not None else None
