"""`/containers/{id}/exec` and `/exec/{id}`."""

from __future__ import annotations

from aiohttp import web

from runtime.engine.api.call import Call, Handler, answer, nothing
from runtime.engine.api.hijack import MULTIPLEXED, RAW, Hijacked, RawStream, hijack, relay
from runtime.engine.api.streaming import streams
from runtime.engine.detachkeys import Keys
from runtime.engine.errors import Conflict
from runtime.engine.exec import Exec, ExecFailed, check_running
from runtime.engine.fields import Fields
from runtime.engine.logs import STDERR, frame
from runtime.oci.client import attach_stream


async def create(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/exec."""
    container = call.engine.core.registry.find(call.names["id"])
    return answer({"Id": call.engine.execs.create(container, await call.json()).id}, 201)


@streams
async def start(call: Call) -> web.StreamResponse:
    """POST /exec/{id}/start."""
    found = call.engine.execs.get(call.names["id"])
    body = Fields(await call.json(), "body")
    check_running(found.container)
    if found.started:
        raise Conflict(f"exec {found.id[:12]} has already run.")
    size = body.console_size()
    if any(size):
        await call.engine.execs.resize(found, *size)
    if body.flag("Detach"):
        return await _detached(call, found)
    client = hijack(call.request, RAW if found.tty or call.version < (1, 42) else MULTIPLEXED)
    try:
        await _attached(call, found, client)
    except ExecFailed as failed:
        text = failed.text.encode() + b"\r\n"
        await client.write(text if found.tty else frame(STDERR, text))
    client.finish()
    return Hijacked()


async def _detached(call: Call, found: Exec) -> web.StreamResponse:
    execs = call.engine.execs
    try:
        await execs.open(found, detach=True)
        await execs.run(found)
    except ExecFailed as failed:
        return answer({"message": failed.text}, 400)
    return nothing(200)


async def _attached(call: Call, found: Exec, client: RawStream) -> None:
    execs = call.engine.execs
    launched = await execs.open(found, detach=False)
    try:
        reader, writer = await attach_stream(
            found.attach, stdin=found.stdin, stdout=found.stdout, stderr=found.stderr, raw=found.tty
        )
    except OSError:
        await launched.abandon()
        raise
    await execs.run(found)
    if await relay(client, reader, writer, stdin=found.stdin, keys=Keys(found.detach_keys) if found.tty else None):
        call.engine.core.emit(found.container, "exec_detach", execID=found.id)
        return
    await execs.ended(found)  # the client asks for the exit status as soon as the stream has ended


async def inspect(call: Call) -> web.StreamResponse:
    """GET /exec/{id}/json."""
    found = call.engine.execs.get(call.names["id"])
    return answer(
        {
            "ID": found.id,
            "Running": found.running,
            "ExitCode": found.exit_code,
            "ProcessConfig": {
                "tty": found.tty,
                "entrypoint": found.args[0],
                "arguments": list(found.args[1:]),
                "privileged": False,
                "user": found.user,
            },
            "OpenStdin": found.stdin,
            "OpenStderr": found.stderr,
            "OpenStdout": found.stdout,
            "CanRemove": found.exit_code is not None,
            "ContainerID": found.container.id,
            "DetachKeys": "",
            "Pid": found.pid,
        }
    )


async def resize(call: Call) -> web.StreamResponse:
    """POST /exec/{id}/resize; without a terminal nothing happens, as in Docker."""
    await call.engine.execs.resize(call.engine.execs.get(call.names["id"]), *call.size())
    return nothing(200)


ROUTES: dict[str, Handler] = {
    "POST /containers/{id}/exec": create,
    "POST /exec/{id}/start": start,
    "GET /exec/{id}/json": inspect,
    "POST /exec/{id}/resize": resize,
}
