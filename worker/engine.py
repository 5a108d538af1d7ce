"""The host's engine through the Docker SDK: every call with a deadline, every refusal an `EngineFault` with its sentence.

The SDK costs 19 MB: only `worker.converge` imports this module, never the agent.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions

from worker import limits as plan
from worker.container import Container, create_body, image_reference, team_network, update_body
from worker.errors import EngineFault
from worker.protocol import (
    LABEL_APP,
    LABEL_TEAM,
    DesiredInstance,
    DesiredVolume,
    GroupLimits,
    HostFacts,
    Limits,
    ObservedVolume,
)
from worker.pruning import HostImage, host_image

CALL_TIMEOUT_S = 20.0
PULL_SILENCE_S = 120.0  # a pull tells of its progress all the time; longer silence is a failure
LAST_LOG_LINES = 20
LINE_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """How a container is or ended. Times as the engine writes them (RFC 3339)."""

    id: str
    status: str
    address: str
    exit_code: int
    oom_killed: bool
    restarts: int
    started_at: str
    finished_at: str
    error: str
    sentence: str  # the engine's own words where the exit code does not say it


class Engine:
    """One engine. Its methods block and may be called from several threads; the connection is made at the first of them."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._lock = threading.Lock()
        self._client: Any = None
        self._networks: set[str] = set()
        self._removing = threading.Lock()  # who asks for an image is told the truth of it until it is wanted no more

    def _api(self) -> Any:
        with self._lock:
            if self._client is None:
                with _faults("connect"):
                    self._client = docker.APIClient(
                        base_url=f"unix://{self._socket}", version="1.44", timeout=int(CALL_TIMEOUT_S), max_pool_size=32
                    )
            return self._client

    def containers(self) -> list[Container]:
        """All of ours, running or not; a container without the label moorage.app is not seen at all."""
        api = self._api()
        with _faults("list containers"):
            rows = api.containers(all=True, filters={"label": [LABEL_APP]})
        return [c for row in rows if (c := Container.from_listing(row))]

    def inspect(self, name: str) -> Inspection:
        """One container; raises EngineFault when it is not there."""
        api = self._api()
        with _faults(f"inspect {name}"):
            found = api.inspect_container(name)
        state = found["State"]
        networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
        return Inspection(
            id=found["Id"],
            status=state["Status"],
            address=next((n["IPAddress"] for n in networks.values() if n.get("IPAddress")), ""),
            exit_code=state.get("ExitCode", 0),
            oom_killed=bool(state.get("OOMKilled")),
            restarts=found.get("RestartCount", 0),
            started_at=state.get("StartedAt", ""),
            finished_at=state.get("FinishedAt", ""),
            error=state.get("Error", ""),
            sentence=(state.get("Moorage") or {}).get("sentence") or "",
        )

    def images(self) -> list[HostImage]:
        """All images on the host."""
        api = self._api()
        with _faults("list images"):
            return [host_image(row) for row in api.images()]

    def remove_image(self, identity: str, needed: Callable[[], bool]) -> bool:
        """Remove an image with its names; False when it is needed after all, by a container too, or gone already."""
        api = self._api()
        with self._removing, _faults(f"remove the image {identity[:19]}"):
            try:
                if needed():
                    return False
                api.remove_image(identity, force=True)
            except docker.errors.APIError as error:
                if error.status_code not in (404, 409):
                    raise
                return False
        return True

    def has_image(self, wanted: DesiredInstance) -> bool:
        """Whether the image is on the host, by digest, and not just being removed."""
        api = self._api()
        with self._removing, _faults("look for the image"):
            try:
                api.inspect_image(image_reference(wanted))
            except docker.errors.NotFound:
                return False
        return True

    def pull(self, wanted: DesiredInstance, progress: Callable[[int], None]) -> None:
        """Pull by digest with the short token; `progress` hears of bytes so far. Raises EngineFault with the engine's words."""
        api = self._api()
        auth = base64.urlsafe_b64encode(json.dumps({"registrytoken": wanted.image.pull_token}).encode()).decode()
        layers: dict[str, int] = {}
        with _faults(f"pull {wanted.image.digest[:19]}"):
            answer = api.post(  # not `APIClient.pull`: that one has no deadline
                f"{api.base_url}/v{api.api_version}/images/create",
                params={"fromImage": wanted.image.repository, "tag": wanted.image.digest},
                headers={"X-Registry-Auth": auth},
                stream=True,
                timeout=PULL_SILENCE_S,
            )
            with answer:
                if answer.status_code >= 400:
                    raise EngineFault(f"pull failed: {_message(answer)}")
                for line in answer.iter_lines():
                    row = json.loads(line) if line else {}
                    if row.get("error"):
                        raise EngineFault(f"pull failed: {row['error']}")
                    done = (row.get("progressDetail") or {}).get("current")
                    if done:
                        layers[row.get("id", "")] = done
                        progress(sum(layers.values()))

    def create(self, wanted: DesiredInstance) -> str:
        """Create the container (and its team's network before it) and answer its id; an existing one of that name is taken."""
        api = self._api()
        self.ensure_network(wanted.team)
        for volume in wanted.volumes:  # the engine would make a missing one, without a size
            with _faults(f"find the volume {volume.name}"):
                api.inspect_volume(volume.name)
        with _faults(f"create {wanted.id}"):
            try:
                return str(api.create_container_from_config(create_body(wanted), name=wanted.id)["Id"])
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
        return self.inspect(wanted.id).id

    def ensure_network(self, team: str) -> None:
        """The team's bridge, made at its first instance; two callers at once are fine."""
        name, api = team_network(team), self._api()
        if name in self._networks:
            return
        with _faults(f"make the network {name}"):
            if not any(n["Name"] == name for n in api.networks(names=[name])):
                try:
                    api.create_network(name, driver="bridge", labels={"moorage.team": team})
                except docker.errors.APIError as error:
                    if error.status_code != 409:
                        raise
        self._networks.add(name)

    def volumes(self) -> list[ObservedVolume]:
        """The volumes that the portal asked for, with what they use."""
        api = self._api()
        with _faults("list volumes"):
            rows = api.df().get("Volumes") or ()
        return [
            ObservedVolume(
                name=row["Name"],
                size_bytes=int((row.get("Options") or {}).get("size") or 0),
                used_bytes=int(row["UsageData"]["Size"]),
            )
            for row in rows
            if LABEL_TEAM in (row.get("Labels") or {})
        ]

    def make_volume(self, volume: DesiredVolume) -> None:
        """Make a volume of that size; one that is there is fine."""
        api = self._api()
        with _faults(f"make the volume {volume.name}"):
            api.create_volume(
                volume.name, driver_opts={"size": str(volume.size_bytes)}, labels={LABEL_TEAM: volume.team}
            )

    def resize_volume(self, volume: DesiredVolume) -> None:
        """Another size, while it is in use."""
        self._post(f"/moorage/volumes/{volume.name}", f"resize {volume.name}", body={"size": volume.size_bytes})

    def remove_volume(self, name: str) -> None:
        """Remove it with all that is in it; a missing one is fine."""
        api = self._api()
        with _faults(f"remove the volume {name}"):
            api.remove_volume(name, force=True)

    def start(self, name: str) -> None:
        """Start; a running container is fine. A network that was removed meanwhile is made again at the next create."""
        api = self._api()
        with _faults(f"start {name}"):
            try:
                api.start(name)
            except Exception:
                self._networks.clear()
                raise

    def stop(self, name: str, grace_s: int) -> None:
        """The image's stop signal, then SIGKILL after `grace_s`; a stopped or missing container is fine."""
        self._post(
            f"/containers/{name}/stop?t={grace_s}", f"stop {name}", timeout_s=grace_s + CALL_TIMEOUT_S, fine=(304, 404)
        )

    def remove(self, name: str) -> None:
        """Remove with its anonymous volumes; a missing container is fine."""
        api = self._api()
        with _faults(f"remove {name}"):
            try:
                api.remove_container(name, v=True, force=True)
            except docker.errors.NotFound:
                return

    def update(self, wanted: DesiredInstance) -> None:
        """Set limits and restart policy on the container, running or not."""
        self._post(f"/containers/{wanted.id}/update", f"update {wanted.id}", body=update_body(wanted))

    def set_group(self, group: GroupLimits) -> None:
        """Limits of a team's or an app's cgroup."""
        body = {"Path": group.path, **_group_resources(group.limits)}
        self._post("/moorage/groups", f"limit the group {group.path}", body=body)

    def last_log(self, name: str, lines: int = LAST_LOG_LINES) -> tuple[str, ...]:
        """The last lines, oldest first, each cut at 500 characters."""
        api = self._api()
        with _faults(f"read the log of {name}"):
            data: bytes = api.logs(name, stdout=True, stderr=True, tail=lines)
        return tuple(line[:LINE_CHARACTERS] for line in data.decode(errors="replace").splitlines()[-lines:])

    def facts(self, pool: str = "") -> HostFacts:
        """What the host offers; disk figures are those of the state's file system and left to the caller."""
        api = self._api()
        with _faults("ask for its facts"):
            info = api.info()
        return HostFacts(
            cpu_millicores=int(info.get("NCPU", 0)) * 1000,
            memory_bytes=int(info.get("MemTotal", 0)),
            engine_version=str(info.get("ServerVersion", "")),
            kernel=str(info.get("KernelVersion", "")),
            cgroup_version=int(info.get("CgroupVersion") or 0),
            storage_driver=str(info.get("Driver", "")),
            network_pool=pool,
        )

    def _post(
        self,
        path: str,
        doing: str,
        *,
        body: object = None,
        timeout_s: float = CALL_TIMEOUT_S,
        fine: tuple[int, ...] = (),
    ) -> None:
        api = self._api()
        with _faults(doing):
            answer = api.post(f"{api.base_url}/v{api.api_version}{path}", json=body, timeout=timeout_s)
            if answer.status_code >= 400 and answer.status_code not in fine:
                raise EngineFault(f"The engine refused to {doing}: {_message(answer)}")


def _group_resources(limits: Limits) -> dict[str, Any]:
    """Limits of a group; what only an instance has (disk size, network, log) is left out."""
    found = plan.resources(limits)
    return {
        key: value for key, value in found.items() if key not in ("DiskSize", "RateIn", "RateOut", "LogRate", "LogSize")
    }


def _message(answer: Any) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"


@contextmanager
def _faults(doing: str) -> Iterator[None]:
    """Turn what the SDK and the socket raise into one `EngineFault` whose sentence carries the engine's own words."""

    try:
        yield
    except docker.errors.APIError as error:
        raise EngineFault(f"The engine refused to {doing}: {error.explanation or error}") from error
    except requests.exceptions.Timeout as error:
        raise EngineFault(f"The engine did not answer in time when asked to {doing}.") from error
    except (requests.exceptions.RequestException, docker.errors.DockerException, OSError, ValueError) as error:
        raise EngineFault(
            f"The engine could not be reached to {doing}.", f"Is it running? ({type(error).__name__})"
        ) from error
