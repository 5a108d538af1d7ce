"""What the engine answers when it refuses: one class a status, each with a sentence and the way out."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class EngineFault(RuntimeFault):
    """Base of the engine's own refusals; `status` is the HTTP status the API gives it."""

    status = 500


class Invalid(EngineFault):
    """The request itself is wrong."""

    status = 400


class Forbidden(EngineFault):
    """The request is understood and not granted on this engine."""

    status = 403


class NotFound(EngineFault):
    """No such container, image, network or exec."""

    status = 404


class Conflict(EngineFault):
    """The object is in a state, or a name is taken, that forbids the request."""

    status = 409


class NoRoom(EngineFault):
    """The store has no room for it now."""

    status = 507


class NotModified(EngineFault):
    """The object already is as asked; Docker answers 304 without a body."""

    status = 304


class Unsupported(EngineFault):
    """A part of Docker's API this engine does not have."""

    status = 501
