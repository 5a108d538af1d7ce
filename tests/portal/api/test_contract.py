"""What every client of the REST API may count on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from portal.accounts.actor import Actor
from portal.hosting.actions import create_app
from portal.hosting.models import App, EnvVar
from portal.images.models import Image
from portal.plans.models import Plan
from portal.releases import actions
from portal.releases.schemas import AppOut, AppsOut
from tests.conftest import People
from tests.portal.host import HostDriver

pytestmark = pytest.mark.django_db(transaction=True)


class Api:
    """A client with a Bearer token."""

    def __init__(self, token: str) -> None:
        self.client = Client(headers={"Authorization": f"Bearer {token}"})

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        content = "" if body is None else json.dumps(body)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.generic(method, f"/api/v1{path}", content, content_type="application/json", headers=names)


@pytest.fixture
def api(people: People, plans: object) -> Api:
    """As the owner of team acme."""
    return Api(people.token(people.owner, "write"))


@pytest.fixture
def operator_api(people: People, plans: object) -> Api:
    """As the operator."""
    return Api(people.token(people.operator, "operator"))


def test_the_description_is_openapi_3_1_and_names_the_raw_operations(api: Api) -> None:
    schema = api("GET", "/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    deploy = schema["paths"]["/api/v1/apps/{app}/deployments"]["post"]
    assert {"201", "202", "413", "422", "504"} <= set(deploy["responses"])
    assert "application/octet-stream" in deploy["requestBody"]["content"]
    text = json.dumps(schema)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(schema["components"]["schemas"])
    ids = [op["operationId"] for path in schema["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))


def test_an_app_is_made_read_changed_and_deleted(api: Api) -> None:
    made = api("POST", "/apps", {"app": "shop", "plan": "nano"})
    assert made.status_code == 201, made.content
    body = made.json()
    assert (body["app"], body["team"], body["plan"], body["state"]) == ("shop", "acme", "nano", "new")
    assert body["url"] == "http://shop.localhost:8080/"
    assert api("PATCH", "/apps/shop", {"plan": "small", "port": 3000}).json()["port"] == 3000
    assert api("GET", "/apps/shop").json()["plan"] == "small"
    assert api("DELETE", "/apps/shop").status_code == 202


def test_errors_are_problem_json_with_a_stable_code_and_a_way_out(api: Api) -> None:
    answer = api("GET", "/apps/nothing")
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"
    assert "POST /api/v1/apps" in answer.json()["hint"]
    bad = api("POST", "/apps", {"app": "Bad_Name"})
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid_name")
    missing = api("POST", "/apps", {})
    assert missing.status_code == 422
    assert missing.json()["fields"][0]["field"].endswith("app")
    taken = [api("POST", "/apps", {"app": "twice"}).status_code, api("POST", "/apps", {"app": "twice"}).status_code]
    assert taken == [201, 409]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("PUT", "/apps", 405, "method_not_allowed"), ("GET", "/nothing/here", 404, "not_found")],
)
def test_unknown_methods_and_paths_are_problem_json_too(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    answer = api(method, path)
    assert answer["Content-Type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["status"], answer.json()["code"]) == (status, status, code)


def test_no_token_a_wrong_one_and_an_expired_one_answer_401(people: People, api: Api) -> None:
    import datetime as dt

    old = people.token(people.owner, "read", expires_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert Client().get("/api/v1/apps").status_code == 401
    assert Api("moor_wrong")("GET", "/apps").status_code == 401
    expired = Api(old)("GET", "/apps")
    assert expired.status_code == 401
    assert "2020-01-01" in expired.json()["detail"]
    assert expired["WWW-Authenticate"].startswith("Bearer")


def test_a_session_needs_the_csrf_header_for_changes(people: People, plans: object) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(people.owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert browser.get("/api/v1/apps").status_code == 200
    refused = browser.post("/api/v1/apps", json.dumps({"app": "shop"}), content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf")


def test_the_same_idempotency_key_does_it_once(api: Api) -> None:
    first = api("POST", "/apps", {"app": "once"}, Idempotency_Key="k1")
    again = api("POST", "/apps", {"app": "once"}, Idempotency_Key="k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again["Idempotency-Replayed"] == "true"
    other = api("POST", "/apps", {"app": "other"}, Idempotency_Key="k1")
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
    refused = api("POST", "/apps", {"app": "once"}, Idempotency_Key="k2")
    assert refused.status_code == 409
    assert api("POST", "/apps", {"app": "once"}, Idempotency_Key="k2").json()["code"] == "name_taken"


def test_pages_follow_each_other_by_cursor_without_gap_or_double(api: Api) -> None:
    names = [f"app{n:02}" for n in range(7)]
    for name in names:
        assert api("POST", "/apps", {"app": name, "plan": "nano"}).status_code == 201
    seen, cursor = [], ""
    while cursor is not None:
        answer = api("GET", f"/apps?limit=3&cursor={cursor}").json()
        seen += [item["app"] for item in answer["items"]]
        cursor = answer["next"]
    assert seen == names
    assert api("GET", "/apps?cursor=zzz").status_code == 422
    assert api("GET", "/apps?limit=5000").status_code == 422


def test_a_list_takes_the_same_number_of_queries_for_two_apps_and_for_twelve(
    api: Api, acting: Actor, people: People, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert api("GET", "/apps?limit=100").status_code == 200
        return len(captured)

    nano = Plan.objects.get(slug="nano")
    counts = []
    for n in range(12):
        app = create_app(acting, people.team, slug=f"app{n}", plan=nano)
        actions.deploy(acting, app, make_image(app))
        if n in (1, 11):
            queries()
            counts.append(queries())
    assert counts[0] == counts[1]
    assert counts[0] <= 12


def test_environment_is_masked_encrypted_and_deployed(
    api: Api, acting: Actor, app: App, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    changed = api("PATCH", "/apps/hello/env", {"SECRET": "hunter2"})
    assert changed.status_code == 202
    assert changed.json()["deployment"]["kind"] == "environment"
    assert "hunter2" not in changed.content.decode()
    assert "hunter2" not in api("GET", "/apps/hello/env").content.decode()
    assert api("GET", "/apps/hello/env").json()["environment"].keys() == {"SECRET"}
    assert b"hunter2" not in bytes(EnvVar.objects.get(key="SECRET").value_encrypted)
    quiet = api("PATCH", "/apps/hello/env?deploy=false", {"SECRET": None, "B": "2"})
    assert (quiet.status_code, quiet.json()["deployment"]) == (200, None)
    assert api("PATCH", "/apps/hello/env", {"PORT": "1"}).status_code == 422
    from portal.audit.models import Entry

    assert "hunter2" not in json.dumps(list(Entry.objects.values_list("details", flat=True)))


def test_deployments_releases_and_instances_are_listed(
    api: Api, acting: Actor, app: App, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    actions.deploy(acting, app, make_image(app, "two"))
    host.carry_out()
    listed = api("GET", "/apps/hello/deployments").json()["items"]
    assert [(d["number"], d["state"], d["team"]) for d in listed] == [(2, "live", "acme"), (1, "superseded", "acme")]
    detail = api("GET", "/apps/hello/deployments/2").json()
    assert [event["state"] for event in detail["events"]][-1] == "live"
    releases = api("GET", "/apps/hello/releases").json()["items"]
    assert [(r["number"], r["live"]) for r in releases] == [(2, True), (1, False)]
    assert "environment" not in releases[0]
    (instance,) = api("GET", "/apps/hello/instances").json()
    assert (instance["state"], instance["routed"], instance["release"]) == ("healthy", True, 2)
    assert api("GET", "/apps/hello").json()["state"] == "running"
    assert api("GET", "/apps/hello/deployments/99").status_code == 404
    ended = api("POST", "/apps/hello/deployments/2/cancel")
    assert ended.status_code == 409


def test_start_stop_restart_and_scale_by_call(
    api: Api, acting: Actor, app: App, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    assert api("POST", "/apps/hello/start").json()["code"] == "nothing_deployed"
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    assert api("POST", "/apps/hello/restart").status_code == 202
    host.carry_out()
    assert api("PUT", "/apps/hello/scale", {"web": 2}).status_code == 202
    host.carry_out()
    assert len(host.routed("hello")) == 2
    too_many = api("PUT", "/apps/hello/scale", {"web": 9})
    assert (too_many.status_code, too_many.json()["code"]) == (422, "over_quota")
    assert "allows 4 instances, 9" in too_many.json()["detail"]
    assert api("POST", "/apps/hello/stop").json()["state"] == "stopped"
    assert api("POST", "/apps/hello/start").status_code == 202


def test_quota_usage_and_refusal_carry_the_figures(api: Api, operator_api: Api, app: App) -> None:
    assert operator_api("PUT", "/teams/acme/quota", {"apps": 1}).status_code == 200
    refused = api("POST", "/apps", {"app": "second"})
    assert refused.status_code == 422
    assert refused.json()["detail"] == "Team acme is over its quota: apps: 1 of 1 used, 1 more wanted."
    assert refused.json()["shortfalls"] == [{"dimension": "apps", "allowed": 1, "used": 1, "wanted": 1}]
    usage = api("GET", "/teams/acme/usage").json()
    assert usage["used"]["memory_bytes"] == 512 << 20
    assert usage["quota"]["apps"] == 1
    assert api("PUT", "/teams/acme/quota", {"apps": 100}).status_code == 403


def test_plans_are_made_and_changed_by_operators_only(api: Api, operator_api: Api) -> None:
    fields = {"cpu_millicores": 100, "memory_bytes": 64 << 20, "disk_bytes": 64 << 20}
    assert api("POST", "/plans", {"slug": "pico", **fields}).status_code == 403
    made = operator_api("POST", "/plans", {"slug": "pico", **fields}, Idempotency_Key="p")
    assert made.status_code == 201, made.content
    assert operator_api("POST", "/plans", {"slug": "pico", **fields}, Idempotency_Key="p").status_code == 201
    changed = operator_api("PATCH", "/plans/pico", {"memory_bytes": 128 << 20})
    assert (changed.json()["memory_bytes"], changed.json()["version"]) == (128 << 20, 2)
    too_small = operator_api("PATCH", "/plans/pico", {"memory_bytes": 5})
    assert (too_small.status_code, "least" in too_small.json()["detail"]) == (422, True)
    assert "pico" in [plan["slug"] for plan in api("GET", "/plans").json()]


def test_tokens_are_made_used_and_ended(api: Api) -> None:
    made = api("POST", "/tokens", {"name": "ci", "scopes": ["deploy"], "app": "hello"}).json()
    assert Api(made["token"])("GET", "/me").json()["scopes"] == ["deploy"]
    wider = Api(made["token"])("POST", "/tokens", {"scopes": ["write"]})
    assert wider.status_code == 403
    assert all("token" not in row for row in api("GET", "/tokens").json())
    assert api("DELETE", f"/tokens/{made['id']}").status_code == 204
    assert Api(made["token"])("GET", "/me").status_code == 401


def test_hosts_and_the_trail_are_for_those_who_may(api: Api, operator_api: Api, host: HostDriver, app: App) -> None:
    assert operator_api("GET", "/hosts").json()[0]["facts"]["engine_version"] == "test"
    assert api("GET", "/hosts").status_code == 403
    trail = api("GET", "/audit?team=acme").json()["items"]
    assert any(row["verb"] == "create" and row["object_name"] == "hello" for row in trail)
    assert api("GET", "/audit?team=operators").status_code == 404
    assert {row["team"] for row in api("GET", "/audit").json()["items"]} == {"acme"}


def test_an_address_that_does_not_exist_answers_problem_json_for_every_method(api: Api) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = api(method, "/nothing/here")
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")


def test_a_failure_of_the_portal_itself_says_so_without_details(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a secret of the portal")

    monkeypatch.setattr("portal.releases.api_apps.visible_apps", broken)
    answer = api("GET", "/apps")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.content.decode()


def test_the_list_of_apps_is_what_the_description_says(
    api: Api, acting: Actor, app: App, host: HostDriver, make_image: Callable[..., Image]
) -> None:
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    assert api("POST", "/apps", {"app": "fresh"}).status_code == 201
    body = api("GET", "/apps").json()
    listed = AppsOut.model_validate(body)
    assert [item.state for item in listed.items] == ["new", "running"]
    assert set(body["items"][0]) == set(AppOut.model_fields)
    assert body["items"][1] == api("GET", "/apps/hello").json()
