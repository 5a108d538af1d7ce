"""Mount options of an OCI configuration (config.md, "Linux mount options"): one list of words for four different things."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from runtime.dataclass import dataclass
from runtime.kernel import syscalls
from runtime.oci.fields import SpecFault

_SET = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "nodiratime": syscalls.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": syscalls.MOUNT_ATTR_NOSYMFOLLOW,
}
_CLEAR = {
    "rw": syscalls.MOUNT_ATTR_RDONLY,
    "suid": syscalls.MOUNT_ATTR_NOSUID,
    "dev": syscalls.MOUNT_ATTR_NODEV,
    "exec": syscalls.MOUNT_ATTR_NOEXEC,
    "diratime": syscalls.MOUNT_ATTR_NODIRATIME,
    "symfollow": syscalls.MOUNT_ATTR_NOSYMFOLLOW,
}
_ATIME = {  # one field of the attributes, not bits of their own
    "relatime": 0,
    "atime": 0,
    "norelatime": 0,
    "nostrictatime": 0,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
    "strictatime": syscalls.MOUNT_ATTR_STRICTATIME,
}
_PROPAGATION = {
    "private": syscalls.MS_PRIVATE,
    "slave": syscalls.MS_SLAVE,
    "shared": syscalls.MS_SHARED,
    "unbindable": syscalls.MS_UNBINDABLE,
}
_SUPERBLOCK = frozenset(("sync", "dirsync", "lazytime", "mand", "iversion"))  # told to the file system as flags
_DEFAULTS = frozenset(("defaults", "async", "nolazytime", "nomand", "noiversion", "loud", "silent", "remount"))

NO_LINKS = "nolinks"  # our own: whoever wrote the source's folders must not choose what is bound
VOLUME, SEED = (
    "volume",
    "seed",
)  # our own: the source is a volume that the bundle plans; the image's content goes into a fresh one
_OWN = frozenset(("bind", "rbind", "idmap", "ridmap", "tmpcopyup", NO_LINKS, VOLUME, SEED))
_PLAIN = frozenset((*_SET, *_CLEAR, *_ATIME, *_PROPAGATION))
WORDS = _PLAIN | frozenset(f"r{word}" for word in _PLAIN) | _OWN | _SUPERBLOCK | _DEFAULTS


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What the words ask for. Attributes are MOUNT_ATTR_*; the recursive ones hold for all mounts below too.

    `propagation` is MS_PRIVATE, MS_SLAVE, … or 0; `idmap` says that ids are mapped, `idmap_below` that mounts below are too.
    `volume` says that volumes.json has the source, `seed` that what the image has there is copied into it when it is empty.
    `no_links` refuses a source whose path leads through symbolic links. `data` is for the file system.
    """

    attrs: int = 0
    clear: int = 0
    attrs_below: int = 0
    clear_below: int = 0
    propagation: int = 0
    propagation_below: bool = False
    bind: bool = False
    bind_below: bool = False
    idmap: bool = False
    idmap_below: bool = False
    copy_up: bool = False
    no_links: bool = False
    volume: bool = False
    seed: bool = False
    data: tuple[str, ...] = ()


@cache
def parse(options: tuple[str, ...]) -> MountOptions:
    """Read the words in order: a later one overrides an earlier."""
    found = MountOptions()
    for word in options:
        found = _with(found, word)
    return found


def propagation(word: str) -> tuple[int, bool]:
    """MS_* of "rslave", "private" …, and whether it is for mounts below too; raises SpecFault."""
    below = word.startswith("r")
    kind = _PROPAGATION.get(word.removeprefix("r"))
    if kind is None:
        raise SpecFault(
            f"{word!r} is no propagation.", f"There are {', '.join(_PROPAGATION)}, each also with an r before it."
        )
    return kind, below


def _with(o: MountOptions, word: str) -> MountOptions:
    attributes = _attributes(word)
    if attributes:
        set_, clear = attributes
        return replace(o, attrs=o.attrs & ~clear | set_, clear=o.clear & ~set_ | clear)
    below = _attributes(word.removeprefix("r")) if word.startswith("r") else None
    if below:
        set_, clear = below
        return replace(o, attrs_below=o.attrs_below & ~clear | set_, clear_below=o.clear_below & ~set_ | clear)
    if word in _PROPAGATION or (word.startswith("r") and word[1:] in _PROPAGATION):
        kind, recursive = propagation(word)
        return replace(o, propagation=kind, propagation_below=recursive)
    if word in ("bind", "rbind"):
        return replace(o, bind=True, bind_below=o.bind_below or word == "rbind")
    if word in ("idmap", "ridmap"):
        return replace(o, idmap=True, idmap_below=word == "ridmap")
    if word in (VOLUME, SEED):
        return replace(o, volume=True, seed=o.seed or word == SEED)
    if word in ("tmpcopyup", NO_LINKS):
        return replace(o, copy_up=o.copy_up or word == "tmpcopyup", no_links=o.no_links or word == NO_LINKS)
    return o if word in _DEFAULTS else replace(o, data=(*o.data, word))


def _attributes(word: str) -> tuple[int, int] | None:
    """Attributes to set and to clear."""
    if word in _SET:
        return _SET[word], 0
    if word in _CLEAR:
        return 0, _CLEAR[word]
    if word in _ATIME:
        return _ATIME[word], syscalls.MOUNT_ATTR_ATIME
    return None
