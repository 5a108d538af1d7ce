"""What people send by forms: what is refused and in which words, and what happens when it is right."""

from __future__ import annotations

import pytest
from django.test import Client

from portal.accounts.models import ApiToken, Membership, Team, User
from portal.hosting.environment import read_environment
from portal.hosting.models import App
from portal.plans.models import Plan, TeamQuota
from portal.releases.models import Deployment
from tests.conftest import People
from tests.portal.pages.seed import image_of, seed

pytestmark = pytest.mark.usefixtures("plans")


@pytest.fixture
def app(people: People, plans: object) -> App:
    """tide-api with two live instances of release 3."""
    seed(people.owner, team=people.team, apps=(("tide-api", "small", 2, "live"),))
    return App.objects.get(slug="tide-api")


def said(client: Client, page: str, data: dict[str, str]) -> str:
    """The page that refuses a form."""
    answer = client.post(page, data)
    assert answer.status_code == 422, answer.status_code
    return answer.content.decode()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "Give the app a name."), ("Tide", "try tide"), ("-tide", "neither begins nor ends with a hyphen"), ("1tide", "begins with a letter"),
        ("tide_api", "cannot have &#x27;_&#x27;"), ("www", "reserved"), ("a" * 41, "at most 40"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_an_address_is_refused_in_words(owner: Client, name: str, words: str) -> None:
    assert words in said(owner, "/teams/acme/new", {"slug": name, "plan": "small"})
    assert not App.objects.exists()


def test_a_name_in_use_is_refused_even_when_another_team_has_it(owner: Client, stranger: Client) -> None:
    assert stranger.post("/teams/strangers/new", {"slug": "tide", "plan": "nano"}).status_code == 302
    assert "exists already" in said(owner, "/teams/acme/new", {"slug": "tide", "plan": "small"})


def test_an_app_beyond_the_quota_is_refused_with_the_figures(owner: Client, people: People) -> None:
    TeamQuota.objects.create(team=people.team, cpu_millicores=600)
    assert owner.post("/teams/acme/new", {"slug": "one", "plan": "small"}).status_code == 302
    assert "0.5 cores of 0.6 cores used" in said(owner, "/teams/acme/new", {"slug": "two", "plan": "small"})


def test_the_script_of_the_page_is_answered_in_json(owner: Client) -> None:
    made = owner.post("/teams/acme/new", {"slug": "tide", "plan": "small"}, headers={"Accept": "application/json"})
    assert (made.status_code, made.json()["address"]) == (201, "/apps/tide/deploy")
    again = owner.post("/teams/acme/new", {"slug": "tide", "plan": "small"}, headers={"Accept": "application/json"})
    assert again.status_code == 422 and "exists already" in again.json()["errors"]["slug"][0]


def test_a_form_without_its_csrf_token_changes_nothing(people: People, app: App) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(people.owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    answer = client.post("/apps/tide-api/do/stop")
    assert answer.status_code == 403
    assert App.objects.get(pk=app.pk).wanted == "running"


def test_variables_are_set_removed_and_imported_and_never_shown(owner: Client, app: App) -> None:
    owner.post("/apps/tide-api/environment", {"key": "TOKEN", "value": "s3cret-value"})
    owner.post("/apps/tide-api/environment", {"do": "import", "environment": "A=1\nB='two words'"})
    owner.post("/apps/tide-api/environment", {"do": "remove", "key": "LOG_LEVEL"})
    found = read_environment(app)
    assert (found["TOKEN"], found["A"], found["B"]) == ("s3cret-value", "1", "two words") and "LOG_LEVEL" not in found
    page = owner.get("/apps/tide-api/environment").content.decode()
    assert "TOKEN" in page and "s3cret-value" not in page and "two words" not in page


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"key": "", "value": "1"}, "Give the variable a name."), ({"key": "A-B", "value": "1"}, "letters, digits and underscores"),
        ({"key": "PORT", "value": "1"}, "set by the platform"), ({"do": "import", "environment": "A=1\nnot a line"}, "Line 2 is not KEY=value"),
        ({"do": "import", "environment": "# nothing"}, "There is no KEY=value"),
    ],
)  # fmt: skip
def test_a_variable_that_cannot_be_is_refused_in_words(
    owner: Client, app: App, data: dict[str, str], words: str
) -> None:
    before = read_environment(app)
    assert words in said(owner, "/apps/tide-api/environment", data)
    assert read_environment(app) == before


