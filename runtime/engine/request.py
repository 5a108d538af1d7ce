"""`POST /containers/create`, parsed: what may be asked for, bounded and typed, and what strangers are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from runtime.engine.errors import Forbidden, Invalid, Unsupported
from runtime.engine.fields import Fields
from runtime.engine.healthcheck import Check, parse_check
from runtime.engine.mountrequest import Bind, VolumeMount, absolute, parse_mounts
from runtime.engine.resources import Resources, checked, parse_resources
from runtime.engine.units import parse_size
from runtime.kernel.capabilities import NAMES

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")
GROUP = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}(/[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}){0,3}")
PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp))?")
NO_NEW_PRIVILEGES, UNCONFINED = ("no-new-privileges", "no-new-privileges:true"), "seccomp:unconfined"
RATE_IN, RATE_OUT = "moorage.rate.in", "moorage.rate.out"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """Docker's `Config`: what the process is. None in entrypoint or cmd means "as the image says"."""

    image: str
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    workdir: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    healthcheck: Check | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortBinding:
    """One published port: container port and protocol, host address ("" is any) and port (0 is "choose")."""

    port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When the engine starts a container again by itself; `retries` counts for on-failure, 0 is without end."""

    name: str = "no"
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """Docker's `HostConfig`: what the host gives."""

    resources: Resources = field(default_factory=Resources)
    network_mode: str = "default"
    ports: tuple[PortBinding, ...] = ()
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    publish_all: bool = False
    cgroup_parent: str = ""
    binds: tuple[Bind, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    tmpfs: dict[str, str] = field(default_factory=dict)
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    read_only: bool = False
    shm_size: int = 64 << 20
    init: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    privileged: bool = False  # all capabilities of its own user namespace and no filter; on a trusted engine only
    unconfined: bool = False
    oom_score_adj: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    console_size: tuple[int, int] = (0, 0)  # height and width


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """How the container joins its network: asked-for address and aliases."""

    ip: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """A whole create call."""

    config: ContainerConfig
    host: HostConfig
    endpoint: EndpointConfig


def check_name(name: str) -> str:
    """A container's name without the leading slash; raises Invalid in Docker's words."""
    bare = name.removeprefix("/")
    if not NAME.fullmatch(bare):
        raise Invalid(
            f"Invalid container name ({name[:200]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to 128 of them."
        )
    return bare


def check_group(path: str) -> str:
    """A cgroup path `<team>[/<app>]` below the engine's root; raises Invalid."""
    if path and (not GROUP.fullmatch(path) or ".." in path):
        raise Invalid(f"CgroupParent {path[:200]!r} must be names of letters, digits, _ . - joined by /, at most four.")
    return path


def parse_create(body: object, *, trusted: bool) -> CreateRequest:
    """The body of a create call; raises Invalid (400) for nonsense, Forbidden (403) for what only --trusted grants."""
    f = Fields(body, "body")
    host = f.object("HostConfig")
    refuse_absent(host) if trusted else refuse_privileges(host)
    config = _config(f)
    endpoint, rates = _endpoint(f.object("NetworkingConfig"))
    parsed = _host(host, trusted=trusted)
    resources = parsed.resources
    resources = replace(resources, rate_in=rates[0] or resources.rate_in, rate_out=rates[1] or resources.rate_out)
    parsed = replace(parsed, resources=checked(resources))
    if parsed.auto_remove and parsed.restart.name != "no":
        raise Invalid("Conflicting options: --restart and --rm.")
    return CreateRequest(config=config, host=parsed, endpoint=endpoint)


def refuse_privileges(host: Fields) -> None:
    """Raise Forbidden for what would reach past the container: the engine's own line, whoever asks."""
    way_out = "Only an engine started with --trusted grants it."
    if host.flag("Privileged"):
        raise Forbidden("Privileged containers are refused.", way_out)
    _refuse_namespaces(host, way_out)
    _refuse_rights(host, way_out)


def refuse_absent(host: Fields) -> None:
    """Raise Unsupported for what a trusted engine would grant and cannot do yet; nothing asked for is left out in silence."""
    for key in ("PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode"):
        if host.text(key) not in ("", "private", "shareable"):
            raise Unsupported(f"{key} {host.text(key)[:64]!r} is not offered yet.", "Leave it out.")
    if host.text("NetworkMode").startswith("container:"):
        raise Unsupported("Sharing another container's network is not offered yet.", "Put both on one network.")
    for key in ("Devices", "DeviceRequests", "DeviceCgroupRules", "GroupAdd"):
        if host.data.get(key):
            raise Unsupported(f"{key} is not offered yet.", "Leave it out.")
    for option in host.texts("SecurityOpt") or ():
        if option.replace("=", ":") not in (*NO_NEW_PRIVILEGES, "no-new-privileges:false", UNCONFINED):
            raise Unsupported(f"The security option {option[:100]!r} is not offered yet.", "Leave it out.")


def _refuse_namespaces(host: Fields, way_out: str) -> None:
    for key, kind in (("PidMode", "PID"), ("IpcMode", "IPC"), ("UTSMode", "UTS"), ("CgroupnsMode", "cgroup")):
        mode = host.text(key)
        if mode not in ("", "private", "shareable" if key == "IpcMode" else "private"):
            raise Forbidden(f"{key} {mode[:64]!r} is refused: a container has its own {kind} namespace.", way_out)
    if host.text("UsernsMode"):
        raise Forbidden("UsernsMode 'host' is refused: a container has its own user namespace.", way_out)
    network = host.text("NetworkMode")
    if network == "host" or network.startswith("container:"):
        raise Forbidden(f"NetworkMode {network[:64]!r} is refused: a container has its own network namespace.", way_out)


def _refuse_rights(host: Fields, way_out: str) -> None:
    if host.texts("CapAdd"):
        raise Forbidden(f"Adding capabilities ({', '.join(host.texts('CapAdd') or ())[:200]}) is refused.", way_out)
    for key in ("Devices", "DeviceRequests", "DeviceCgroupRules", "GroupAdd"):
        if host.data.get(key):
            raise Forbidden(f"{key} is refused: a container has its own devices and groups.", way_out)
    for option in host.texts("SecurityOpt") or ():
        if option.replace("=", ":") not in (*NO_NEW_PRIVILEGES, "no-new-privileges:false"):
            raise Forbidden(
                f"The security option {option[:100]!r} is refused; only no-new-privileges may be set.", way_out
            )
    if host.integer("OomScoreAdj", low=-1000, high=1000) < 0:
        raise Forbidden("A negative OomScoreAdj is refused: it would shield the container before the host.", way_out)


def _config(f: Fields) -> ContainerConfig:
    image = f.text("Image", limit=512)
    if not image:
        raise Invalid("No image specified.", "Give Image.")
    env = f.texts("Env", limit=4096) or ()
    for entry in env:
        if not entry.partition("=")[0]:
            raise Invalid("An entry of Env has no name before '='.")
    timeout = f.integer("StopTimeout", low=-1, high=86_400) if "StopTimeout" in f else None
    return ContainerConfig(
        image=image,
        hostname=f.text("Hostname", limit=64),
        domainname=f.text("Domainname", limit=253),
        user=f.text("User", limit=256),
        workdir=absolute(f.text("WorkingDir", limit=4096), "WorkingDir", allow_empty=True),
        tty=f.flag("Tty"),
        open_stdin=f.flag("OpenStdin"),
        stdin_once=f.flag("StdinOnce"),
        env=env,
        cmd=f.texts("Cmd"),
        entrypoint=f.texts("Entrypoint"),
        labels=f.mapping("Labels"),
        exposed_ports=tuple(_port(p) for p in f.keys("ExposedPorts")),
        volumes=tuple(absolute(v, "Volumes") for v in f.keys("Volumes")),
        stop_signal=f.text("StopSignal", limit=32),
        stop_timeout_s=timeout,
        healthcheck=parse_check(f.object("Healthcheck")) if "Healthcheck" in f else None,
    )


def _host(f: Fields, *, trusted: bool) -> HostConfig:
    resources = parse_resources(f.data)
    storage, mounts = f.object("StorageOpt"), parse_mounts(f)
    if "size" in storage:
        resources = replace(resources, disk_size=parse_size(storage.text("size"), "HostConfig.StorageOpt.size"))
    log_size, log_rate = _log_options(f.object("LogConfig"))
    resources = replace(resources, log_size=log_size or resources.log_size, log_rate=log_rate or resources.log_rate)
    options = tuple(o.replace("=", ":") for o in f.texts("SecurityOpt") or ())
    return HostConfig(
        resources=resources,
        network_mode=f.text("NetworkMode", "default", limit=128) or "default",
        ports=_bindings(f.object("PortBindings")),
        restart=parse_restart(f.object("RestartPolicy")),
        auto_remove=f.flag("AutoRemove"),
        publish_all=f.flag("PublishAllPorts"),
        cgroup_parent=check_group(f.text("CgroupParent", limit=512).strip("/")),
        binds=mounts.binds,
        volumes=mounts.volumes,
        tmpfs=mounts.tmpfs,
        dns=f.texts("Dns", limit=8, each=64) or (),
        dns_search=f.texts("DnsSearch", limit=8, each=253) or (),
        extra_hosts=f.texts("ExtraHosts", limit=64, each=320) or (),
        read_only=f.flag("ReadonlyRootfs"),
        shm_size=f.integer("ShmSize", low=0, high=1 << 40) or 64 << 20,
        init=f.flag("Init"),
        cap_add=_capabilities(f, "CapAdd") if trusted else (),
        cap_drop=_capabilities(f, "CapDrop"),
        no_new_privileges=any(o in NO_NEW_PRIVILEGES for o in options),
        privileged=trusted and f.flag("Privileged"),
        unconfined=trusted and UNCONFINED in options,
        oom_score_adj=f.integer("OomScoreAdj", low=-1000, high=1000),
        ulimits=tuple(_ulimit(u) for u in f.objects("Ulimits", limit=16)),
        sysctls=_sysctls(f.mapping("Sysctls", limit=64, each=256), trusted=trusted),
        console_size=f.console_size(),
    )


def _capabilities(f: Fields, key: str) -> tuple[str, ...]:
    names = tuple(n.upper().removeprefix("CAP_") for n in f.texts(key, limit=64, each=64) or ())
    for name in names:
        if name != "ALL" and name not in NAMES:
            raise Invalid(f"{key} {name[:64]!r} is no capability.", "capabilities(7) lists them.")
    return names


def _log_options(f: Fields) -> tuple[int, int]:
    kind = f.text("Type")
    if kind not in ("", "json-file", "local", "moorage", "default"):
        raise Invalid(
            f"The log driver {kind[:64]!r} is not here.", "Leave LogConfig.Type empty: the engine keeps its own record."
        )
    options = f.mapping("Config", limit=16, each=64)
    size, rate = options.get("max-size", ""), options.get("rate", "")
    return (
        parse_size(size, "LogConfig.Config.max-size") if size else 0,
        parse_size(rate, "LogConfig.Config.rate") if rate else 0,
    )


def parse_restart(f: Fields) -> RestartPolicy:
    """Docker's RestartPolicy; raises Invalid for an unknown name."""
    name = f.text("Name") or "no"
    if name not in ("no", "on-failure", "always", "unless-stopped"):
        raise Invalid(f"invalid restart policy {name[:64]!r}.", "Use no, on-failure, always or unless-stopped.")
    retries = f.integer("MaximumRetryCount", low=0, high=1_000_000)
    if retries and name != "on-failure":
        raise Invalid(f"maximum retry count cannot be used with restart policy {name!r}.")
    return RestartPolicy(name=name, retries=retries)


def _port(text: str) -> str:
    match = PORT.fullmatch(text)
    if not match or not 0 < int(match[1]) < 65536:
        raise Invalid(f"{text[:64]!r} is not a port like 80/tcp.")
    return f"{int(match[1])}/{match[2] or 'tcp'}"


def _bindings(f: Fields) -> tuple[PortBinding, ...]:
    found = []
    for key in f.keys("PortBindings") if "PortBindings" in f else tuple(f.data)[:256]:
        port, _, protocol = _port(key).partition("/")
        for entry in f.objects(key, limit=16) or [Fields({}, key)]:
            text = entry.text("HostPort", limit=11)
            if text and not (text.isdigit() and int(text) < 65536):
                raise Invalid(f"Invalid host port {text!r} for {key}.", "Ranges are not taken; give one port.")
            ip = entry.text("HostIp", limit=45)
            if ":" in ip:
                raise Invalid(f"Ports are published on IPv4 only, not {ip!r}.")
            found.append(PortBinding(port=int(port), protocol=protocol, host_ip=ip, host_port=int(text or 0)))
    return tuple(found)


def _ulimit(f: Fields) -> tuple[str, int, int]:
    hard = f.integer("Hard", low=-1, high=(1 << 63) - 1)
    return f.text("Name", limit=32), f.integer("Soft", low=-1, high=(1 << 63) - 1), hard


def _sysctls(found: dict[str, str], *, trusted: bool) -> dict[str, str]:
    for key in found:
        if not trusted and not (
            key.startswith("net.ipv4.")
            and key.removeprefix("net.ipv4.") in ("ip_unprivileged_port_start", "ping_group_range")
        ):
            raise Forbidden(f"The sysctl {key[:100]!r} is refused.", "Only an engine started with --trusted grants it.")
    return found


def _endpoint(f: Fields) -> tuple[EndpointConfig, tuple[int, int]]:
    endpoints = f.object("EndpointsConfig")
    if len(endpoints.data) > 1:
        raise Invalid("Container cannot be connected to more than one network.", "Create it on one.")
    for name in endpoints.data:
        endpoint = endpoints.object(name)
        options = endpoint.mapping("DriverOpts", limit=16, each=64)
        rates = _rate(options, RATE_IN), _rate(options, RATE_OUT)
        ipam = endpoint.object("IPAMConfig")
        config = EndpointConfig(
            ip=ipam.text("IPv4Address", limit=15), aliases=endpoint.texts("Aliases", limit=32, each=253) or ()
        )
        return config, rates
    return EndpointConfig(), (0, 0)


def _rate(options: dict[str, str], key: str) -> int:
    text = options.get(key) or "0"
    if not text.isdigit() or int(text) > 1 << 50:
        raise Invalid(f"DriverOpts {key} {text[:32]!r} is not a number of bits per second.")
    return int(text)
