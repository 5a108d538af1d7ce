"""What can go wrong between a host and its neighbours, each with a sentence and the way out."""

from __future__ import annotations


class WorkerFault(Exception):
    """Base of the worker's errors. `message` is a sentence, `hint` the way out; shown once, at the boundary."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


class ConfigFault(WorkerFault):
    """An environment variable or a secret that cannot be used."""


class EngineFault(WorkerFault):
    """The engine refused, failed or did not answer."""


class PortalFault(WorkerFault):
    """The portal refused or did not answer; the last desired state stays in force."""


class IngressFault(WorkerFault):
    """HAProxy refused a command or is not there; its files are right already."""
