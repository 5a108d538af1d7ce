"""Containers as Docker's JSON: `inspect` and the rows of `ps`."""

from __future__ import annotations

from typing import Any

from runtime.engine.bundle import capabilities, hostname
from runtime.engine.container import Container
from runtime.engine.filters import Filters
from runtime.engine.healthcheck import NONE, STARTING
from runtime.engine.lifecycle import pid_of
from runtime.engine.mountrequest import VolumeMount
from runtime.engine.request import HostConfig
from runtime.engine.resources import to_docker
from runtime.engine.state import State
from runtime.engine.units import ZERO_TIME, ago, rfc3339
from runtime.network.model import Endpoint
from runtime.storage.volumeplan import DATA

LIST_FILTERS = frozenset(
    {
        "id",
        "name",
        "label",
        "status",
        "ancestor",
        "network",
        "exited",
        "before",
        "since",
        "health",
        "volume",
        "publish",
        "expose",
        "is-task",
    }
)


def status_words(container: Container) -> str:
    """The STATUS column: `Up 5 minutes`, `Exited (0) 2 hours ago`."""
    life = container.life
    match container.state:
        case State.RUNNING:
            return f"Up {ago(life.started_ns)}{_health_words(container)}"
        case State.PAUSED:
            return f"Up {ago(life.started_ns)} (Paused)"
        case State.RESTARTING:
            return f"Restarting ({life.exit_code}) {ago(life.finished_ns)} ago"
        case State.EXITED:
            return f"Exited ({life.exit_code}) {ago(life.finished_ns)} ago"
        case State.REMOVING:
            return "Removal In Progress"
        case _:
            return container.state.value.capitalize()


def _health_words(container: Container) -> str:
    status = container.health.status if container.health else ""
    return f" ({'health: ' if status == STARTING else ''}{status})" if status else ""


def state(container: Container) -> dict[str, Any]:
    """`State` of inspect; `Moorage.sentence` says what a code cannot."""
    life = container.life
    return {
        "Status": container.state.value,
        "Running": container.state.is_live or container.state is State.RESTARTING,
        "Paused": container.state is State.PAUSED,
        "Restarting": container.state is State.RESTARTING,
        "OOMKilled": life.oom_killed,
        "Dead": container.state is State.DEAD,
        "Pid": pid_of(container),
        "ExitCode": life.exit_code,
        "Error": life.error,
        "StartedAt": rfc3339(life.started_ns),
        "FinishedAt": rfc3339(life.finished_ns) if life.finished_ns else ZERO_TIME,
        "Moorage": {"sentence": life.sentence},
        **({"Health": container.health.to_docker()} if container.health else {}),
    }


def host_config(host: HostConfig) -> dict[str, Any]:
    """`HostConfig` of inspect."""
    r = host.resources
    log = {k: str(v) for k, v in (("max-size", r.log_size), ("rate", r.log_rate)) if v}
    return {
        "Binds": [
            *(f"{b.source}:{b.target}{':ro' if b.read_only else ''}" for b in host.binds),
            *(f"{v.name}:{v.target}{':ro' if v.read_only else ''}" for v in host.volumes if v.bind),
        ]
        or None,
        "Mounts": [_asked(v) for v in host.volumes if not v.bind and not v.anonymous] or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": "json-file", "Config": log},
        "NetworkMode": host.network_mode,
        "PortBindings": _bindings(host),
        "RestartPolicy": {"Name": host.restart.name, "MaximumRetryCount": host.restart.retries},
        "AutoRemove": host.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": None,
        "ConsoleSize": list(host.console_size),
        "CapAdd": list(host.cap_add) or None,
        "CapDrop": list(host.cap_drop) or None,
        "CgroupnsMode": "private",
        "Dns": list(host.dns),
        "DnsOptions": [],
        "DnsSearch": list(host.dns_search),
        "ExtraHosts": list(host.extra_hosts) or None,
        "GroupAdd": None,
        "IpcMode": "private",
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": host.oom_score_adj,
        "PidMode": "",
        "Privileged": host.privileged,
        "PublishAllPorts": host.publish_all,
        "ReadonlyRootfs": host.read_only,
        "SecurityOpt": ["no-new-privileges"] if host.no_new_privileges else None,
        "StorageOpt": {"size": str(r.disk_size)} if r.disk_size else None,
        "Tmpfs": host.tmpfs or None,
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": host.shm_size,
        "Sysctls": host.sysctls or None,
        "Runtime": "moorage",
        "Isolation": "",
        "CgroupParent": host.cgroup_parent,
        "Ulimits": [{"Name": n, "Soft": soft, "Hard": hard} for n, soft, hard in host.ulimits] or None,
        "Init": host.init,
        **to_docker(r),
    }


