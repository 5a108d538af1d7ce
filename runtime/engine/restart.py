"""Whether and when the engine starts a container again by itself. Pure."""

from __future__ import annotations

from runtime.engine.request import RestartPolicy

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
GOOD_RUN_S = 10.0


def restart_delay_s(
    policy: RestartPolicy, *, code: int, restarts: int, stopped_by_user: bool, ran_s: float, failures: int
) -> float | None:
    """Seconds until the next start, None for no restart.

    `restarts` counts those so far, `failures` the short runs in a row: the wait doubles with each, from 0.1 s to a minute,
    and begins anew after a run of 10 s, as Docker's."""
    if stopped_by_user or policy.name == "no":
        return None
    if policy.name == "on-failure" and (code == 0 or (policy.retries and restarts >= policy.retries)):
        return None
    if ran_s >= GOOD_RUN_S:
        return FIRST_DELAY_S
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * float(1 << min(failures, 16)))


def survives_engine(policy: RestartPolicy, *, code: int, restarts: int, stopped_by_user: bool) -> bool:
    """Whether a container that was found ended when the engine came back is started: `always` even after a stop by hand."""
    if policy.name == "always":
        return True
    delay = restart_delay_s(policy, code=code, restarts=restarts, stopped_by_user=stopped_by_user, ran_s=0, failures=0)
    return delay is not None


def left_s(due_ns: int, now_ns: int) -> float:
    """Seconds of a wait that began under an earlier engine; a clock that was set meanwhile makes it no longer than the longest."""
    return min(LONGEST_DELAY_S, max(0.0, (due_ns - now_ns) / 1e9))