def test_a_changed_variable_is_deployed_when_asked(owner: Client, app: App) -> None:
    owner.post("/apps/tide-api/environment", {"key": "A", "value": "1"})
    assert Deployment.objects.filter(app=app).count() == 3
    owner.post("/apps/tide-api/environment", {"key": "A", "value": "2", "redeploy": "on"})
    assert Deployment.objects.filter(app=app).order_by("-number").values_list("number", "kind").first() == (
        4,
        "environment",
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"port": "70000"}, "Ports end at 65535."),
        ({"port": "http"}, "whole number"),
        ({"health_path": "health"}, "A path begins with a slash: /health"),
        ({"do": "push", "follow_tag": "-x"}, "A tag has letters"),
        ({"do": "push", "follow_tag": ""}, "Name the tag to follow"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(
    owner: Client, app: App, data: dict[str, str], words: str
) -> None:
    assert words in said(owner, "/apps/tide-api/settings", data)


def test_a_pushed_tag_is_followed_when_it_is_switched_on(owner: Client, app: App) -> None:
    data = {"do": "push", "deploy_on_push": "on", "follow_tag": "stable"}
    page = owner.post("/apps/tide-api/settings", data, follow=True).content.decode()
    assert "a push of tide-api:stable is deployed from now on" in page
    app.refresh_from_db()
    assert (app.deploy_on_push, app.follow_tag) == (True, "stable")
    owner.post("/apps/tide-api/settings", {"do": "push", "follow_tag": "stable"})
    app.refresh_from_db()
    assert not app.deploy_on_push


def test_scaling_beyond_the_plan_is_refused_with_both_figures(owner: Client, app: App) -> None:
    page = owner.post("/apps/tide-api/do/scale", {"web": "9"}, follow=True).content.decode()
    assert "9 is more than the 4 this plan allows" in page
    owner.post("/apps/tide-api/do/scale", {"web": "3"})
    assert app.processes.get().count == 3


def test_another_plan_is_taken_at_once(owner: Client, app: App) -> None:
    owner.post("/apps/tide-api/do/plan", {"plan": "medium"})
    assert App.objects.get(pk=app.pk).plan.slug == "medium"
    page = owner.post("/apps/tide-api/do/plan", {"plan": "imaginary"}, follow=True).content.decode()
    assert "There is no such plan." in page


def test_deleting_needs_the_name(owner: Client, app: App) -> None:
    page = owner.post("/apps/tide-api/do/delete", {"name": "tide"}, follow=True).content.decode()
    assert "Nothing was deleted: type tide-api to confirm." in page
    owner.post("/apps/tide-api/do/delete", {"name": "tide-api"})
    assert not App.objects.filter(slug="tide-api", deleting_at=None).exists()


def test_the_roll_back_dialog_shows_what_differs_without_values(owner: Client, app: App) -> None:
    owner.post("/apps/tide-api/environment", {"key": "TOKEN", "value": "s3cret-value"})
    page = owner.get("/apps/tide-api/releases/1/rollback").content.decode()
    assert "Roll back to release 1?" in page and "tide-api:1.3" in page and "tide-api:1.1" in page
    assert "RELEASE_NOTE, another value" in page and "not so secret" not in page
    owner.post("/apps/tide-api/releases/1/rollback")
    last = Deployment.objects.filter(app=app).order_by("-number")[0]
    assert (last.kind, last.release.number) == ("rollback", 1)


def test_an_image_of_another_team_cannot_be_deployed(owner: Client, app: App, people: People) -> None:
    foreign = image_of(Team.objects.get(slug="strangers"), "tide-api", 1)
    assert owner.post("/apps/tide-api/deploy", {"image": str(foreign.pk)}).status_code == 404
    assert owner.get(f"/apps/tide-api/images/{foreign.pk}").status_code == 404


def test_a_token_is_shown_once_and_only_to_the_one_who_made_it(owner: Client, people: People) -> None:
    membership = Membership.objects.get(user=people.owner, team=people.team)
    data = {"name": "ci", "membership": str(membership.pk), "scope": "deploy", "days": "90", "app_slug": ""}
    made = owner.post("/account/tokens", data)
    assert made.status_code == 200 and made.headers["Cache-Control"] == "no-store"
    secret = made.content.decode().split('<pre id="secret">')[1].split("<")[0]
    assert secret.startswith("moor_") and secret not in owner.get("/account/tokens").content.decode()
    assert Client().get("/api/v1/apps", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    token = ApiToken.objects.get()
    other = people.client(people.developer)
    assert other.post(f"/account/tokens/{token.pk}/revoke").status_code == 404
    owner.post(f"/account/tokens/{token.pk}/revoke")
    assert not ApiToken.objects.exists()


def test_nobody_makes_a_token_for_another_persons_membership(member: Client, people: People) -> None:
    membership = Membership.objects.get(user=people.owner, team=people.team)
    data = {"name": "ci", "membership": str(membership.pk), "scope": "write", "days": "90"}
    assert member.post("/account/tokens", data).status_code == 422
    assert member.post("/account/tokens", data | {"scope": "operator"}).status_code == 422
    assert not ApiToken.objects.exists()


def test_an_owner_adds_people_changes_roles_and_cannot_leave_the_team_without_one(
    owner: Client, people: People
) -> None:
    assert "Nobody here is called nobody" in said(owner, "/teams/acme/members", {"who": "nobody", "role": "viewer"})
    assert "already" in said(owner, "/teams/acme/members", {"who": "dan", "role": "viewer"})
    owner.post("/teams/acme/members", {"who": "stan@example.org", "role": "developer"})
    row = Membership.objects.get(user=people.stranger, team=people.team)
    owner.post(f"/teams/acme/members/{row.pk}", {"role": "maintainer"})
    assert Membership.objects.get(pk=row.pk).role == "maintainer"
    own = Membership.objects.get(user=people.owner, team=people.team)
    page = owner.post(f"/teams/acme/members/{own.pk}", {"do": "remove"}, follow=True).content.decode()
    assert "last owner" in page and Membership.objects.filter(pk=own.pk).exists()


def test_a_member_may_leave_and_change_nobody(member: Client, people: People) -> None:
    other = Membership.objects.get(user=people.viewer, team=people.team)
    assert member.post("/teams/acme/members", {"who": "stan", "role": "viewer"}).status_code == 403
    member.post(f"/teams/acme/members/{other.pk}", {"role": "owner"})
    assert Membership.objects.get(pk=other.pk).role == "viewer"
    own = Membership.objects.get(user=people.developer, team=people.team)
    member.post(f"/teams/acme/members/{own.pk}", {"do": "remove"})
    assert not Membership.objects.filter(pk=own.pk).exists()


def test_an_operator_makes_users_and_teams(operator: Client) -> None:
    person = {"username": "nora", "email": "nora@example.org", "password": "harbour-lamp-9"}
    assert "at least 8" in said(operator, "/operator/users", person | {"password": "short"}).lower()
    assert operator.post("/operator/users", person).status_code == 302
    assert "in use" in said(operator, "/operator/users", person)
    assert (
        operator.post("/operator/teams", {"name": "Nordwind", "slug": "nordwind", "owner": "nora"}).status_code == 302
    )
    assert Membership.objects.get(team__slug="nordwind").role == "owner"
    nora = Client()
    assert (
        nora.post("/accounts/login/", {"login": "nora@example.org", "password": "harbour-lamp-9"}).headers["Location"]
        == "/"
    )
    assert nora.get("/teams/nordwind/").status_code == 200 and not User.objects.get(username="nora").is_operator


def test_a_quota_is_written_in_people_units(operator: Client, people: People) -> None:
    data = {
        "apps": "5",
        "instances": "9",
        "cpu_millicores": "2.5",
        "memory_bytes": "1.5",
        "disk_bytes": "20",
        "image_bytes": "4",
        "volumes": "3",
        "volume_bytes": "6",
        "backup_bytes": "7.5",
    }
    operator.post("/operator/teams/acme", data)
    quota = TeamQuota.objects.get(team=people.team)
    assert (quota.cpu_millicores, quota.memory_bytes, quota.disk_bytes) == (2500, 3 << 29, 20 << 30)
    assert (quota.volumes, quota.volume_bytes, quota.backup_bytes) == (3, 6 << 30, 15 << 29)
    assert "The least is 0" in said(operator, "/operator/teams/acme", data | {"apps": "-1"})


def plan_data(**changes: str) -> dict[str, str]:
    """The plan small as its form shows it."""
    from portal.plans.forms import PlanForm

    return {
        **{key: str(value) for key, value in PlanForm(row=Plan.objects.get(slug="small")).initial.items()},
        "is_default": "on",
        **changes,
    }


def test_saving_a_plan_unchanged_changes_nothing_and_a_figure_makes_a_version(operator: Client) -> None:
    operator.post("/operator/plans/small", plan_data())
    assert Plan.objects.get(slug="small").version == 1
    operator.post("/operator/plans/small", plan_data(memory_bytes="384", net_out_bps="12.5"))
    plan = Plan.objects.get(slug="small")
    assert (plan.version, plan.memory_bytes, plan.net_out_bps) == (2, 384 << 20, 12_500_000)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory_bytes": "2"}, "The least is 8 MB."),
        ({"cpu_millicores": ""}, "Give a figure in cores"),
        ({"pids": "many"}, "This is not a number."),
        ({"pids": "9.5"}, "Give a whole number."),
    ],
)
def test_a_plan_that_cannot_run_is_refused_in_words(operator: Client, changes: dict[str, str], words: str) -> None:
    assert words in said(operator, "/operator/plans/small", plan_data(**changes))