def _asked(v: VolumeMount) -> dict[str, Any]:
    found: dict[str, Any] = {"Type": "volume", "Source": v.name, "Target": v.target, "ReadOnly": v.read_only}
    options = {"NoCopy": not v.copy, "Subpath": v.subpath}
    return found | {"VolumeOptions": {k: value for k, value in options.items() if value}}


def mounts(container: Container) -> list[dict[str, Any]]:
    """`Mounts` of inspect and of `ps`: binds and volumes."""
    host, root = container.record.host, container.folder.parent.parent / "volumes"
    found: list[dict[str, Any]] = [
        {
            "Type": "bind",
            "Source": b.source,
            "Destination": b.target,
            "Mode": "ro" if b.read_only else "",
            "RW": not b.read_only,
            "Propagation": "rprivate",
        }
        for b in host.binds
    ]
    found += [
        {
            "Type": "volume",
            "Name": v.name,
            "Source": str(root / v.name / DATA),
            "Destination": v.target,
            "Driver": "local",
            "Mode": "ro" if v.read_only else "z",
            "RW": not v.read_only,
            "Propagation": "",
        }
        for v in host.volumes
    ]
    return found


def _bindings(host: HostConfig) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for p in host.ports:
        found.setdefault(f"{p.port}/{p.protocol}", []).append({"HostIp": p.host_ip, "HostPort": str(p.host_port or "")})
    return found


def config(container: Container) -> dict[str, Any]:
    """`Config` of inspect: what was asked for, with the image's part laid in."""
    c, p = container.record.config, container.record.process
    return {
        "Hostname": hostname(container.record),
        "Domainname": c.domainname,
        "User": p.user,
        "AttachStdin": c.open_stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "ExposedPorts": {port: {} for port in p.exposed_ports},
        "Tty": c.tty,
        "OpenStdin": c.open_stdin,
        "StdinOnce": c.stdin_once,
        "Env": list(p.env),
        "Cmd": list(c.cmd) if c.cmd is not None else None,
        "Healthcheck": p.health.to_docker() if p.health else None,
        "Image": c.image,
        "Volumes": {v: {} for v in c.volumes} or None,
        "WorkingDir": p.cwd,
        "Entrypoint": list(c.entrypoint) if c.entrypoint is not None else None,
        "OnBuild": None,
        "Labels": p.labels,
        "StopSignal": p.stop_signal,
        "StopTimeout": c.stop_timeout_s,
    }


def ports(endpoints: tuple[Endpoint, ...], exposed: tuple[str, ...]) -> dict[str, list[dict[str, str]] | None]:
    """`NetworkSettings.Ports`."""
    found: dict[str, list[dict[str, str]] | None] = dict.fromkeys(exposed)
    for endpoint in endpoints:
        for p in endpoint.ports:
            key = f"{p.container_port}/{p.protocol}"
            found[key] = [*(found.get(key) or []), {"HostIp": p.host_address, "HostPort": str(p.host_port)}]
    return found


def endpoint(e: Endpoint) -> dict[str, Any]:
    """One entry of `NetworkSettings.Networks`."""
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": list(e.aliases),
        "MacAddress": e.mac,
        "NetworkID": e.network_id,
        "EndpointID": e.id,
        "Gateway": e.gateway,
        "IPAddress": e.address,
        "IPPrefixLen": e.prefix,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DriverOpts": {"moorage.rate.in": str(e.rate_in_bps), "moorage.rate.out": str(e.rate_out_bps)},
        "DNSNames": list(e.aliases),
    }


