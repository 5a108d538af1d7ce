"""What the command line does for an init on its way: hooks of the host, its terminal, its notifying filter."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import field
from pathlib import Path

from runtime.dataclass import dataclass
from runtime.oci import handshake, hooks
from runtime.oci.command.console import Holder
from runtime.oci.command.store import OCI_VERSION, CommandFault, Container
from runtime.oci.spec import Spec


@dataclass(slots=True)
class Helper:
    """An Attendant. It is in the network namespace it was made in when hooks run, wherever the maker went meanwhile."""

    container: Container
    spec: Spec
    console_socket: Path | None = None
    holder: Holder | None = None
    _network: int = field(default_factory=lambda: os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def attend(self, message: handshake.Message, fds: list[int]) -> handshake.Message | None:
        """crew.Attendant."""
        if isinstance(message, handshake.AtHooks):
            os.setns(self._network, 0)
            hooks.run_all((*self.spec.hooks.prestart, *self.spec.hooks.create_runtime), self.state("creating"))
            return handshake.Hooked(self.state("creating"), self.state("created"))
        (fd,) = fds
        try:
            if isinstance(message, handshake.Terminal):
                self._give_terminal(fd)
            elif isinstance(message, handshake.Listener):
                self._give_listener(fd)
        finally:
            os.close(fd)
        return None

    def state(self, status: str) -> str:
        """What hooks are told."""
        return json.dumps(self.container.to_json(status))

    def _give_terminal(self, fd: int) -> None:
        if self.holder:
            self.holder.take(os.dup(fd))
        elif self.console_socket:
            give_terminal(self.console_socket, fd)
        else:
            raise CommandFault("The process wants a terminal and nobody is there to hold it.", "Give --console-socket.")

    def _give_listener(self, fd: int) -> None:
        """To the agent, with the state of the process (config-linux.md, "Container Process State")."""
        assert self.spec.linux.seccomp
        path = self.spec.linux.seccomp.listener_path
        state = self.container.to_json("creating")
        told = {"ociVersion": OCI_VERSION, "fds": ["seccompFd"], "pid": state["pid"], "state": state}
        if self.spec.linux.seccomp.listener_metadata:
            told["metadata"] = self.spec.linux.seccomp.listener_metadata
        with socket.socket(socket.AF_UNIX) as agent:
            try:
                agent.connect(path)
            except OSError as error:
                raise CommandFault(
                    f"No agent listens at {path}, linux.seccomp.listenerPath: {error.strerror}."
                ) from error
            socket.send_fds(agent, [json.dumps(told).encode()], [fd])


def give_terminal(path: Path, fd: int) -> None:
    """Send a terminal's other side to who asked for it; raises CommandFault."""
    with socket.socket(socket.AF_UNIX) as console:
        try:
            console.connect(str(path))
        except OSError as error:
            raise CommandFault(f"Nobody listens at the console socket {path}: {error.strerror}.") from error
        socket.send_fds(console, [b"/dev/ptmx"], [fd])
