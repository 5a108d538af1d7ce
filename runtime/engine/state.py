"""The states of a container, and what each allows. Guards live here, once."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Docker's words for a container's state, as `inspect` and `ps` print them."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"

    @property
    def is_live(self) -> bool:
        """Whether a process exists."""
        return self in (State.RUNNING, State.PAUSED)

    @property
    def can_start(self) -> bool:
        """Whether `start` may make a process; a running one answers 304, the others 409."""
        return self in (State.CREATED, State.EXITED, State.RESTARTING, State.DEAD)

    @property
    def can_delete(self) -> bool:
        """Whether `rm` without force is granted."""
        return self in (State.CREATED, State.EXITED, State.DEAD)

    @property
    def can_exec(self) -> bool:
        """Whether a further process may be run inside."""
        return self is State.RUNNING
