"""Terminals of containers and execs under a monitor: what is said, typed, resized, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.network.namespaces import Namespace
from runtime.oci.client import ExecRequest, Launched, LogOptions, attach_stream
from tests.runtime.root.oci.conftest import Room, output, until
from tests.runtime.root.oci.test_crew import ID_BASE, launch, parked, path_of, user_namespaces

pytestmark = pytest.mark.root

PATIENCE_S = 60
WATCH_SIZE = "trap 'stty size' WINCH; stty -echo; stty size; while ! read -r word; do :; done; echo got $word; exit 4"


@contextlib.asynccontextmanager
async def attached(launched: Launched) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """A client that sees and types."""
    reader, writer = await attach_stream(launched.attach, stdin=True, stdout=True, stderr=True, raw=True)
    yield reader, writer
    writer.close()


async def saying(reader: StreamReader, text: bytes) -> bytes:
    """What is read up to a text."""
    return await asyncio.wait_for(reader.readuntil(text), PATIENCE_S)


async def test_a_container_has_a_terminal_that_is_seen_typed_at_and_resized(room: Room) -> None:
    bundle = room.bundle("sh", "-c", f"tty; {WATCH_SIZE}", terminal=True, console_size=(41, 123))
    container = await room.launch(bundle, stdin=True)
    async with attached(container) as (reader, writer):
        await container.release()
        assert await saying(reader, b"123\r\n") == b"/dev/pts/0\r\n41 123\r\n"
        await container.resize(50, 90)
        assert await saying(reader, b"90\r\n") == b"50 90\r\n"
        writer.write(b"hello\r")
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b"got hello\r\n"
    assert (await container.wait()).code == 4
    logged = (bundle / "log/current").read_bytes().splitlines(keepends=True)
    assert [line[22:] for line in logged] == [b"/dev/pts/0\r\n", b"41 123\r\n", b"50 90\r\n", b"got hello\r\n"]
    container.close()


async def test_the_terminal_is_the_console_too(room: Room) -> None:
    script = "stat -c %t:%T /dev/console /dev/pts/0; echo seen > /dev/console; rm /dev/console; echo $?"
    container = await room.launch(room.bundle("sh", "-c", script, terminal=True))
    async with attached(container) as (reader, _writer):
        await container.release()
        said = (await asyncio.wait_for(reader.read(), PATIENCE_S)).decode().splitlines()
    assert (await container.wait()).code == 0
    assert said[:2] == ["88:0", "88:0"]
    assert said[2] == "seen"
    assert "busy" in said[3] and said[4] == "1"
    container.close()


async def test_an_exec_has_a_terminal_of_its_own(room: Room) -> None:
    bundle = room.bundle("sleep", "60", terminal=True)
    container = await room.start(bundle)
    request = ExecRequest(
        id="e1", bundle=bundle, attach=bundle / "e.sock", args=("sh", "-c", f"tty; id -u; {WATCH_SIZE}"), user="app",
        env=("PATH=/bin",), stdin=True, terminal=True, console_size=(30, 100),
    )  # fmt: skip
    launched = await room.client.exec(request)
    room.pids += [launched.monitor_pid, launched.init_pid]
    async with attached(launched) as (reader, writer):
        await launched.release()
        assert await saying(reader, b"100\r\n") == b"/dev/pts/1\r\n1000\r\n30 100\r\n"
        await launched.resize(20, 60)
        assert await saying(reader, b"60\r\n") == b"20 60\r\n"
        writer.write(b"x\r")
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b"got x\r\n"
    assert (await launched.wait()).code == 4
    launched.close()
    room.cgroups.kill(room.group(bundle))
    await container.wait()


async def test_an_exec_without_a_terminal_has_none_in_a_container_with_one(room: Room) -> None:
    bundle = room.bundle("sleep", "60", terminal=True)
    container = await room.start(bundle)
    request = ExecRequest(id="e1", bundle=bundle, attach=bundle / "e.sock", args=("tty",), env=("PATH=/bin",))
    launched = await room.client.exec(request)
    room.pids += [launched.monitor_pid, launched.init_pid]
    async with attached(launched) as (reader, _writer):
        await launched.release()
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b"not a tty\n"
    await launched.wait()
    launched.close()
    room.cgroups.kill(room.group(bundle))
    await container.wait()


async def test_nothing_of_a_terminals_last_output_is_lost(room: Room) -> None:
    record, said = await room.run("seq", "1", "20000", terminal=True)
    assert record.code == 0
    assert said.split() == [str(n) for n in range(1, 20_001)]
    bundle = room.bundle("sh", "-c", "seq 1 200; printf last; exit 3", terminal=True)
    container = await room.start(
        bundle, log=LogOptions(rate_bps=100)
    )  # so that most of it is unread when the program ends
    assert (await container.wait()).code == 3
    assert output(bundle).split() == [*(str(n) for n in range(1, 201)), "last"]
    container.close()


async def test_a_program_that_lets_go_of_its_terminal_runs_on_and_its_monitor_rests(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "echo before; exec sleep 600 <&- >&- 2>&-", terminal=True)
    container = await room.start(bundle)
    await until(lambda: not list(Path(f"/proc/{container.init_pid}/fd").iterdir()))
    await until(lambda: Path(f"/proc/{container.monitor_pid}/stat").read_text().rpartition(") ")[2][0] == "S")
    await container.resize(10, 10)
    room.cgroups.kill(room.group(bundle))
    assert (await container.wait()).code == 137
    assert output(bundle) == "before"
    container.close()


async def test_a_client_that_leaves_ends_nobodys_input(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "stty -echo; echo ready; read -r word; echo got $word", terminal=True)
    container = await room.launch(bundle, stdin=True)
    async with attached(container) as (reader, writer):
        await container.release()
        await saying(reader, b"ready\r\n")
        writer.write_eof()
    async with attached(container) as (reader, writer):
        writer.write(b"again\r")
        assert await saying(reader, b"again\r\n") == b"got again\r\n"
    assert (await container.wait()).code == 0
    container.close()


async def test_a_parked_crew_makes_a_container_with_a_terminal(room: Room) -> None:
    with contextlib.closing(Namespace.make()) as netns:
        own = await parked(room, netns)
        bundle = room.bundle("tty", id_base=ID_BASE, netns=path_of(netns), terminal=True)
        container = await launch(room, bundle, "one")
        assert user_namespaces([container.init_pid]) == own
        await container.release()
        assert (await container.wait()).code == 0
        assert output(bundle) == "/dev/pts/0"
        container.close()
