"""Volumes of teams and in apps: quota, attaching, one writer at a time, going; by the actions and by a host that reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from portal.accounts.actor import Actor
from portal.errors import Conflict, Forbidden, Invalid, NotFound, OverQuota
from portal.hosting.models import App
from portal.images.models import Image
from portal.plans.models import TeamQuota
from portal.releases import actions
from portal.releases.models import Deployment, Instance
from portal.releases.mounting import attach, detach
from portal.volumes.access import get_volume
from portal.volumes.actions import create_volume, delete_volume, resize_volume
from portal.volumes.models import Volume
from tests.conftest import People
from tests.portal.host import HostDriver
from worker.protocol import ObservedVolume

GB = 1 << 30
pytestmark = pytest.mark.django_db(transaction=True)


def make(acting: Actor, people: People, name: str = "data", **fields: Any) -> Volume:
    return create_volume(acting, people.team, name=name, **{"size_bytes": GB, **fields})


def report(host: HostDriver, *volumes: ObservedVolume) -> None:
    """A host's word on its volumes, through the function that takes reports in."""
    from portal.fleet.models import Host
    from portal.volumes.observed import take_in

    take_in(Host.objects.get(name=host.name), volumes)


@pytest.fixture
def live(app: App, acting: Actor, host: HostDriver, make_image: Callable[..., Image]) -> App:
    """`hello` with one release that serves."""
    actions.deploy(acting, app, make_image(app))
    host.carry_out()
    assert Deployment.objects.get(app=app).state == "live"
    return app


def test_number_and_sum_of_sizes_are_held_to_the_quota(people: People, acting: Actor) -> None:
    TeamQuota.objects.update_or_create(team=people.team, defaults={"volumes": 2, "volume_bytes": 3 * GB})
    volume = make(acting, people, size_bytes=2 * GB)
    with pytest.raises(OverQuota, match="volume: 2 GB of 3 GB used, 2 GB more wanted"):
        make(acting, people, "more", size_bytes=2 * GB)
    make(acting, people, "more", size_bytes=GB)
    with pytest.raises(OverQuota, match="volumes: 2 of 2 used"):
        make(acting, people, "third", size_bytes=16 << 20)
    with pytest.raises(OverQuota):
        resize_volume(acting, volume, 3 * GB)
    assert resize_volume(acting, volume, GB).size_bytes == GB
    with pytest.raises(Invalid, match="sizes are 16 MB to 60 GB"):
        resize_volume(acting, volume, 1)
    with pytest.raises(Conflict, match="already"):
        make(acting, people, "data", size_bytes=16 << 20)


def test_strangers_see_none_and_members_without_the_right_change_none(people: People, acting: Actor) -> None:
    volume = make(acting, people)
    stranger, viewer = Actor(user=people.stranger, door="api"), Actor(user=people.viewer, door="api")
    with pytest.raises(NotFound):
        get_volume(stranger, people.team.slug, "data")
    assert get_volume(viewer, people.team.slug, "data") == volume
    for refused in (
        lambda: get_volume(viewer, people.team.slug, "data", "write"),
        lambda: delete_volume(viewer, volume),
        lambda: resize_volume(viewer, volume, 2 * GB),
        lambda: make(viewer, people, "other"),
    ):
        with pytest.raises(Forbidden):
            refused()
    with pytest.raises(Forbidden, match="one app"):
        get_volume(dataclasses.replace(acting, app_slug="hello"), people.team.slug, "data")


@pytest.mark.parametrize("path", ["data", "/", "/proc/x", "/etc/hosts", "/a:b", "/../dev"])
def test_a_path_that_is_no_place_for_a_volume_is_refused(people: People, acting: Actor, app: App, path: str) -> None:
    with pytest.raises(Invalid):
        attach(acting, app, make(acting, people), path=path)


def test_a_subpath_stays_below_the_volume(people: People, acting: Actor, app: App) -> None:
    volume = make(acting, people)
    for subpath in ("../x", "/x", "a/../../x"):
        with pytest.raises(Invalid):
            attach(acting, app, volume, path="/data", subpath=subpath)
    mount, _ = attach(acting, app, volume, path="/data/", subpath="./a//b/")
    assert (mount.path, mount.subpath) == ("/data", "a/b")


def test_one_writer_is_one_app_with_one_instance(people: People, acting: Actor, app: App) -> None:
    from portal.hosting.actions import create_app

    volume, other = make(acting, people), create_app(acting, people.team, slug="other")
    attach(acting, app, volume, path="/data")
    with pytest.raises(Conflict, match="hello writes to data"):
        attach(acting, other, volume, path="/data")
    attach(acting, other, volume, path="/data", read_only=True)
    with pytest.raises(Conflict, match="one writer at a time: 2 instances cannot"):
        actions.scale(acting, app, {"web": 2})
    actions.scale(acting, other, {"web": 2})
    shared = make(acting, people, "shared", shared=True)
    attach(acting, other, shared, path="/shared")
    attach(acting, app, shared, path="/shared")