@pytest.mark.usefixtures("valkey")
def test_the_list_if_you_save_this_names_what_would_be_killed_before_it_is(operator: Client, app: App) -> None:
    from portal.telemetry.redis import client
    from worker.protocol import MetricSample, metric_stream

    row = app.instances.get(ordinal=1)
    sample = dict.fromkeys(
        ("cpu_ns", "throttled_ns", "net_in_total", "net_out_total", "disk_read_total", "disk_write_total"), 0
    )
    used = MetricSample(
        at=1.0,
        memory_bytes=300 << 20,
        memory_limit_bytes=512 << 20,
        disk_used_bytes=1,
        pids=5,
        cpu_limit_millicores=500,
        **sample,
    )
    client().xadd(metric_stream(row.pk), {"s": used.pack()})
    page = operator.post("/operator/plans/small/effects", plan_data(memory_bytes="256")).content.decode()
    assert "1 would break" in page and row.pk in page and "300 MB" in page
    assert (
        "nothing breaks"
        in operator.post("/operator/plans/small/effects", plan_data(memory_bytes="400")).content.decode()
    )
    assert Plan.objects.get(slug="small").memory_bytes == 512 << 20


@pytest.mark.usefixtures("valkey")
def test_the_log_is_downloaded_as_text_by_members_only(owner: Client, stranger: Client, app: App) -> None:
    import msgpack  # type: ignore[import-untyped]

    from portal.telemetry.redis import client
    from worker.protocol import log_stream

    row = app.instances.get(ordinal=0)
    client().xadd(
        log_stream(row.pk), {"l": msgpack.packb([["1700000000000-1", "o", "hello, log"]])}, id="1700000000000-1"
    )
    answer = owner.get("/apps/tide-api/logs/download")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="tide-api.log"'
    assert answer.content.decode().endswith("2023-11-14T22:13:20.000Z web.0 hello, log\n")
    assert stranger.get("/apps/tide-api/logs/download").status_code == 404


def test_a_theme_is_kept(owner: Client) -> None:
    owner.post("/account/theme", {"theme": "dark"})
    assert 'data-theme="dark"' in owner.get("/account/").content.decode()
    assert "is not a theme" in owner.post("/account/theme", {"theme": "neon"}, follow=True).content.decode()


def test_a_wrong_password_is_answered_with_a_sentence(people: People, client: Client) -> None:
    page = client.post("/accounts/login/", {"login": "olga", "password": "wrong"}).content.decode()
    assert "not correct" in page and 'value="olga"' in page
