"""Further programs in a running container, and attaching to output and input."""

from __future__ import annotations

import asyncio
import struct
from asyncio import StreamReader

import pytest

from runtime.oci.client import ExecRequest, Launched, LogOptions, StartFailed, attach_stream
from runtime.oci.state import ExitRecord
from tests.runtime.root.oci.conftest import Room, output, until

pytestmark = pytest.mark.root


async def _frames(reader: StreamReader) -> dict[int, bytes]:
    """Everything read until the end, by stream."""
    found = {1: b"", 2: b""}
    while head := await reader.read(8):
        head += await reader.readexactly(8 - len(head)) if len(head) < 8 else b""
        stream, length = struct.unpack(">BxxxI", head)
        found[stream] += await reader.readexactly(length)
    return found


async def _exec(
    room: Room, container: Launched, *args: str, given: bytes | None = None, **more: object
) -> tuple[ExitRecord, dict[int, bytes]]:
    bundle = container.attach.parent
    request = ExecRequest(
        id="e1",
        bundle=bundle,
        attach=bundle / "e.sock",
        args=args,
        env=("PATH=/bin",),
        stdin=given is not None,
        **more,  # type: ignore[arg-type]
    )
    launched = await room.client.exec(request)
    room.pids += [launched.monitor_pid, launched.init_pid]
    reader, writer = await attach_stream(request.attach, stdin=True, stdout=True, stderr=True)
    await launched.release()
    if given is not None:
        writer.write(given)
        writer.write_eof()
    said = await _frames(reader)
    writer.close()
    record = await launched.wait()
    launched.close()
    return record, said


async def test_an_exec_is_inside_with_the_containers_rights(room: Room) -> None:
    bundle = room.bundle("sleep", "60", no_new_privileges=True)
    container = await room.start(bundle)
    script = (
        "hostname; cut -d: -f3 /proc/self/cgroup | sort -u; id -u; ls /proc/self/fd | wc -l; "
        "grep -E '^(CapEff|NoNew|Seccomp:)' /proc/self/status | cut -f2; ls -d /proc/1/root/home; echo bad >&2; exit 5"
    )
    record, said = await _exec(room, container, "sh", "-c", script)
    assert record.code == 5
    assert said[1].split() == [b"c1", b"/", b"0", b"4", b"00000000a80425fb", b"1", b"2", b"/proc/1/root/home"]
    assert said[2] == b"bad\n"
    room.cgroups.kill(room.group(bundle))
    await container.wait()


async def test_an_exec_takes_user_folder_and_input(room: Room) -> None:
    bundle = room.bundle("sleep", "60")
    container = await room.start(bundle)
    record, said = await _exec(room, container, "sh", "-c", "id -u; pwd; cat", given=b"hello", user="app", cwd="/tmp")
    assert (record.code, said[1]) == (0, b"1000\n/tmp\nhello")
    big = b"0123456789abcdef" * 65_536 * 4
    record, said = await _exec(room, container, "cat", given=big)
    assert (record.code, len(said[1])) == (0, len(big))
    assert said[1] == big
    room.cgroups.kill(room.group(bundle))
    await container.wait()


async def test_an_exec_of_nothing_or_into_nothing_is_refused(room: Room) -> None:
    bundle = room.bundle("sleep", "60")
    container = await room.start(bundle)
    with pytest.raises(StartFailed, match="not found in"):
        await _exec(room, container, "nosuch")
    room.cgroups.kill(room.group(bundle))
    await container.wait()
    with pytest.raises(StartFailed, match="not running"):
        await _exec(room, container, "true")


async def test_a_running_exec_ends_with_its_container(room: Room) -> None:
    bundle = room.bundle("sleep", "60")
    container = await room.start(bundle)
    request = ExecRequest(
        id="e2", bundle=bundle, attach=bundle / "e2.sock", args=("sleep", "60"), env=("PATH=/bin",), detach=True
    )
    launched = await room.client.exec(request)
    await launched.release()
    room.pids += [launched.monitor_pid, launched.init_pid]
    room.cgroups.kill(room.group(bundle))
    assert (await launched.wait()).code == 137
    assert (await container.wait()).code == 137


async def test_attached_clients_see_all_output_and_give_input(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "echo out; echo err >&2; cat")
    container = await room.launch(bundle, stdin=True)
    reader, writer = await attach_stream(container.attach, stdin=True, stdout=True, stderr=True)
    await container.release()
    writer.write(b"typed\n")
    writer.write_eof()
    said = await asyncio.wait_for(_frames(reader), 10)
    writer.close()
    assert said == {1: b"out\ntyped\n", 2: b"err\n"}
    assert (await container.wait()).code == 0
    assert sorted(output(bundle).split()) == ["err", "out", "typed"]


async def test_a_client_that_does_not_read_never_slows_the_log(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "seq 1000000")
    container = await room.launch(bundle)
    reader, writer = await attach_stream(container.attach, stdin=False, stdout=True, stderr=True)
    await container.release()
    record = await asyncio.wait_for(container.wait(), 30)
    assert record.code == 0
    text = "".join(path.read_text() for path in sorted((bundle / "log").iterdir()))
    assert text.count("\n") >= 1_000_000
    assert text.splitlines()[-1].endswith(" 1000000")
    writer.close()
    del reader


async def test_the_log_rate_makes_the_program_wait_and_says_so(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "seq 60000")
    container = await room.start(bundle, log=LogOptions(rate_bps=100_000))
    record = await container.wait()
    took = (record.finished_ns - record.started_ns) / 1e9
    lines = (bundle / "log/current").read_text().splitlines()
    assert sum(line[20] == "m" and "100000 bytes per second" in line for line in lines) == 1
    assert output(bundle).splitlines()[-1] == "60000"
    assert 1 < took < 10


async def test_log_limits_change_while_it_runs(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "seq 200000; cat; exit 0")
    container = await room.launch(bundle, log=LogOptions(rate_bps=10_000), stdin=True)
    await container.release()
    await container.set_log(LogOptions(rate_bps=0))
    await until(lambda: output(bundle).rstrip().endswith("\n200000"))
    room.cgroups.kill(room.group(bundle))
    await container.wait()
