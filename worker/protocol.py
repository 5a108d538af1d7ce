"""What portal and worker say to each other: pure data, no behaviour beyond JSON and packing.

Sizes are bytes, rates bytes or bits per second as their names say, times seconds since 1970 (UTC) unless named `_ns`.
"""

from __future__ import annotations

import dataclasses
import struct
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

TASK_CONVERGE = "worker.converge"
TASK_ADVANCE = "releases.advance"
CONTROL_QUEUE = "control"

LABEL_APP = "moorage.app"
LABEL_TEAM = "moorage.team"
LABEL_RELEASE = "moorage.release"
LABEL_PROCESS = "moorage.process"
LABEL_SPEC = "moorage.spec"  # digest of the parts of a DesiredInstance that need a new container

type Wanted = Literal["running", "draining", "stopped", "removed"]
type Observed = Literal[
    "absent",
    "pulling",
    "creating",
    "starting",
    "checking",
    "healthy",
    "unhealthy",
    "exited",
    "failed",
    "draining",
    "stopped",
]
type PageState = Literal["starting", "stopped", "failed", "deleted"]


def host_queue(host: str) -> str:
    """Name of the Celery queue one host's worker reads."""
    return f"host.{host}"


def log_stream(instance: str) -> str:
    """Redis key of an instance's live log."""
    return f"logs:{instance}"


def metric_stream(instance: str) -> str:
    """Redis key of an instance's last hour of samples."""
    return f"metrics:{instance}"


def deployment_channel(pk: int) -> str:
    """Redis pub/sub channel that hears of a deployment's transitions."""
    return f"deployment:{pk}"


