"""The hosts' own door: tokens, conditional answers, and reports that are not reports."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from django.test import Client

from portal.accounts.actor import Actor
from portal.hosting.models import App
from portal.images.models import Image
from portal.releases import actions
from portal.releases.models import Instance
from tests.portal.host import HostDriver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("token", ["", "wrong", "token-of-other"])
def test_a_wrong_token_another_hosts_and_an_unknown_host_look_the_same(host: HostDriver, token: str) -> None:
    HostDriver.register("other")
    headers = {"Authorization": f"Bearer {token}"}
    answers = [Client().get(f"/internal/v1/hosts/{name}/desired", headers=headers) for name in ("local", "nowhere")]
    assert [answer.status_code for answer in answers] == [401, 401]
    bodies = [answer.json()["detail"].replace("nowhere", "local") for answer in answers]
    assert bodies[0] == bodies[1]


def test_a_user_token_does_not_open_it(host: HostDriver, people: object) -> None:
    token = people.token(people.operator, "operator")  # type: ignore[attr-defined]
    answer = Client().get("/internal/v1/hosts/local/desired", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"host": "local"}', "not json"])
def test_a_body_that_is_no_report_is_refused_with_a_sentence(host: HostDriver, body: str) -> None:
    headers = {"Authorization": f"Bearer {host.token}"}
    answer = Client().post("/internal/v1/hosts/local/report", body, content_type="application/json", headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith(".")


def test_a_host_cannot_report_for_another(host: HostDriver) -> None:
    body = {"host": "other", "generation": "", "route_generation": 0, "instances": []}
    answer = Client().post(
        "/internal/v1/hosts/local/report",
        json.dumps(body),
        content_type="application/json",
        headers={"Authorization": f"Bearer {host.token}"},
    )
    assert answer.status_code == 422


def test_a_host_sees_its_own_instances_only_and_changes_no_others(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    other = HostDriver.register("other")
    actions.deploy(acting, app, make_image(app))
    actions.scale(acting, app, {"web": 2})
    for driver in (host, other):
        driver.fetch()
    assert len(host.wanted()) == len(other.wanted()) == 1, "one app is spread over hosts"
    theirs = other.wanted()[0].id
    host.see(theirs, "healthy")
    host.report()
    assert Instance.objects.get(pk=theirs).observed == "absent"


def test_live_waits_for_the_ingress_of_every_host(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    other = HostDriver.register("other")
    deployment = actions.deploy(acting, app, make_image(app))
    where = host if Instance.objects.get(app=app).host.name == "local" else other
    elsewhere = other if where is host else host
    where.fetch()
    where.see(where.wanted()[0].id, "healthy")
    where.report()
    where.report()
    deployment.refresh_from_db()
    assert deployment.state == "switching"
    elsewhere.fetch()
    elsewhere.report()
    deployment.refresh_from_db()
    assert deployment.state == "live"


def test_a_report_takes_the_same_number_of_queries_for_one_instance_and_for_eight(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from portal.plans.models import Plan, TeamQuota

    Plan.objects.filter(slug="small").update(instances_max=8)
    TeamQuota.objects.update(instances=50, memory_bytes=1 << 40, cpu_millicores=10**6)
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    counts = []
    for count in (1, 8):
        actions.scale(acting, app, {"web": count})
        host.carry_out()
        with CaptureQueriesContext(connection) as captured:
            host.report()
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_limit_hits_are_kept_and_shown_for_the_hosts_own_instances(
    app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    (instance,) = host.wanted()
    hit = {
        "instance": instance.id,
        "limit": "memory",
        "used": 5,
        "allowed": 5,
        "when": 1_800_000_000,
        "sentence": "killed",
    }
    answer = Client().post(
        "/internal/v1/hosts/local/events",
        json.dumps([hit, {**hit, "instance": "foreign"}]),
        content_type="application/json",
        headers={"Authorization": f"Bearer {host.token}"},
    )
    assert answer.status_code == 204
    assert [event.sentence for event in app.limit_events.all()] == ["killed"]


def test_a_host_whose_engine_does_not_answer_is_not_ready(host: HostDriver, valkey: str) -> None:
    host.report(facts=True)
    assert Client().get("/readyz").json()["checks"]["hosts"] == "ok"
    host.report(complete=False)
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["hosts"] == "The engine does not answer on: local. Its log says why."
    host.report()
    assert Client().get("/readyz").json()["checks"]["hosts"] == "ok"
