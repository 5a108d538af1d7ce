"""Backups and restores as rows: who may, what is refused, what the host is told and says, schedule and retention."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from backports import zstd
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.errors import Conflict, Forbidden, OverQuota
from portal.fleet.models import Host
from portal.hosting.models import App, Mount
from portal.plans.models import TeamQuota
from portal.volumes import backups
from portal.volumes.actions import create_volume
from portal.volumes.models import Backup, Restore, Volume
from tests.conftest import People
from tests.portal.host import HostDriver

pytestmark = pytest.mark.django_db(transaction=True)
PARTS = (b"first chunk", b"second chunk" * 1000)
WHOLE = "sha256:" + hashlib.sha256(b"".join(PARTS)).hexdigest()


@pytest.fixture
def volume(people: People, acting: Actor, host: HostDriver) -> Volume:
    """A volume on the host."""
    made = create_volume(acting, people.team, name="data", size_bytes=1 << 30)
    Volume.objects.filter(pk=made.pk).update(host=Host.objects.get(name=host.name))
    return Volume.objects.select_related("team", "host").get(pk=made.pk)


def post(host: HostDriver, path: str, data: bytes = b"") -> Any:
    return host.client.post(
        f"/internal/v1/hosts/{host.name}/{path}", data, content_type="application/octet-stream",
        headers={"Authorization": f"Bearer {host.token}"},
    )  # fmt: skip


def body(answer: Any) -> bytes:
    """All of an answer that comes in pieces."""

    async def read() -> bytes:
        return b"".join([piece async for piece in answer.streaming_content])

    return async_to_sync(read)()


def send(host: HostDriver, backup: Backup) -> None:
    """A host that does what it is told: only what is missing, then the list."""
    digests = [hashlib.sha256(part).digest() for part in PARTS]
    answer = post(host, f"backups/{backup.pk}/missing", b"".join(digests))
    assert answer.status_code == 200
    for digest, part in zip(digests, PARTS, strict=True):
        if digest in answer.content:
            assert post(host, f"backups/{backup.pk}/chunks/{digest.hex()}", zstd.compress(part)).status_code == 204
    size = sum(map(len, PARTS))
    end = post(host, f"backups/{backup.pk}/end?size={size}&digest={WHOLE}", b"".join(digests))
    assert end.status_code == 204, end.content
    backup.refresh_from_db()


def test_a_host_is_told_sends_what_is_missing_and_it_can_be_downloaded(
    people: People, acting: Actor, volume: Volume, host: HostDriver
) -> None:
    backup = backups.begin_backup(acting, volume)
    host.fetch()
    assert host.desired is not None
    task = host.desired.tasks[0]
    assert (task.kind, task.id, task.volume) == ("backup", backup.pk, volume.engine_name)
    send(host, backup)
    assert (backup.state, backup.digest, backup.stored_bytes > 0) == ("done", WHOLE, True)
    second = backups.begin_backup(acting, volume)
    send(host, second)
    assert (second.state, second.stored_bytes) == ("done", 0)
    host.fetch()
    assert host.desired.tasks == ()
    client, token = people.client(people.owner), people.token(people.owner, "write")
    answer = client.get(f"/api/v1/backups/{backup.number}/content", headers={"Authorization": f"Bearer {token}"})
    assert zstd.decompress(body(answer)) == b"".join(PARTS)
    assert 'filename="data-1.tar.zst"' in answer["Content-Disposition"]


def test_another_host_and_a_backup_that_is_over_are_refused(acting: Actor, volume: Volume, host: HostDriver) -> None:
    backup = backups.begin_backup(acting, volume)
    other = HostDriver.register("other")
    assert post(other, f"backups/{backup.pk}/missing").status_code == 404
    assert post(host, f"backups/{backup.pk}/end?size=1&digest=sha256:x", bytes(32)).status_code == 500
    assert post(host, f"backups/{backup.pk}/chunks/{'0' * 64}", b"junk").status_code == 422
    send(host, backup)
    assert post(host, f"backups/{backup.pk}/missing").status_code == 404


def test_one_at_a_time_within_the_quota_by_who_may(
    people: People, acting: Actor, volume: Volume, host: HostDriver
) -> None:
    with pytest.raises(Forbidden):
        backups.begin_backup(Actor(user=people.viewer, door="api"), volume)
    backup = backups.begin_backup(acting, volume)
    with pytest.raises(Conflict, match="under way"):
        backups.begin_backup(acting, volume)
    send(host, backup)
    TeamQuota.objects.filter(team=people.team).update(backup_bytes=1)
    with pytest.raises(OverQuota, match="Backups of team acme take"):
        backups.begin_backup(acting, volume)


def test_a_failure_is_told_and_the_next_may_begin(acting: Actor, volume: Volume, host: HostDriver) -> None:
    backup = backups.begin_backup(acting, volume)
    assert post(host, f"backups/{backup.pk}/end?reason=The+disk+is+full").status_code == 204
    backup.refresh_from_db()
    assert (backup.state, backup.reason) == ("failed", "The disk is full")
    backups.begin_backup(acting, volume)


def test_a_restore_waits_for_apps_and_for_the_host(
    people: People, acting: Actor, volume: Volume, host: HostDriver, app: App
) -> None:
    backup = backups.begin_backup(acting, volume)
    with pytest.raises(Conflict, match="is waiting"):
        backups.begin_restore(acting, backup, volume)
    send(host, backup)
    Mount.objects.create(app=app, volume=volume, path="/data")
    with pytest.raises(Conflict, match="in use by hello"):
        backups.begin_restore(acting, backup, volume)
    new = backups.begin_restore(acting, backup, into="beside")
    assert (new.volume.name, new.volume.size_bytes, new.volume.host) == ("beside", 1 << 30, volume.host)
    App.objects.filter(pk=app.pk).update(wanted="stopped")
    restore = backups.begin_restore(acting, backup, volume)
    with pytest.raises(Conflict, match="being restored"):
        backups.delete_backup(acting, backup)
    host.fetch()
    assert host.desired is not None
    assert [(t.kind, t.id, t.digest) for t in host.desired.tasks] == [
        ("restore", new.pk, WHOLE), ("restore", restore.pk, WHOLE),
    ]  # fmt: skip
    answer = host.client.get(
        f"/internal/v1/hosts/local/restores/{restore.pk}/content", headers={"Authorization": f"Bearer {host.token}"}
    )
    assert zstd.decompress(body(answer)) == b"".join(PARTS)
    for row, reason in ((new, ""), (restore, "it did not fit")):
        assert post(host, f"restores/{row.pk}/end", f'{{"reason": "{reason}"}}'.encode()).status_code == 200
    states = dict(Restore.objects.values_list("volume__name", "state"))
    assert states == {"beside": "done", "data": "failed"}
    backups.delete_backup(acting, backup)
    assert not Backup.objects.exists()


def test_scheduled_backups_begin_when_due_and_the_oldest_of_them_go(
    acting: Actor, volume: Volume, host: HostDriver
) -> None:
    asked_for = backups.begin_backup(acting, volume)
    send(host, asked_for)
    backups.set_schedule(acting, volume, hours=6, kept=2)
    assert backups.begin_due() == 0
    for _ in range(4):
        Backup.objects.update(created_at=timezone.now() - dt.timedelta(hours=7))
        assert backups.begin_due() == 1
        assert backups.begin_due() == 0
        send(host, Backup.objects.get(state="waiting"))
    assert list(Backup.objects.values_list("number", "scheduled")) == [(5, True), (4, True), (1, False)]


def test_silence_of_a_day_is_a_failure(acting: Actor, volume: Volume) -> None:
    backup = backups.begin_backup(acting, volume)
    Backup.objects.update(created_at=timezone.now() - dt.timedelta(hours=25))
    backups.begin_due()
    backup.refresh_from_db()
    assert backup.state == "failed" and "said nothing" in backup.reason


def test_backups_stay_when_the_volume_goes(acting: Actor, volume: Volume, host: HostDriver) -> None:
    backup = backups.begin_backup(acting, volume)
    send(host, backup)
    volume.delete()
    backup.refresh_from_db()
    assert (backup.volume, backup.volume_name, backup.state) == (None, "data", "done")
