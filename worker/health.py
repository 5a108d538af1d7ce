"""Health from outside: does the instance take a connection, or answer HTTP, at its address?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from worker.protocol import HealthCheck

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.05
PATIENT_AFTER_S, PATIENT_PAUSE_S = 10.0, 0.25
STATUS_BYTES = 1024


async def probe(address: str, port: int, check: HealthCheck) -> str:
    """Ask once: "" when it is healthy, else why not, in a few words (`connection refused`, `status 500`)."""
    if check.kind == "none":
        return ""
    try:
        async with asyncio.timeout(check.timeout_s):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                return await _ask_http(reader, writer, check) if check.kind == "http" else ""
            finally:
                writer.close()
    except TimeoutError:
        return f"no answer within {check.timeout_s:g} s"
    except ConnectionRefusedError:
        return "connection refused"
    except (OSError, asyncio.IncompleteReadError) as error:
        return (getattr(error, "strerror", "") or "connection closed").lower()


async def _ask_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, check: HealthCheck) -> str:
    host = check.host_header or "localhost"
    head = f"GET {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: moorage-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    line = b""
    while not line.endswith(b"\n"):  # a server may send the line in pieces, a hostile one without an end
        part = await reader.read(1) if len(line) < STATUS_BYTES else b""
        if not part:
            break
        line += part
    parts = line.split()
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        return "no HTTP answer" if line else "connection closed"
    status = int(parts[1])
    return "" if status < 400 else f"status {status} from {check.path}"


async def wait_healthy(address: str, port: int, check: HealthCheck, ended: asyncio.Event) -> str:
    """Ask at once and every 10 to 50 ms until it is healthy ("") or the check's deadline is over (the last trouble).

    Returns "ended" as soon as `ended` is set: an exit must not wait for the deadline.
    """
    asking = asyncio.ensure_future(_ask_until(address, port, check))
    over = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((asking, over), return_when=asyncio.FIRST_COMPLETED)
        return "ended" if ended.is_set() else asking.result()
    finally:
        asking.cancel()
        over.cancel()


async def _ask_until(address: str, port: int, check: HealthCheck) -> str:
    begun, pause = time.monotonic(), FIRST_PAUSE_S
    while trouble := await probe(address, port, check):
        waited = time.monotonic() - begun
        if waited + pause > check.deadline_s:
            return trouble
        await asyncio.sleep(PATIENT_PAUSE_S if waited > PATIENT_AFTER_S else pause)
        pause = min(pause * 1.3, LONGEST_PAUSE_S)
    return ""


class Watch:
    """Asks live instances again every `interval_s`; says when one stops or begins to answer."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        """`tell(id, trouble)`: "" healthy again, else why it is not, after `unhealthy_after` failures in a row."""
        self._tell = tell
        self._tasks: dict[str, tuple[tuple[str, int, HealthCheck], asyncio.Task[None]]] = {}

    def follow(self, wanted: dict[str, tuple[str, int, HealthCheck]]) -> None:
        """Watch exactly these instances from now on."""
        for name, (what, task) in list(self._tasks.items()):
            if wanted.get(name) != what:
                task.cancel()
                del self._tasks[name]
        for name, what in wanted.items():
            if name not in self._tasks and what[2].kind != "none":
                self._tasks[name] = what, asyncio.create_task(self._run(name, *what))

    async def _run(self, name: str, address: str, port: int, check: HealthCheck) -> None:
        failures = 0
        while True:
            await asyncio.sleep(check.interval_s)
            trouble = await probe(address, port, check)
            failures = failures + 1 if trouble else 0
            if not trouble:
                self._tell(name, "")
            elif failures >= check.unhealthy_after:
                self._tell(name, f"{failures} checks in a row failed: {trouble} on port {port}.")