def networks(container: Container, endpoints: tuple[Endpoint, ...]) -> dict[str, Any]:
    """`NetworkSettings.Networks`; before a start the network asked for, without an address."""
    if endpoints:
        return {e.network: endpoint(e) for e in endpoints}
    mode = container.record.host.network_mode
    name = "bridge" if mode == "default" else mode
    blank = Endpoint(
        id="",
        container_id=container.id,
        network_id="",
        network=name,
        address="",
        prefix=0,
        gateway="",
        mac="",
        host_link="",
    )
    return {name: endpoint(blank)}


def details(container: Container, endpoints: tuple[Endpoint, ...], execs: list[str], driver: str) -> dict[str, Any]:
    """GET /containers/{id}/json."""
    record = container.record
    args = record.process.args
    first = endpoints[0] if endpoints else None
    return {
        "Id": record.id,
        "Created": rfc3339(record.created_ns),
        "Path": args[0],
        "Args": list(args[1:]),
        "State": state(container),
        "Image": record.image_id,
        "ResolvConfPath": str(container.folder / "resolv.conf"),
        "HostnamePath": str(container.folder / "hostname"),
        "HostsPath": str(container.folder / "hosts"),
        "LogPath": str(container.log),
        "Name": f"/{record.name}",
        "RestartCount": container.life.restarts,
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs or None,
        "HostConfig": host_config(record.host),
        "GraphDriver": {"Data": None, "Name": driver},
        "Mounts": mounts(container),
        "Config": config(container),
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": record.id if endpoints else "",
            "SandboxKey": "",
            "Ports": ports(endpoints, record.process.exposed_ports),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": first.id if first else "",
            "Gateway": first.gateway if first else "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "IPAddress": first.address if first else "",
            "IPPrefixLen": first.prefix if first else 0,
            "IPv6Gateway": "",
            "MacAddress": first.mac if first else "",
            "Networks": networks(container, endpoints),
        },
        "Moorage": {
            "IdBase": record.id_base,
            "Capabilities": list(capabilities(record)),
            "Cgroup": container.cgroup,
        },
    }


def row(container: Container, endpoints: tuple[Endpoint, ...], size: int | None) -> dict[str, Any]:
    """One row of GET /containers/json."""
    record = container.record
    listed = []
    for e in endpoints:
        for p in e.ports:
            listed.append(
                {"IP": p.host_address, "PrivatePort": p.container_port, "PublicPort": p.host_port, "Type": p.protocol}
            )
    for text in record.process.exposed_ports:
        port, _, kind = text.partition("/")
        if not any(x["PrivatePort"] == int(port) and x["Type"] == kind for x in listed):
            listed.append({"PrivatePort": int(port), "Type": kind})
    found: dict[str, Any] = {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.config.image,
        "ImageID": record.image_id,
        "Command": " ".join(record.process.args),
        "Created": record.created_ns // 10**9,
        "Ports": listed,
        "Labels": record.process.labels,
        "State": container.state.value,
        "Status": status_words(container),
        "HostConfig": {"NetworkMode": record.host.network_mode},
        "NetworkSettings": {"Networks": networks(container, endpoints)},
        "Mounts": mounts(container),
    }
    if size is not None:
        found |= {"SizeRw": size, "SizeRootFs": size}
    return found


def matches(container: Container, filters: Filters, endpoints: tuple[Endpoint, ...]) -> bool:
    """Whether `ps --filter` shows it. `before` and `since` are looked at by the caller: they name other containers."""
    record = container.record
    image = record.config.image
    names = {e.network for e in endpoints} | {e.network_id for e in endpoints} | {record.host.network_mode}
    exited = container.state is State.EXITED and filters.exact("exited", str(container.life.exit_code))
    return (
        filters.prefix("id", record.id)
        and filters.pattern("name", record.name)
        and filters.labels(record.process.labels)
        and filters.exact("status", container.state.value)
        and filters.exact(
            "ancestor", image, image.partition(":")[0], record.image_id, record.image_id.removeprefix("sha256:")[:12]
        )
        and filters.exact("network", *names)
        and filters.exact("volume", *(name for v in record.host.volumes for name in (v.name, v.target)))
        and (exited or not filters.get("exited"))
        and filters.exact("health", container.health.status if container.health else NONE)
    )
