"""The folder of states: one below `--root` for each container, with its configuration, its state and its start gate."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.dataclass import dataclass
from runtime.errors import RuntimeFault
from runtime.kernel.cgroups import detect
from runtime.oci.spec import Spec
from runtime.oci.state import CONFIG, STATE, State

OCI_VERSION = "1.2.0"
GATE = "gate"
_ID = re.compile(r"[A-Za-z0-9_+.-]{1,1024}")
_BACKLOG = 8


class CommandFault(RuntimeFault):
    """A command that cannot be carried out."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the store, by its folder."""

    folder: Path

    @property
    def id(self) -> str:
        """Its name."""
        return self.folder.name

    def spec(self) -> Spec:
        """The configuration it was made from."""
        return Spec.read(self.folder / CONFIG)

    def state(self) -> State | None:
        """None while it is being created."""
        return State.read(self.folder)

    def status(self) -> str:
        """In the specification's words, and "paused"."""
        state = self.state()
        if state is None:
            return "creating"
        if not state.init.alive():
            return "stopped"
        if (self.folder / GATE).exists():
            return "created"
        return "paused" if state.cgroup and detect().frozen(state.cgroup) else "running"

    def to_json(self, status: str = "") -> dict[str, Any]:
        """The state as the specification has it; `status` replaces what it is now."""
        state, spec = self.state(), self.spec()
        status = status or self.status()
        found: dict[str, Any] = {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "pid": state.init.pid if state and status != "stopped" else 0,
            "status": status,
            "bundle": state.bundle if state else "",
            "rootfs": spec.root.path,
            "created": _rfc3339(state.created_ns) if state else "",
            "owner": "",
        }
        if spec.annotations:
            found["annotations"] = spec.annotations
        return found

    def listen(self) -> socket.socket:
        """The start gate: who connects starts the program."""
        gate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with _Folder(self.folder) as folder:
            gate.bind(f"{folder}/{GATE}")
        gate.listen(_BACKLOG)
        return gate

    def connect(self) -> socket.socket:
        """To the start gate; raises CommandFault when it was opened already, or its init has ended."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _Folder(self.folder) as folder:
                sock.connect(f"{folder}/{GATE}")
        except OSError as error:
            sock.close()
            raise CommandFault(f"The container {self.id} is {self.status()}, not created.") from error
        return sock

    def opened(self) -> None:
        """The gate is gone for good."""
        (self.folder / GATE).unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget it."""
        import shutil  # only now: it takes 5 ms to load

        shutil.rmtree(self.folder, ignore_errors=True)


class _Folder:
    """A short path of a folder for a unix socket, whose address ends at 107 bytes."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Store:
    """All containers below one root."""

    root: Path

    def check(self, name: str) -> str:
        """The id, if it is one; raises CommandFault."""
        if not _ID.fullmatch(name) or name in (".", ".."):
            raise CommandFault(f"{name!r} is no id for a container.", "Use letters, digits, and any of _ + - .")
        return name

    def reserve(self, name: str) -> Container:
        """A new container's folder; raises CommandFault for a name that is taken or is none."""
        self.check(name)
        self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        container = Container(self.root / name)
        try:
            container.folder.mkdir(mode=0o700)
        except FileExistsError as error:
            raise CommandFault(
                f"A container with the id {name} exists.", "Delete it first, or use another id."
            ) from error
        return container

    def get(self, name: str) -> Container:
        """A container that exists; raises CommandFault."""
        container = Container(self.root / self.check(name))
        if not (container.folder / CONFIG).exists():
            raise CommandFault(f"The container {name} does not exist.")
        return container

    def all(self) -> Iterator[Container]:
        """Every container, by name."""
        if self.root.is_dir():
            for folder in sorted(self.root.iterdir()):
                if (folder / CONFIG).exists() and (folder / STATE).exists():
                    yield Container(folder)

    def matching(self, pattern: str) -> list[Container]:
        """Those whose id a regular expression is found in."""
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            raise CommandFault(f"{pattern!r} is no regular expression: {error}.") from error
        return [container for container in self.all() if wanted.search(container.id)]


def dumps(value: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(value, indent=2)


def _rfc3339(at_ns: int) -> str:
    seconds, nanoseconds = divmod(at_ns, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09}Z"
