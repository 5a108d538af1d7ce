"""The engine's configuration: read once from the command line, refused in words when wrong, never changed after."""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from runtime.engine.errors import Invalid
from runtime.images.registry import RegistryPolicy

VERSION = "0.1.0"
API_VERSION = "1.44"
MIN_API_VERSION = "1.24"
DEFAULT_STATE = Path("/var/lib/moorage")
DEFAULT_POOL = "10.210.0.0/16"
DEFAULT_MAX_DISK = 64 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Where one engine keeps everything and what it grants. Sizes in bytes."""

    state: Path
    run: Path
    trusted: bool = False
    subnet_pool: str = DEFAULT_POOL
    max_disk: int = DEFAULT_MAX_DISK
    storage_driver: str = ""
    debug: bool = False
    registries: RegistryPolicy = field(default_factory=RegistryPolicy)

    @property
    def short(self) -> str:
        """First 8 hex digits of sha256 of the real state path: what keeps two engines on one machine apart."""
        return short_id(self.state)

    @property
    def home(self) -> Path:
        """`<state>/engine`."""
        return self.state / "engine"

    @property
    def containers(self) -> Path:
        """`<state>/engine/containers`, one folder a container."""
        return self.home / "containers"

    @property
    def volumes(self) -> Path:
        """`<state>/engine/volumes`, the only place bind mounts may come from on an engine that is not trusted."""
        return self.home / "volumes"

    @property
    def socket(self) -> Path:
        """The API's socket."""
        return self.state / "engine.sock"


def short_id(state: Path) -> str:
    """The short id of a state directory (docs/interfaces.md, State on disk)."""
    return hashlib.sha256(os.path.realpath(state).encode()).hexdigest()[:8]


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m runtime.engine`."""
    p = argparse.ArgumentParser(prog="python -m runtime.engine", description="Moorage's container engine")
    p.add_argument("--state", type=Path, default=DEFAULT_STATE, help="directory of everything the engine keeps")
    p.add_argument("--run", type=Path, help="directory of sockets (default /run/moorage/<short id of the state>)")
    p.add_argument("--trusted", action="store_true", help="grant privileged containers, host namespaces and devices")
    p.add_argument("--subnet-pool", default=DEFAULT_POOL, help="IPv4 range that networks are cut from")
    p.add_argument("--max-disk", type=int, default=DEFAULT_MAX_DISK, help="largest disk size of a container, bytes")
    p.add_argument(
        "--registry",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help='a registry that images may be pulled from beside this machine\'s own; may be repeated, "*" is every one',
    )
    p.add_argument(
        "--insecure-registry",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="the same for one that is spoken to without TLS",
    )
    p.add_argument(
        "--storage-driver",
        default="",
        help="how layers and writable layers are kept, instead of the first that works here (docs/storage.md)",
    )
    p.add_argument("--debug", action="store_true", help="tracebacks in the log, slow callbacks named")
    p.add_argument("--version", action="version", version=f"moorage-engine {VERSION}")
    return p


def from_arguments(argv: list[str]) -> EngineConfig:
    """Read the command line; raises Invalid with a sentence for a pool or a size that cannot work."""
    args = parser().parse_args(argv)
    try:
        pool = ipaddress.IPv4Network(args.subnet_pool)
    except ValueError as error:
        raise Invalid(
            f"--subnet-pool {args.subnet_pool} is not an IPv4 network: {error}.", "Give one like 10.210.0.0/16."
        ) from error
    if pool.prefixlen > 24:
        raise Invalid(f"--subnet-pool {pool} has {pool.num_addresses} addresses.", "Give a /24 or larger.")
    if args.max_disk < 16 << 20:
        raise Invalid(f"--max-disk {args.max_disk} bytes is below 16 MiB.", "Give at least 16777216.")
    state = Path(os.path.realpath(args.state))
    run = args.run or Path("/run/moorage") / short_id(state)
    if len(str(state / "engine.sock")) > 107:
        raise Invalid(f"the state path {state} is too long for a socket (107 bytes).", "Choose a shorter directory.")
    return EngineConfig(
        state=state,
        run=run,
        trusted=args.trusted,
        subnet_pool=str(pool),
        max_disk=args.max_disk,
        storage_driver=args.storage_driver,
        debug=args.debug,
        registries=RegistryPolicy(allowed=frozenset(args.registry), insecure=frozenset(args.insecure_registry)),
    )
