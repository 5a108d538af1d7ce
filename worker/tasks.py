"""Tasks of a host's queue: short, safe to repeat, without arguments."""

from __future__ import annotations

from worker.app import TASK_ALIVE, TASK_CONVERGE, app, host


@app.task(name=TASK_CONVERGE)  # type: ignore[untyped-decorator]
def converge() -> None:
    """A hint from the portal: something may be new on this host."""
    host.hint()


@app.task(name=TASK_ALIVE)  # type: ignore[untyped-decorator]
def alive() -> None:
    """This worker's own sign that it still hears."""
    host.heard_now()
