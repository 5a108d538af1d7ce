"""Image names as Docker reads them (distribution/reference): `[host[:port]/]path[:tag][@digest]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.images.format_digest import ImageFault, is_digest

DEFAULT_DOMAIN = "docker.io"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MAX_NAME = 255
_MAX_REFERENCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A normalised name. `tag` and `digest` are "" when not given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Full name without tag: `docker.io/library/alpine`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as Docker shows it: `alpine`, `localhost:5000/team/app`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        """As Docker shows it, with digest or tag: `alpine:latest`."""
        if self.digest:
            return f"{self.familiar_name}@{self.digest}"
        return f"{self.familiar_name}:{self.tag or 'latest'}"


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        domain, path = first, rest
    else:
        domain, path = DEFAULT_DOMAIN, name
    if domain in {"index.docker.io", "registry-1.docker.io"}:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path


def parse_reference(text: str) -> Reference:
    """Read and normalise a name; raises ImageFault saying what is wrong with it."""
    if len(text) > _MAX_REFERENCE:
        raise ImageFault(f"{text[:100]!r}… is not an image name: it is {len(text)} characters long.")
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise ImageFault(f"{text[:300]!r} is not an image name: after @ comes sha256: and 64 hex digits.")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # no colon, or that of a port
        head, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise ImageFault(f"{text[:300]!r} is not an image name: the tag is not valid.")
    domain, path = _split_domain(head)
    if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path) or len(domain) + len(path) >= _MAX_NAME:
        raise ImageFault(
            f"{text[:300]!r} is not an image name.", "Names are lower case, like registry:5000/team/app:tag."
        )
    return Reference(domain=domain, path=path, tag=tag, digest=digest)
