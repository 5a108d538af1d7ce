"""A desired instance as the body of `POST /containers/create`, and a container as the engine lists it. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from worker import limits as plan
from worker.protocol import (
    LABEL_APP,
    LABEL_PROCESS,
    LABEL_RELEASE,
    LABEL_SPEC,
    LABEL_TEAM,
    DesiredInstance,
    VolumeMount,
)

LABEL_RESTART = "moorage.restart_generation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of ours as the engine lists it. `name` is the instance's id; `state` is Docker's word."""

    id: str
    name: str
    state: str
    address: str = ""
    app: str = ""
    team: str = ""
    release: int = 0
    restart_generation: int = 0
    writes: frozenset[str] = frozenset()  # volumes it has for writing

    @classmethod
    def from_listing(cls, row: Mapping[str, Any]) -> Self | None:
        """One row of `GET /containers/json`; None for a container without our label, which is nobody's business here."""
        labels = row.get("Labels") or {}
        if LABEL_APP not in labels:
            return None
        networks = (row.get("NetworkSettings") or {}).get("Networks") or {}
        return cls(
            id=row["Id"],
            name=row["Names"][0].removeprefix("/"),
            state=row["State"],
            address=next((n["IPAddress"] for n in networks.values() if n.get("IPAddress")), ""),
            app=labels[LABEL_APP],
            team=labels.get(LABEL_TEAM, ""),
            release=_number(labels.get(LABEL_RELEASE)),
            restart_generation=_number(labels.get(LABEL_RESTART)),
            writes=frozenset(
                m["Name"]
                for m in row.get("Mounts") or ()
                if m.get("Type") == "volume" and m.get("RW") and m.get("Name")
            ),
        )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def image_reference(wanted: DesiredInstance) -> str:
    """`<repository>@<digest>`: what is pulled and what the container is made of."""
    return f"{wanted.image.repository}@{wanted.image.digest}"


def team_network(team: str) -> str:
    """Name of the bridge that joins one team's instances."""
    return f"team-{team}"


def environment(wanted: DesiredInstance) -> list[str]:
    """What the process finds in its environment; the platform's own names win over the app's."""
    own = {
        "PORT": str(wanted.port),
        "MOORAGE_APP": wanted.app,
        "MOORAGE_RELEASE": str(wanted.release),
        "MOORAGE_INSTANCE": wanted.id,
    }
    return [f"{name}={value}" for name, value in {**wanted.environment, **own}.items()]


def spec_digest(wanted: DesiredInstance) -> str:
    """Digest of the parts that need a new container; on the label `moorage.spec`, for people who look."""
    parts = (
        image_reference(wanted),
        wanted.entrypoint,
        wanted.command,
        sorted(wanted.environment.items()),
        wanted.port,
        *(dataclasses.astuple(mount) for mount in wanted.volumes),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def create_body(wanted: DesiredInstance) -> dict[str, Any]:
    """The create request. The restart policy is `no` until the deployment is live, so that a crash fails it at once."""
    network = team_network(wanted.team)
    body: dict[str, Any] = {
        "Image": image_reference(wanted),
        "Env": environment(wanted),
        "Labels": {
            LABEL_APP: wanted.app,
            LABEL_TEAM: wanted.team,
            LABEL_RELEASE: str(wanted.release),
            LABEL_PROCESS: wanted.process,
            LABEL_SPEC: spec_digest(wanted),
            LABEL_RESTART: str(wanted.restart_generation),
        },
        "ExposedPorts": {f"{wanted.port}/tcp": {}},
        "StopTimeout": wanted.grace_s,  # for every stop that is not the worker's own, such as `make down`
        "HostConfig": {
            **plan.resources(wanted.limits),
            "StorageOpt": plan.storage_options(wanted.limits),
            "LogConfig": {"Type": "", "Config": plan.log_options(wanted.limits)},
            "CgroupParent": f"{wanted.team}/{wanted.app}",
            "NetworkMode": network,
            "RestartPolicy": {"Name": "no"},
            "Mounts": [_mount(volume) for volume in wanted.volumes],
            "SecurityOpt": ["no-new-privileges"] if wanted.no_new_privs else [],
        },
        "NetworkingConfig": {
            "EndpointsConfig": {
                network: {
                    "Aliases": [f"{wanted.app}.internal", f"{wanted.process}.{wanted.app}.internal"],
                    "DriverOpts": plan.endpoint_options(wanted.limits),
                }
            }
        },
    }
    if wanted.entrypoint is not None:
        body["Entrypoint"] = list(wanted.entrypoint)
    if wanted.command is not None:
        body["Cmd"] = list(wanted.command)
    return body


def _mount(volume: VolumeMount) -> dict[str, Any]:
    options = {"Subpath": volume.subpath, "CreateSubpath": True} if volume.subpath else {}
    return {
        "Type": "volume",
        "Source": volume.name,
        "Target": volume.path,
        "ReadOnly": volume.read_only,
        "VolumeOptions": options,
    }


def update_body(wanted: DesiredInstance) -> dict[str, Any]:
    """What may change while the container runs: all limits, and the restart policy once the deployment is live.

    `unless-stopped` and not `always`: an app that was stopped must not come back with the engine.
    """
    return {**plan.resources(wanted.limits), "RestartPolicy": {"Name": "unless-stopped" if wanted.restart else "no"}}
