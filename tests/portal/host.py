"""A host as the portal sees one: it fetches what is desired and posts reports, through the HTTP door, with its token."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import connections
from django.test import Client

from portal.fleet.access import token_digest
from portal.fleet.models import Host
from worker.protocol import Desired, DesiredInstance, HostFacts, Observed, ObservedInstance, Report

FACTS = HostFacts(
    cpu_millicores=8000, memory_bytes=64 << 30, disk_bytes=1 << 40, disk_free_bytes=1 << 39, engine_version="test"
)


@dataclass
class HostDriver:
    """Carries nothing out; says what a test tells it to have seen."""

    name: str = "local"
    token: str = "host-token"
    client: Client = field(default_factory=Client)
    desired: Desired | None = None
    seen: dict[str, ObservedInstance] = field(default_factory=dict)
    takes_routes: bool = True
    route_generation: int = 0

    @classmethod
    def register(cls, name: str = "local") -> HostDriver:
        """The host's row, and a first report with its facts."""
        token = f"token-of-{name}"
        Host.objects.update_or_create(name=name, defaults={"token_digest": token_digest(token)})
        driver = cls(name=name, token=token)
        driver.report(facts=True)
        return driver

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def fetch(self) -> Desired | None:
        """GET desired; None for 304."""
        tag = f'"{self.desired.generation}"' if self.desired else ""
        answer = self.client.get(
            f"/internal/v1/hosts/{self.name}/desired", headers={**self._headers(), "If-None-Match": tag}
        )
        if answer.status_code == 304:
            return None
        assert answer.status_code == 200, answer.content
        self.desired = Desired.from_json(answer.json())
        return self.desired

    def report(self, *, facts: bool = False, complete: bool = True) -> dict[str, Any]:
        """POST a report of everything seen; takes over the desired state in the answer."""
        if self.desired is not None and self.takes_routes:
            self.route_generation = self.desired.route_generation
        report = Report(
            host=self.name,
            generation=self.desired.generation if self.desired else "",
            route_generation=self.route_generation,
            instances=tuple(self.seen.values()),
            complete=complete,
            facts=FACTS if facts else None,
        )
        answer = self.client.post(
            f"/internal/v1/hosts/{self.name}/report",
            json.dumps(report.to_json()),
            content_type="application/json",
            headers=self._headers(),
        )
        assert answer.status_code == 200, answer.content
        body: dict[str, Any] = answer.json()
        if body["desired"] is not None:
            self.desired = Desired.from_json(body["desired"])
        return body

    def see(self, instance: str, state: Observed, **more: Any) -> None:
        """From now on this instance looks so."""
        self.seen[instance] = ObservedInstance(id=instance, state=state, address="10.0.0.2", port=8080, **more)

    def wanted(self, app: str = "", wanted: str = "running") -> list[DesiredInstance]:
        """The instances that should be so, by the last desired state."""
        assert self.desired is not None
        rows = [i for i in self.desired.instances if i.wanted == wanted]
        return [i for i in rows if not app or i.app == app]

    def carry_out(self, state: Observed = "healthy") -> None:
        """Make everything wanted look `state`, forget what should go, and report until nothing new comes back."""
        self.fetch()
        for _ in range(6):
            assert self.desired is not None
            running = {i.id for i in self.desired.instances if i.wanted == "running"}
            self.seen = {name: row for name, row in self.seen.items() if name in running}
            for name in running:
                self.see(name, state)
            if self.report()["desired"] is None:
                return

    def routed(self, app: str) -> tuple[str, ...]:
        """The instances in the app's route, by the last desired state."""
        assert self.desired is not None
        return next((route.instances for route in self.desired.routes if route.app == app), ())


class HostThread(threading.Thread):
    """A host that goes on reporting by itself: what is wanted looks as `judge` says."""

    def __init__(self, driver: HostDriver, judge: Callable[[DesiredInstance], dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self.driver, self.judge, self.stopping = driver, judge, threading.Event()

    def run(self) -> None:
        """Fetch and report until stopped."""
        try:
            while not self.stopping.wait(0.05):
                self.driver.fetch()
                self.driver.seen = {}
                for instance in self.driver.wanted():
                    self.driver.see(instance.id, **self.judge(instance))
                self.driver.report()
        finally:
            connections.close_all()

    def __enter__(self) -> HostThread:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self.join(20)
        assert not self.is_alive()
