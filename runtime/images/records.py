"""What the image store says of an image."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.images.format import ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image of this host. All digests are `sha256:<64 hex digits>`; sizes are bytes.

    `repo_tags` and `repo_digests` are familiar names as Docker shows them (`alpine:latest`, `localhost:5000/team/app@sha256:…`).
    `chain_ids` and `diff_ids` go from the lowest layer up; `size_bytes` is the sum of the unpacked layers.
    """

    id: str
    manifest_digest: str
    manifest_media_type: str
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    diff_ids: tuple[str, ...]
    chain_ids: tuple[str, ...]
    size_bytes: int
    config: ImageConfig

    @property
    def created(self) -> str:
        """RFC 3339, as the config has it; "" when it does not say."""
        return self.config.created

    @property
    def architecture(self) -> str:
        """GOARCH name, for instance amd64."""
        return self.config.architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """One image that a load brought. `names` are the tags it now has; without any, `docker load` prints the id."""

    image: ImageRecord
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAuth:
    """How to sign in to a registry: a ready bearer `token`, or `username` and `password` (Basic or the token endpoint)."""

    token: str = ""
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return "RegistryAuth(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """One step of a pull: `what` is a layer's digest or the reference; `status` a word of Docker's, such as "Downloading"."""

    what: str
    status: str
    current_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What `remove` did, in order, as `docker rmi` prints it."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