def _decode(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(kind, typing.TypeAliasType):
        return _decode(kind.__value__, value)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode(next(a for a in args if a is not type(None)), value)
    if origin is tuple:
        return tuple(_decode(args[0], item) for item in value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and issubclass(kind, Message):
        return kind.from_json(value)
    return value


class Message:
    """Base of everything that crosses the wire as JSON; unknown keys are ignored so that either side may be newer."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a message from decoded JSON; a missing key takes the field's default or raises TypeError."""
        hints = typing.get_type_hints(cls)
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{k: _decode(hints[k], v) for k, v in data.items() if k in names})

    def to_json(self) -> dict[str, Any]:
        """The message as JSON-ready dicts, lists and scalars."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Message):
    """A plan's kernel limits for one instance, or sums for an app or team. 0 means "no limit of this kind"."""

    cpu_millicores: int = 0
    cpu_weight: int = 100
    memory_bytes: int = 0
    swap_bytes: int = 0
    pids: int = 0
    disk_bytes: int = 0
    disk_read_bps: int = 0  # bytes per second
    disk_write_bps: int = 0
    disk_read_iops: int = 0
    disk_write_iops: int = 0
    net_in_bps: int = 0  # bits per second
    net_out_bps: int = 0
    log_bytes_per_s: int = 0
    log_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef(Message):
    """Where the engine pulls an image: `repository` is `<registry host>/<team>/<app>`, pulled by digest with a short token."""

    repository: str
    digest: str
    pull_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck(Message):
    """How the host asks, from outside, whether an instance is healthy. `http` expects a status below 400 from `path`."""

    kind: Literal["tcp", "http", "none"] = "tcp"
    path: str = "/"
    host_header: str = ""
    interval_s: float = 5.0
    timeout_s: float = 2.0
    deadline_s: float = 60.0
    unhealthy_after: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMount(Message):
    """A volume in an instance. Of an `exclusive` one no other container may have it for writing while this one runs."""

    name: str
    path: str
    read_only: bool = False
    subpath: str = ""
    exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredVolume(Message):
    """A volume that should be on the host with this size, or should be `gone`."""

    name: str
    team: str
    size_bytes: int
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedVolume(Message):
    """A volume the host has; `trouble` is what could not be done with it. `gone`: it was to go and has gone."""

    name: str
    size_bytes: int = 0
    used_bytes: int = 0
    trouble: str = ""
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeTask(Message):
    """Something to do once with a volume; asked for until its end was said. A restore's `digest` is that of the plain tar."""

    kind: Literal["backup", "restore"]
    id: int
    volume: str
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredInstance(Message):
    """One container that should be. `id` is the container's name; a change of anything but `wanted`, `limits`, `restart` makes a new id."""

    id: str
    app: str
    team: str
    release: int
    process: str
    ordinal: int
    image: ImageRef
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 8080
    health: HealthCheck = field(default_factory=HealthCheck)
    limits: Limits = field(default_factory=Limits)
    wanted: Wanted = "running"
    restart: bool = False  # engine restart policy: off until the deployment is live
    grace_s: int = 30
    no_new_privs: bool = True
    volumes: tuple[VolumeMount, ...] = ()
    restart_generation: int = 0  # raised by "restart": the container is stopped and started once per value


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Message):
    """Names that lead to instances. With no instance the ingress answers with the page for `page`."""

    app: str
    names: tuple[str, ...]
    instances: tuple[str, ...]
    page: PageState = "starting"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits(Message):
    """Limits of a team's or an app's cgroup; `path` is `<team>` or `<team>/<app>`."""

    path: str
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired(Message):
    """All that should be true on one host. `route_generation` is echoed in reports once the ingress has it."""

    host: str
    generation: str  # ETag: digest of the content
    route_generation: int = 0
    instances: tuple[DesiredInstance, ...] = ()
    routes: tuple[Route, ...] = ()
    groups: tuple[GroupLimits, ...] = ()
    volumes: tuple[DesiredVolume, ...] = ()
    tasks: tuple[VolumeTask, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedInstance(Message):
    """What the host sees of one instance. `reason` is a sentence, with figures, when it failed."""

    id: str
    state: Observed
    container_id: str = ""
    address: str = ""
    port: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    reason: str = ""
    last_log: tuple[str, ...] = ()
    since: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)  # e.g. {"pulled_bytes": …, "start_ms": …}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts(Message):
    """What a host offers and runs, for placement and the hosts page."""

    cpu_millicores: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    disk_free_bytes: int = 0
    engine_version: str = ""
    kernel: str = ""
    cgroup_version: int = 0
    storage_driver: str = ""
    network_pool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Message):
    """What a host says after a convergence, on an event and every 15 s. `complete` means instances not named are absent."""

    host: str
    generation: str
    route_generation: int
    instances: tuple[ObservedInstance, ...]
    complete: bool = True
    facts: HostFacts | None = None
    volumes: tuple[ObservedVolume, ...] | None = None  # None: not looked at this time


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHit(Message):
    """A limit that was hit. `level` is instance, app or team; `sentence` is what people read.

    One that stays hit is told again each minute, with `since` the time of the first.
    """

    instance: str
    limit: Literal["memory", "swap", "cpu", "pids", "disk", "disk_io", "network", "log"]
    level: Literal["instance", "app", "team"] = "instance"
    used: float = 0
    allowed: float = 0
    when: float = 0
    since: float = 0
    process: str = ""
    sentence: str = ""


_SAMPLE = struct.Struct("<dQQQQQQQQQIQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSample:
    """Counters of one instance at one moment; `cpu_ns`, `*_total` and `throttled_ns` only grow while the container lives."""

    at: float
    cpu_ns: int
    throttled_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    net_in_total: int
    net_out_total: int
    disk_read_total: int
    disk_write_total: int
    disk_used_bytes: int
    pids: int
    cpu_limit_millicores: int

    def pack(self) -> bytes:
        """92 bytes, little endian, fields in order."""
        return _SAMPLE.pack(*dataclasses.astuple(self))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The inverse of `pack`; raises struct.error on another length."""
        return cls(**dict(zip((f.name for f in dataclasses.fields(cls)), _SAMPLE.unpack(data), strict=True)))
