"""The convergence against the real engine: what the portal wants becomes true, and what goes wrong is said."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.root.worker.conftest import Rig
from tests.worker.platform import SmallPortal
from worker.engine import Engine
from worker.memory import Memory
from worker.protocol import GroupLimits, HealthCheck, ImageRef, Limits, Report, Route
from worker.prune import prune
from worker.pruning import UNUSED_KEPT_S

pytestmark = pytest.mark.root


def route(*instances: str, page: str = "starting") -> tuple[Route, ...]:
    return (Route(app="hello", names=("hello.localhost",), instances=instances, page=page),)  # type: ignore[arg-type]


def go_live(rig: Rig, name: str = "") -> str:
    """One instance, healthy, routed and restarted by the engine from now on; its id."""
    instance = rig.instance(name)
    rig.portal.want(instance)
    rig.worker.hint()
    rig.portal.wait_state(instance.id, "healthy")
    rig.portal.want(replace(instance, restart=True), routes=route(instance.id))
    generation = rig.portal.desired.route_generation
    rig.worker.hint()
    rig.portal.wait(lambda r: r.route_generation == generation)
    return instance.id


def test_an_instance_comes_up_is_routed_and_answers_under_its_name(rig: Rig) -> None:
    name = go_live(rig)
    status, body, _ = rig.ingress.get("hello.localhost", "/env")
    assert status == 200
    assert f"MOORAGE_INSTANCE={name}" in body
    seen = rig.portal.seen(name)
    assert seen and seen.address and seen.port == 8080 and seen.container_id


def test_the_healthy_report_brings_the_route_in_the_same_breath(rig: Rig) -> None:
    instance = rig.instance()

    def advance(portal: SmallPortal, report: Report) -> None:
        if any(o.state == "healthy" for o in report.instances) and not portal.desired.routes:
            portal.want(replace(instance, restart=True), routes=route(instance.id))

    rig.portal.answer = advance
    rig.portal.want(instance, routes=())
    first = time.monotonic()
    rig.worker.hint()
    rig.portal.wait(lambda r: r.route_generation == 1)
    healthy = next(at for at, r in rig.portal.reports if any(o.state == "healthy" for o in r.instances))
    routed = next(at for at, r in rig.portal.reports if r.route_generation == 1)
    print(f"hint to healthy {healthy - first:.3f} s, healthy to routed {routed - healthy:.3f} s")
    assert rig.ingress.get("hello.localhost")[0] == 200
    assert routed - healthy < 0.5


def test_the_limits_of_the_plan_reach_the_container_and_change_while_it_runs(rig: Rig) -> None:
    instance = rig.instance()
    rig.portal.want(instance)
    rig.worker.hint()
    rig.portal.wait_state(instance.id, "healthy")
    before = rig.engine.client().inspect_container(instance.id)
    assert before["HostConfig"]["Memory"] == 64 << 20
    assert before["HostConfig"]["NanoCpus"] == 500_000_000
    assert before["HostConfig"]["CgroupParent"].strip("/") == "acme/hello"
    larger = replace(
        instance.limits, memory_bytes=96 << 20, cpu_millicores=750, disk_bytes=128 << 20, net_out_bps=8_000_000
    )
    rig.portal.want(
        replace(instance, limits=larger), groups=(GroupLimits(path="acme", limits=Limits(memory_bytes=1 << 30)),)
    )
    rig.worker.hint()
    deadline = time.monotonic() + 5
    while (now := rig.engine.client().inspect_container(instance.id))["HostConfig"]["Memory"] != 96 << 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert now["HostConfig"]["NanoCpus"] == 750_000_000
    assert now["HostConfig"]["DiskSize"] == 128 << 20
    assert now["HostConfig"]["RateOut"] == 8_000_000
    assert now["State"]["StartedAt"] == before["State"]["StartedAt"]


def test_limits_that_are_refused_are_said_until_they_can_be_had(rig: Rig) -> None:
    instance = rig.instance()
    rig.portal.want(instance)
    rig.worker.hint()
    rig.portal.wait_state(instance.id, "healthy")
    rig.portal.want(replace(instance, limits=replace(instance.limits, disk_bytes=1 << 50, pids=32)))
    rig.worker.hint()
    rig.portal.wait(lambda r: any(o.reason.startswith("New limits were refused: ") for o in r.instances))
    assert rig.portal.seen(instance.id).state == "healthy"
    rig.portal.want(replace(instance, limits=replace(instance.limits, pids=32)))
    rig.worker.hint()
    rig.portal.wait(lambda r: all(o.reason == "" for o in r.instances))
    assert rig.engine.client().inspect_container(instance.id)["HostConfig"]["PidsLimit"] == 32


def test_an_app_that_crashes_fails_at_once_with_its_code_and_its_last_words(rig: Rig) -> None:
    instance = rig.instance(command=("sh", "-c", "echo starting; echo no database >&2; exit 3"), entrypoint=())
    rig.portal.want(instance)
    begun = time.monotonic()
    rig.worker.hint()
    seen = rig.portal.wait_state(instance.id, "exited")
    assert time.monotonic() - begun < 10
    assert seen.exit_code == 3
    assert "exited with 3" in seen.reason
    assert "no database" in "\n".join(seen.last_log)


def test_an_app_that_listens_nowhere_fails_at_its_deadline_and_is_told_where_to_listen(rig: Rig) -> None:
    instance = rig.instance(command=("sleep", "60"), entrypoint=(), health=HealthCheck(deadline_s=1.5))
    rig.portal.want(instance)
    rig.worker.hint()
    seen = rig.portal.wait_state(instance.id, "failed")
    assert "port 8080 after 1.5 s: connection refused" in seen.reason
    assert "$PORT" in seen.reason


def test_an_image_that_is_not_there_fails_with_a_sentence(rig: Rig) -> None:
    missing = ImageRef(
        repository=f"127.0.0.1:{rig.portal.port}/acme/hello", digest="sha256:" + "0" * 64, pull_token="pull-token"
    )
    instance = rig.instance(image=missing)
    rig.portal.want(instance)
    rig.worker.hint()
    seen = rig.portal.wait_state(instance.id, "failed")
    assert "pull" in seen.reason


def test_a_memory_hog_is_reported_as_killed_for_memory(rig: Rig) -> None:
    hog = "x=a; while :; do x=$x$x; done"
    instance = rig.instance(command=("sh", "-c", hog), entrypoint=(), limits=Limits(memory_bytes=16 << 20))
    rig.portal.want(instance)
    rig.worker.hint()
    seen = rig.portal.wait_state(instance.id, "exited")
    assert seen.oom_killed
    assert "16 MB of 16 MB" in seen.reason


def test_an_old_instance_is_drained_and_removed_and_no_request_is_lost(rig: Rig) -> None:
    old = go_live(rig)
    new = rig.instance()
    keep = next(i for i in rig.portal.desired.instances if i.id == old)
    rig.portal.want(keep, new)
    rig.worker.hint()
    rig.portal.wait_state(new.id, "healthy")
    rig.portal.want(replace(keep, wanted="draining"), replace(new, restart=True), routes=route(new.id))
    rig.worker.hint()
    deadline = time.monotonic() + 15
    answers = []
    while rig.portal.seen(old):
        answers.append(rig.ingress.get("hello.localhost")[0])
        assert time.monotonic() < deadline
    assert set(answers) == {200}
    rig.portal.wait_absent(old)
    assert [c["Names"] for c in rig.engine.client().containers(all=True)] == [[f"/{new.id}"]]


def test_stop_keeps_the_container_and_start_brings_it_back(rig: Rig) -> None:
    name = go_live(rig)
    live = rig.portal.desired.instances[0]
    rig.portal.want(replace(live, wanted="stopped"), routes=route(page="stopped"))
    rig.worker.hint()
    rig.portal.wait_state(name, "stopped")
    assert "is stopped" in rig.ingress.get("hello.localhost")[1]
    rig.portal.want(live, routes=route(name))
    rig.worker.hint()
    rig.portal.wait_state(name, "healthy")
    assert rig.ingress.get("hello.localhost")[0] == 200


def test_restart_happens_once_for_each_generation_also_over_a_new_worker(rig: Rig) -> None:
    name = go_live(rig)
    live = rig.portal.desired.instances[0]
    first = rig.engine.client().inspect_container(name)["State"]["StartedAt"]
    rig.portal.want(replace(live, restart_generation=1))
    rig.worker.hint()
    deadline = time.monotonic() + 15
    while (second := rig.engine.client().inspect_container(name)["State"])["StartedAt"] == first or not second[
        "Running"
    ]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    rig.portal.wait_state(name, "healthy")
    second = rig.engine.client().inspect_container(name)["State"]
    count = len(rig.portal.reports)
    rig.worker.stop()
    rig.worker.start()
    rig.portal.wait(lambda _: len(rig.portal.reports) > count)
    rig.worker.hint()
    time.sleep(0.5)
    assert rig.engine.client().inspect_container(name)["State"]["StartedAt"] == second["StartedAt"]


def test_a_live_app_that_crashes_is_restarted_by_the_engine_and_serves_again(rig: Rig) -> None:
    name = go_live(rig)
    os.kill(rig.engine.client().inspect_container(name)["State"]["Pid"], signal.SIGKILL)
    rig.portal.wait(lambda r: any(o.id == name and o.restarts >= 1 and o.state == "healthy" for o in r.instances))
    assert rig.ingress.get("hello.localhost")[0] == 200


def test_a_container_that_is_not_ours_is_never_touched(rig: Rig) -> None:
    name = go_live(rig)
    api = rig.engine.client()
    image = api.inspect_container(name)["Image"]
    other = api.create_container(image, ["sleep", "60"], entrypoint=[], name="somebody-elses")["Id"]
    rig.portal.want(routes=())
    rig.worker.hint()
    rig.portal.wait_absent(name)
    assert [c["Id"] for c in api.containers(all=True)] == [other]
    api.remove_container(other, force=True)


def test_apps_serve_on_while_worker_portal_and_engine_are_away(rig: Rig) -> None:
    name = go_live(rig)
    rig.worker.stop()
    rig.engine.kill()
    assert rig.ingress.get("hello.localhost")[0] == 200
    rig.engine.start()
    count = len(rig.portal.reports)
    rig.worker.start()
    rig.portal.wait(lambda r: len(rig.portal.reports) > count and any(o.id == name for o in r.instances))
    later = [o.state for _, r in rig.portal.reports[count:] for o in r.instances if o.id == name]
    assert set(later) == {"healthy"}
    assert rig.ingress.get("hello.localhost")[0] == 200


def test_an_instance_whose_health_fails_leaves_the_route_and_comes_back(rig: Rig) -> None:
    check = HealthCheck(kind="tcp", interval_s=0.2, unhealthy_after=2, timeout_s=0.3)
    instance = rig.instance(health=check)
    rig.portal.want(instance, routes=route(instance.id))
    rig.worker.hint()
    rig.portal.wait_state(instance.id, "healthy")
    assert rig.worker.converger
    rig.worker.converger._told(instance.id, "3 checks in a row failed: status 500 on port 8080.")
    seen = rig.portal.wait_state(instance.id, "unhealthy")
    assert "status 500" in seen.reason
    rig.portal.wait_state(instance.id, "healthy")
    assert rig.ingress.get("hello.localhost")[0] == 200


def test_an_image_that_nothing_needs_leaves_the_host_and_comes_back_when_it_is_wanted(rig: Rig, tmp_path: Path) -> None:
    engine, memory, state = Engine(rig.config.engine_socket), Memory(tmp_path), rig.config.state
    name = go_live(rig)
    (image,) = engine.images()
    memory.keep_images({image.id: time.time() - UNUSED_KEPT_S - 60})
    digest = rig.portal.desired.instances[0].image.digest
    assert prune(engine, memory, lambda: {digest}, state) == []  # wanted, which also makes it young
    memory.keep_images({image.id: 0.0})
    assert prune(engine, memory, set, state) == []  # its container has it
    rig.portal.want()
    rig.worker.hint()
    rig.portal.wait(lambda report: not report.instances and not engine.containers())
    memory.keep_images({image.id: 0.0})
    assert prune(engine, memory, set, state) == [image.id]
    assert engine.images() == [] and memory.images() == {}
    assert go_live(rig, "again") != name
