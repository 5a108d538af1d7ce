"""What a create call wants mounted: binds, volumes and tmpfs, from `Binds`, `Mounts`, `Tmpfs` and `Volumes`."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from runtime.engine.errors import Forbidden, Invalid, Unsupported
from runtime.engine.fields import Fields

_BIND_WORDS = frozenset(("ro", "rw", "z", "Z", "nocopy", "private", "rprivate", "delegated", "cached", "consistent"))
_TMPFS_BYTES = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A host folder in the container; only below the volume root on an engine that is not trusted.

    Of a `confined` one the source is a path without links, and what it leads to is refused if one has come into it since.
    """

    source: str
    target: str
    read_only: bool = False
    confined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMount:
    """A volume in the container. `name` "" in a request asks for a new one; an `anonymous` one goes with `rm -v`.

    `copy` puts what the image has there into a fresh volume. `subpath` names a part of it, made when `make_subpath`.
    `size`, `labels` and `options` are for a volume that is not there yet. `bind` says that it was asked for by `Binds`.
    """

    name: str
    target: str
    read_only: bool = False
    copy: bool = True
    subpath: str = ""
    make_subpath: bool = False
    anonymous: bool = False
    bind: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """All mounts of a create call; targets of `tmpfs` with their options."""

    binds: tuple[Bind, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    tmpfs: dict[str, str] = field(default_factory=dict)


def absolute(path: str, where: str, *, allow_empty: bool = False) -> str:
    """An absolute path; raises Invalid naming `where`."""
    if not path and allow_empty:
        return ""
    if not path.startswith("/"):
        raise Invalid(f"{where} {path[:200]!r} must be an absolute path.")
    return path


def target_path(path: str, where: str) -> str:
    """Where something is mounted, without "..", doubled or last slashes; raises Invalid for the root."""
    plain = "/" + posixpath.normpath(absolute(path, where)).lstrip("/")
    if plain == "/":
        raise Invalid(f"invalid volume specification: destination can't be '/' ({where}).")
    return plain


def parse_mounts(host: Fields) -> Wanted:
    """Of `HostConfig`. Raises Invalid, Forbidden, Unsupported; Invalid when two want the same place."""
    _refuse_unknown(host)
    binds: list[Bind] = []
    volumes: list[VolumeMount] = []
    tmpfs = {target_path(k, "Tmpfs"): v for k, v in host.mapping("Tmpfs", limit=32, each=256).items()}
    for text in host.texts("Binds", limit=64, each=4096) or ():
        found = _bind(text)
        binds.append(found) if isinstance(found, Bind) else volumes.append(found)
    for mount in host.objects("Mounts", limit=64):
        kind = mount.text("Type", "bind", limit=16) or "bind"
        target = target_path(mount.text("Target", limit=4096), "Mounts.Target")
        if kind == "bind":
            source = absolute(mount.text("Source", limit=4096), "Mounts.Source")
            binds.append(Bind(source=source, target=target, read_only=mount.flag("ReadOnly")))
        elif kind == "volume":
            volumes.append(_volume(mount, target))
        elif kind == "tmpfs":
            if target in tmpfs:
                raise Invalid(f"Duplicate mount point: {target}.")
            tmpfs[target] = _tmpfs(mount)
        else:
            raise Unsupported(f"Mounts of type {kind!r} are not offered.", "Use volume, bind or tmpfs.")
    _refuse_doubles([*(b.target for b in binds), *(v.target for v in volumes), *tmpfs])
    return Wanted(tuple(binds), tuple(volumes), tmpfs)


def with_anonymous(
    volumes: tuple[VolumeMount, ...], taken: set[str], targets: tuple[str, ...]
) -> tuple[VolumeMount, ...]:
    """`volumes` and a new anonymous one for each of `targets` where nothing is mounted yet."""
    there = taken | {v.target for v in volumes}
    extra = dict.fromkeys(target_path(t, "Volumes") for t in targets)
    return (*volumes, *(VolumeMount(name="", target=t, anonymous=True) for t in extra if t not in there))


def _refuse_unknown(host: Fields) -> None:
    if host.texts("VolumesFrom"):
        raise Unsupported("VolumesFrom is not offered.", "Name the volumes themselves.")
    _check_driver(host.text("VolumeDriver", limit=64), "VolumeDriver")


def _check_driver(driver: str, where: str) -> None:
    if driver not in ("", "local"):
        raise Unsupported(f"{where} {driver[:64]!r} is not here.", "There is local alone.")


def _refuse_doubles(targets: list[str]) -> None:
    for target in targets:
        if targets.count(target) > 1:
            raise Invalid(f"Duplicate mount point: {target}.")


def _bind(text: str) -> Bind | VolumeMount:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0]:
        raise Invalid(f"invalid volume specification: {text[:200]!r}.")
    words = frozenset(parts[2].split(",")) if parts[2:] else frozenset[str]()
    for word in words - _BIND_WORDS:
        raise Invalid(f"invalid volume specification: {text[:200]!r}: {word[:32]!r} is not known.")
    target, read_only = target_path(parts[1], "Binds"), "ro" in words
    if parts[0].startswith("/"):
        return Bind(source=parts[0], target=target, read_only=read_only)
    if "/" in parts[0] or parts[0].startswith("."):
        raise Forbidden(f"The bind of {parts[0][:200]!r} is refused: it is no absolute path and no volume's name.")
    return VolumeMount(name=parts[0], target=target, read_only=read_only, copy="nocopy" not in words, bind=True)


def _volume(mount: Fields, target: str) -> VolumeMount:
    options = mount.object("VolumeOptions")
    driver = options.object("DriverConfig")
    _check_driver(driver.text("Name", limit=64), "VolumeOptions.DriverConfig.Name")
    name = mount.text("Source", limit=128)
    subpath = options.text("Subpath", limit=4096)
    if subpath and (subpath.startswith("/") or ".." in subpath.split("/")):
        raise Invalid(f"VolumeOptions.Subpath {subpath[:200]!r} must be a relative path below the volume.")
    return VolumeMount(
        name=name,
        target=target,
        read_only=mount.flag("ReadOnly"),
        copy=not options.flag("NoCopy"),
        subpath=subpath,
        make_subpath=options.flag("CreateSubpath"),
        anonymous=not name,
        labels=options.mapping("Labels", limit=64),
        options=driver.mapping("Options", limit=16, each=256),
    )


def _tmpfs(mount: Fields) -> str:
    """`TmpfsOptions` as mount options."""
    options = mount.object("TmpfsOptions")
    size = options.integer("SizeBytes", low=0, high=_TMPFS_BYTES)
    mode = options.integer("Mode", low=0, high=0o7777) if "Mode" in options else None
    words = ["ro"] if mount.flag("ReadOnly") else []
    words += [f"size={size}"] if size else []
    words += [f"mode={mode:o}"] if mode is not None else []
    return ",".join(words)