def test_the_host_is_told_makes_it_and_it_stays_there(
    people: People, acting: Actor, live: App, host: HostDriver
) -> None:
    volume = make(acting, people)
    _, deployment = attach(acting, live, volume, path="/data", subpath="a")
    assert deployment is not None and deployment.kind == "volumes"
    host.fetch()
    host.carry_out("creating")
    assert host.desired is not None
    volume.refresh_from_db()
    assert volume.host is not None and volume.host.name == "local"
    wanted = host.desired.volumes[0]
    assert (wanted.name, wanted.size_bytes, wanted.gone) == (f"acme.data.{volume.pk}", GB, False)
    mount = next(i for i in host.wanted("hello") if i.release == 2).volumes[0]
    assert (mount.name, mount.path, mount.subpath, mount.read_only, mount.exclusive) == (
        wanted.name, "/data", "a", False, True,
    )  # fmt: skip
    report(host, ObservedVolume(name=wanted.name, size_bytes=GB, used_bytes=12345))
    volume.refresh_from_db()
    assert volume.used_bytes == 12345


def test_with_one_writer_the_old_stops_first_and_it_is_said(
    people: People, acting: Actor, live: App, host: HostDriver
) -> None:
    old = Instance.objects.get(app=live)
    _, deployment = attach(acting, live, make(acting, people), path="/data")
    assert deployment is not None
    host.fetch()
    new = next(i.id for i in host.wanted("hello") if i.id != old.pk)
    host.see(new, "creating")
    host.report()
    deployment.refresh_from_db()
    old.refresh_from_db()
    assert (deployment.state, old.wanted, old.routed) == ("starting", "stopped", False)
    said = deployment.events.get(state="starting").text
    assert said == "1 running instance is stopped first: data has one writer at a time"
    host.see(old.pk, "stopped")
    host.see(new, "healthy")
    host.report()
    host.report()
    deployment.refresh_from_db()
    assert deployment.state == "live"
    old.refresh_from_db()
    assert old.wanted == "removed"


def test_with_one_writer_a_failure_lets_the_old_run_again(
    people: People, acting: Actor, live: App, host: HostDriver
) -> None:
    old = Instance.objects.get(app=live)
    _, deployment = attach(acting, live, make(acting, people), path="/data")
    assert deployment is not None
    host.fetch()
    new = next(i.id for i in host.wanted("hello") if i.id != old.pk)
    for state in ("creating", "exited"):
        host.see(old.pk, "stopped" if state == "exited" else "healthy")
        host.see(new, state)  # type: ignore[arg-type]
        host.report()
    deployment.refresh_from_db()
    old.refresh_from_db()
    assert (deployment.state, old.wanted, old.routed, old.restart) == ("failed", "running", True, True)
    assert Instance.objects.get(pk=new).wanted == "removed"


def test_detach_keeps_it_and_delete_waits_for_detach_and_for_the_host(
    people: People, acting: Actor, live: App, host: HostDriver
) -> None:
    volume = make(acting, people)
    mount, _ = attach(acting, live, volume, path="/data", deploy=False)
    with pytest.raises(Conflict, match="attached to hello"):
        delete_volume(acting, volume)
    Volume.objects.filter(pk=volume.pk).update(host=Instance.objects.get(app=live).host)
    assert detach(acting, live, mount) is not None
    volume.refresh_from_db()
    delete_volume(acting, volume)
    host.fetch()
    assert host.desired is not None and host.desired.volumes[0].gone
    name = host.desired.volumes[0].name
    report(host, ObservedVolume(name=name, used_bytes=1))
    assert Volume.objects.filter(pk=volume.pk).exists()
    report(host, ObservedVolume(name=name, gone=True))
    assert not Volume.objects.filter(pk=volume.pk).exists()


def test_an_app_that_goes_leaves_its_volumes(people: People, acting: Actor, live: App, host: HostDriver) -> None:
    volume = make(acting, people)
    attach(acting, live, volume, path="/data", deploy=False)
    actions.delete_app(acting, live)
    host.carry_out()
    assert not App.objects.filter(pk=live.pk).exists()
    assert Volume.objects.filter(pk=volume.pk).exists()


def test_the_calls_of_the_api(people: People, acting: Actor, app: App, client: Any) -> None:
    token = people.token(people.owner, "write")
    headers = {"Authorization": f"Bearer {token}"}

    def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = getattr(client, method)(f"/api/v1{path}", body, content_type="application/json", headers=headers)
        return answer.status_code, answer.json()

    assert call("post", "/volumes", {"volume": "data", "size_bytes": GB})[0] == 201
    code, body = call("post", "/apps/hello/volumes", {"volume": "data", "path": "/data"})
    assert (code, body["volumes"][0]["path"], body["deployment"]) == (201, "/data", None)
    assert call("get", "/volumes")[1][0]["attached"] == [
        {"app": "hello", "path": "/data", "read_only": False, "subpath": ""}
    ]
    assert call("delete", "/volumes/data")[0] == 409
    assert call("patch", "/volumes/data", {"size_bytes": 2 * GB})[1]["size_bytes"] == 2 * GB
    assert call("delete", f"/apps/hello/volumes/{body['volumes'][0]['id']}")[0] == 200
    assert call("get", "/apps/hello/volumes")[1]["volumes"] == []
    assert call("delete", "/volumes/data")[1]["state"] == "deleting"
    assert call("get", "/volumes/data")[0] == 404
