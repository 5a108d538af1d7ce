"""Who gets a token for what, and what a stranger learns: nothing."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from portal.accounts.actions import add_member
from portal.accounts.actor import SYSTEM
from portal.accounts.models import ApiToken
from portal.hosting.models import App
from portal.images.blobs import BlobStore
from portal.images.tokens import make_pull_token
from portal.plans.models import Plan
from tests.conftest import People
from tests.portal.images.registries import Pusher, code, digest_of, registry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The registry on a port."""
    with registry() as made:
        yield made


@pytest.fixture
def http(url: str, app: App, store: BlobStore) -> Iterator[httpx.Client]:
    """A client without credentials."""
    with httpx.Client(base_url=url) as client:
        yield client


def token(http: httpx.Client, secret: str, *scopes: str) -> str:
    """From the token endpoint by GET."""
    answer = http.get("/v2/token", params={"service": "moorage", "scope": list(scopes)}, auth=("any", secret))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def begin(http: httpx.Client, text: str, repository: str = "acme/shop") -> httpx.Response:
    return http.post(f"/v2/{repository}/blobs/uploads/", headers=bearer(text))


def test_a_client_is_told_where_to_sign_in_and_for_what(http: httpx.Client, url: str) -> None:
    realm = f'Bearer realm="{url}/v2/token",service="moorage"'
    for method, path, scope in (
        ("GET", "/v2/", ""),
        ("POST", "/v2/acme/shop/blobs/uploads/", "repository:acme/shop:pull,push"),
        ("PUT", "/v2/acme/shop/manifests/1.0", "repository:acme/shop:pull,push"),
        ("GET", "/v2/acme/shop/manifests/1.0", "repository:acme/shop:pull"),
        ("DELETE", "/v2/acme/shop/manifests/1.0", "repository:acme/shop:delete"),
        ("GET", "/v2/_catalog", "registry:catalog:*"),
    ):
        answer = http.request(method, path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == realm + (f',scope="{scope}"' if scope else "")
    refused = http.get("/v2/token", auth=("any", "moor_wrong"))
    assert (code(refused), refused.headers["www-authenticate"]) == ((401, "UNAUTHORIZED"), 'Basic realm="moorage"')


def test_a_token_reaches_no_further_than_its_scope_and_its_owner(http: httpx.Client, people: People) -> None:
    developer = people.token(people.developer, "deploy")
    pull = token(http, developer, "repository:acme/shop:pull")
    narrow = begin(http, pull)
    assert narrow.status_code == 401  # another token would do: the client gets one
    assert 'scope="repository:acme/shop:pull,push"' in narrow.headers["www-authenticate"]
    push = token(http, developer, "repository:acme/shop:pull,push", "repository:strangers/x:pull")
    assert begin(http, push).status_code == 202
    assert begin(http, token(http, developer, "repository:acme/shop:*")).status_code == 202
    assert begin(http, developer).status_code == 202  # an API token as Bearer, for curl
    for secret in (people.token(people.viewer, "write"), people.token(people.developer, "read")):
        refused = begin(http, token(http, secret, "repository:acme/shop:pull,push"))
        assert code(refused) == (403, "DENIED")
        assert "needs at least" in refused.text or "scopes" in refused.text
    held = people.token(people.developer, "deploy", app="other")
    assert code(begin(http, token(http, held, "repository:acme/shop:pull,push"))) == (403, "DENIED")
    assert code(begin(http, make_pull_token("acme/shop"))) == (401, "UNAUTHORIZED")  # a host's token
    assert code(http.get("/v2/_catalog", headers=bearer(push))) == (401, "UNAUTHORIZED")
    assert http.get("/v2/_catalog", headers=bearer(token(http, developer, "registry:catalog:*"))).status_code == 200


def test_a_token_ends_with_the_api_token_and_the_membership(http: httpx.Client, people: People) -> None:
    push = token(http, people.token(people.developer, "deploy"), "repository:acme/shop:pull,push")
    people.team.memberships.filter(user=people.developer).update(role="viewer")
    assert begin(http, push).status_code == 403
    ApiToken.objects.all().delete()
    assert begin(http, push).status_code == 401
    assert begin(http, push[:-3] + "abc").status_code == 401


def test_docker_asks_by_form_and_keeps_a_refresh_token(http: httpx.Client, people: People) -> None:
    secret = people.token(people.developer, "deploy")
    form = {
        "grant_type": "password",
        "username": "any",
        "password": secret,
        "service": "moorage",
        "access_type": "offline",
    }
    first = http.post("/v2/token", data=form | {"scope": "repository:acme/shop:pull,push"}).json()
    assert begin(http, first["access_token"]).status_code == 202
    again = {
        "grant_type": "refresh_token",
        "refresh_token": first["refresh_token"],
        "scope": "repository:acme/shop:pull,push",
    }
    assert begin(http, http.post("/v2/token", data=again).json()["access_token"]).status_code == 202
    assert http.post("/v2/token", data=form | {"password": "moor_wrong"}).status_code == 401
    assert http.post("/v2/token", data={"grant_type": "magic"}).status_code == 400
    assert http.post("/v2/token", content=b"x" * 100_000).status_code == 413
    assert http.put("/v2/token").status_code == 405


def test_a_stranger_is_told_the_same_of_what_is_there_and_what_is_not(
    http: httpx.Client, url: str, people: People
) -> None:
    with Pusher(url, people.token(people.developer, "deploy")) as developer:
        manifest, _ = developer.image("1.0", b"layer")
        upload = developer.begin()
    secret = people.token(people.stranger, "write")
    tails = (
        ("GET", "manifests/1.0"), ("HEAD", f"manifests/{digest_of(manifest)}"), ("GET", f"blobs/{digest_of(b'layer')}"),
        ("PUT", "manifests/1.0"), ("DELETE", "manifests/1.0"), ("GET", "tags/list"), ("POST", "blobs/uploads/"),
        ("GET", f"referrers/{digest_of(manifest)}"), ("DELETE", f"blobs/{digest_of(b'layer')}"),
        ("PATCH", upload.partition("/shop/")[2]), ("GET", upload.partition("/shop/")[2]),
    )  # fmt: skip
    for method, tail in tails:
        told = []
        for repository in ("acme/shop", "acme/nothing", "nobody/shop"):
            actions = "repository:{}:pull,push,delete".format
            text = token(http, secret, actions(repository))
            answer = http.request(method, f"/v2/{repository}/{tail}", headers=bearer(text))
            told.append((answer.status_code, answer.text.replace(repository, "…")))
        assert told[0][0] == 403, (method, tail)
        assert told[0] == told[1] == told[2], (method, tail)


def test_a_push_needs_an_app_of_that_team(http: httpx.Client, people: People) -> None:
    App.objects.create(team=people.stranger.teams.get(), slug="theirs", plan=Plan.objects.get(slug="nano"))
    developer = people.token(people.developer, "deploy")
    told = [begin(http, developer, f"acme/{slug}") for slug in ("nothing", "theirs")]
    assert [code(answer) for answer in told] == [(404, "NAME_UNKNOWN")] * 2
    assert told[0].text.replace("nothing", "…") == told[1].text.replace("theirs", "…")
    assert "Create it first" in told[0].text
    add_member(SYSTEM, people.stranger.teams.get(), people.developer, "developer")
    assert code(begin(http, developer, "acme/theirs")) == (404, "NAME_UNKNOWN")  # in both teams, but it is the other's


def test_an_upload_is_its_owner_s_alone(http: httpx.Client, people: People) -> None:
    address = begin(http, people.token(people.developer, "deploy")).headers["location"]
    owner = bearer(people.token(people.owner, "deploy"))
    for method in ("GET", "PATCH", "DELETE"):
        assert code(http.request(method, address, headers=owner)) == (404, "BLOB_UPLOAD_UNKNOWN")
    http.delete(address, headers=bearer(people.token(people.developer, "deploy")))
