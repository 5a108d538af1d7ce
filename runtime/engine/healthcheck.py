"""HEALTHCHECK: what is asked for, and what follows from each probe. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from runtime.engine.errors import Invalid
from runtime.engine.fields import Fields
from runtime.engine.units import rfc3339
from runtime.images.format import Healthcheck

INTERVAL_S, TIMEOUT_S, START_INTERVAL_S, RETRIES = 30.0, 30.0, 5.0, 3
SHELL = ("/bin/sh", "-c")
KEPT = 5  # probes that `inspect` shows
OUTPUT_BYTES = 4096
NONE, STARTING, HEALTHY, UNHEALTHY = "none", "starting", "healthy", "unhealthy"
_MAX_NS = 1 << 62
_TIMES = (
    ("Interval", "interval_ns"),
    ("Timeout", "timeout_ns"),
    ("StartPeriod", "start_period_ns"),
    ("StartInterval", "start_interval_ns"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Docker's `Healthcheck`. `test` begins with NONE, CMD or CMD-SHELL; zeros, and an empty test, are "as the image says"."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0

    @property
    def runs(self) -> bool:
        """Whether there is anything to run."""
        return len(self.test) > 1

    @property
    def timeout_s(self) -> float:
        """How long a probe may take."""
        return self.timeout_ns / 1e9 or TIMEOUT_S

    def args(self, shell: tuple[str, ...]) -> tuple[str, ...]:
        """The command line of a probe; `shell` is the image's, if it names one."""
        return (*(shell or SHELL), self.test[1]) if self.test[0] == "CMD-SHELL" else self.test[1:]

    def to_docker(self) -> dict[str, Any]:
        """As `inspect` shows it."""
        found: dict[str, Any] = {"Test": list(self.test)}
        found |= {key: getattr(self, name) for key, name in _TIMES if getattr(self, name)}
        return found | ({"Retries": self.retries} if self.retries else {})


def parse_check(f: Fields) -> Check:
    """The check of a create call; raises Invalid in Docker's words."""
    test = f.texts("Test", limit=256) or ()
    if test and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise Invalid(f"Unknown healthcheck type {test[0][:64]!r}.", "Begin Test with NONE, CMD or CMD-SHELL.")
    if (test and test[0] != "NONE" and len(test) == 1) or (test[:1] == ("CMD-SHELL",) and len(test) > 2):
        raise Invalid(f"Test of the health check has {len(test) - 1} commands after {test[0]}.", "Give one.")
    times = {name: f.integer(key, low=0, high=_MAX_NS) for key, name in _TIMES}
    for key, name in _TIMES:
        if 0 < times[name] < 10**6:
            raise Invalid(f"{key} in Healthcheck cannot be less than 1ms.")
    return Check(test=test, retries=f.integer("Retries", low=0, high=1_000_000), **times)


def merged(asked: Check | None, image: Healthcheck | None) -> Check | None:
    """What a container is checked by: the request's values, where it has none the image's. None when neither asks for it."""
    own = asked or Check()
    if image is None:
        return own if own.test else None
    found = own if own.test else replace(own, test=image.test)
    lacking = {name: getattr(image, name) for _, name in _TIMES if not getattr(own, name)}
    return replace(found, retries=own.retries or image.retries, **lacking) if found.test else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One run of the check; `code` is -1 when it did not end in time or could not be started."""

    start_ns: int
    end_ns: int
    code: int
    output: str

    def to_docker(self) -> dict[str, Any]:
        """One entry of the log."""
        times = {"Start": rfc3339(self.start_ns), "End": rfc3339(self.end_ns)}
        return {**times, "ExitCode": self.code, "Output": self.output}


@dataclass(slots=True)
class Health:
    """How a container fares."""

    status: str = STARTING
    streak: int = 0
    log: deque[Probe] = field(default_factory=lambda: deque(maxlen=KEPT))

    def take(self, probe: Probe, check: Check, started_ns: int) -> bool:
        """Draw the conclusion from a probe, by Docker's rules; whether the status changed.

        Until the first success failures within the start period do not count."""
        before = self.status
        self.log.append(probe)
        if probe.code == 0:
            self.status, self.streak = HEALTHY, 0
        elif self.status != STARTING or probe.start_ns - started_ns >= check.start_period_ns:
            self.streak += 1
            if self.streak >= (check.retries or RETRIES):
                self.status = UNHEALTHY
        return self.status != before

    def wait_s(self, check: Check, up_s: float) -> float:
        """How long to wait for the next probe of one that has run for `up_s`."""
        if self.status == STARTING and up_s < check.start_period_ns / 1e9:
            return check.start_interval_ns / 1e9 or START_INTERVAL_S
        return check.interval_ns / 1e9 or INTERVAL_S

    def to_docker(self) -> dict[str, Any]:
        """`State.Health` of inspect."""
        return {"Status": self.status, "FailingStreak": self.streak, "Log": [p.to_docker() for p in self.log]}
