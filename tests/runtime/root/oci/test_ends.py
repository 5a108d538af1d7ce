"""How containers end: exit codes, kills, failures to start, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from runtime.kernel.process import start_ticks
from runtime.oci import ends
from runtime.oci.client import LauncherClient, StartFailed, adopt
from runtime.oci.state import EXIT, ExitRecord
from tests.runtime.root.oci.conftest import Room, output

pytestmark = pytest.mark.root


async def test_the_exit_code_and_the_last_line_are_kept(room: Room) -> None:
    record, said = await room.run("sh", "-c", "echo one; printf last; exit 7")
    assert (record.code, record.signal, record.oom_killed) == (7, 0, False)
    assert said == "one\nlast"
    assert record.started_ns < record.finished_ns


async def test_a_signal_gives_128_and_its_number(room: Room) -> None:
    record, _ = await room.run("sh", "-c", "sleep 60 & kill -9 $!; wait $!; exit $?")
    assert record.code == 137
    bundle = room.bundle("sleep", "60")
    launched = await room.start(bundle)
    os.kill(launched.init_pid, signal.SIGKILL)
    assert (await launched.wait()).signal == signal.SIGKILL


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("/no/such",), "no such file or directory"),
        (("nosuch",), "executable file not found in $PATH"),
        (("/etc/passwd",), "permission denied"),
    ],
)
async def test_a_program_that_cannot_run_is_told_in_dockers_words(
    room: Room, args: tuple[str, ...], words: str
) -> None:
    bundle = room.bundle(*args)
    launched = await room.launch(bundle)
    with pytest.raises(StartFailed, match=words.replace("$", r"\$")) as caught:
        await launched.release()
    assert caught.value.step == "5 exec"
    assert not (bundle / EXIT).exists()


async def test_an_unknown_user_is_named_in_the_failure(room: Room) -> None:
    with pytest.raises(StartFailed, match="unable to find user nobody2") as caught:
        await room.launch(room.bundle("true", user="nobody2"))
    assert caught.value.step == "4 user"


async def test_a_missing_layer_fails_at_the_root_and_undoes_all(room: Room) -> None:
    plan = room.plan("c1")
    bundle = room.bundle("true", plan=type(plan).from_json({**plan.to_json(), "lowers": ["none"]}))
    with pytest.raises(StartFailed) as caught:
        await room.launch(bundle)
    assert caught.value.step == "3 root"
    assert caught.value.errno == 2


async def test_a_start_that_is_given_up_leaves_nothing(room: Room) -> None:
    launched = await room.launch(room.bundle("true"))
    await launched.abandon()
    assert start_ticks(launched.init_pid) is None


async def test_a_container_outlives_the_launcher_and_is_adopted(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "echo before; sleep 0.5; echo after; exit 4")
    launched = await room.start(bundle)
    await room.client.close()
    launched.close()
    again = adopt(bundle)
    assert again is not None
    assert (await again.wait()).code == 4
    assert output(bundle) == "before\nafter"
    assert adopt(bundle) is None


async def test_the_launcher_is_started_again_when_it_was_killed(room: Room) -> None:
    await room.client.start()
    assert room.client.pid
    os.kill(room.client.pid, signal.SIGKILL)
    record, said = await room.run("echo", "hello")
    assert (record.code, said) == (0, "hello")


async def test_a_killed_monitor_ends_its_container_as_unknown(room: Room) -> None:
    bundle = room.bundle("sleep", "60")
    launched = await room.start(bundle)
    os.kill(launched.monitor_pid, signal.SIGKILL)
    record = await launched.wait()
    assert (record.code, record.unknown) == (-1, True)
    assert ends.reap_orphan(bundle) == record
    assert ExitRecord.read(bundle) == record


async def test_a_monitor_killed_at_any_moment_of_a_start_leaves_nothing(room: Room) -> None:
    await room.client.start()
    for delay_ms in range(0, 40, 2):
        bundle = room.bundle("sleep", "60")
        starting = asyncio.create_task(room.launch(bundle))
        await asyncio.sleep(delay_ms / 1000)
        for pid in _monitors(room.client):
            with contextlib.suppress(ProcessLookupError):  # the one before, reaped meanwhile
                os.kill(pid, signal.SIGKILL)
        try:
            launched = await starting
        except StartFailed:
            continue
        with contextlib.suppress(ProcessLookupError):  # it was at its gate when it was killed
            os.kill(launched.monitor_pid, signal.SIGKILL)
        assert (await launched.wait()).unknown


async def test_a_maker_killed_at_any_moment_of_a_start_leaves_nothing(room: Room) -> None:
    await room.client.start()
    for delay_ms in range(0, 40, 3):
        bundle = room.bundle("true")
        starting = asyncio.create_task(room.launch(bundle))
        await asyncio.sleep(delay_ms / 1000)
        for monitor in _monitors(room.client):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for pid in Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
        try:
            launched = await starting
        except StartFailed:
            continue
        await launched.abandon()


def _monitors(client: LauncherClient) -> list[int]:
    children = Path(f"/proc/{client.pid}/task/{client.pid}/children").read_text()
    return [int(pid) for pid in children.split()]
