"""Containers that were prepared ahead: the same inside, quicker outside, and nothing of them left whatever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.kernel.process import start_ticks
from runtime.network.namespaces import Namespace
from runtime.oci.client import Launched, LaunchRequest, LogOptions, StartFailed
from runtime.oci.spec import Mount
from runtime.oci.state import ROOT, STATE
from tests.runtime.root.oci.conftest import Room, output, until

pytestmark = pytest.mark.root

ID_BASE = 3_000_000
LOOK = """
exec 2>&1  # one pipe: what is said on two may be read in another order
awk '{print $4, $5, $6, $(NF-2), $NF}' /proc/self/mountinfo | sort
cat /proc/self/uid_map /proc/self/gid_map /proc/self/cgroup /proc/self/limits
grep -E 'Cap|Seccomp|NoNewPrivs|Groups|NSpid' /proc/self/status
find /dev | sort | xargs stat -c '%A %u %g %t %T %N'
ls /proc/1/fd; readlink /proc/1/fd/0; hostname; ls / /sys; ls /proc/self/ns
cat /proc/kcore /proc/keys 2>&1; ls /sys/firmware /proc/scsi 2>&1; echo x > /proc/sys/kernel/hostname; id; ps
"""


BEGINNER = """
import asyncio, sys
from pathlib import Path
from runtime.oci.client import LauncherClient, LaunchRequest, LogOptions

async def main():
    bundle, client = Path(sys.argv[1]), LauncherClient()
    request = LaunchRequest(id=bundle.name, bundle=bundle, attach=bundle / "attach.sock", log=LogOptions())
    underway = await client.begin(request)
    print(client.pid, flush=True)
    await asyncio.sleep(60)
    await underway.complete()

asyncio.run(main())
"""


@pytest.fixture
def netns() -> Iterator[Namespace]:
    """A network namespace with `lo`."""
    with contextlib.closing(Namespace.make()) as namespace:
        yield namespace


def path_of(netns: Namespace) -> Path:
    """A path that leads to it."""
    return Path(f"/proc/{os.getpid()}/fd/{netns.fd}")


def request_for(bundle: Path, crew: str, *, go: bool = False) -> LaunchRequest:
    """What the launcher is asked for."""
    attach = bundle / "attach.sock"
    return LaunchRequest(id=bundle.name, bundle=bundle, attach=attach, log=LogOptions(), crew=crew, go=go)


async def launch(room: Room, bundle: Path, crew: str, *, go: bool = False) -> Launched:
    """Up to the gate, by a parked crew if `crew` names one; with `go` it runs."""
    launched = await room.client.launch(request_for(bundle, crew, go=go))
    room.pids += [launched.monitor_pid, launched.init_pid]
    return launched


def has_group(room: Room, bundle: Path) -> bool:
    """Whether a container's cgroup is there."""
    return room.group(bundle) in room.cgroups.list(room.top)


def descendants(pid: int) -> list[int]:
    """Pids of all that descend from a process."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def user_namespaces(pids: list[int]) -> set[int]:
    """Of those processes, but for the host's."""
    found = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found.add(os.stat(f"/proc/{pid}/ns/user").st_ino)  # noqa: PTH116
    return found - {os.stat("/proc/self/ns/user").st_ino}  # noqa: PTH116


async def parked(room: Room, netns: Namespace, name: str = "one") -> set[int]:
    """Have a crew parked and wait for it; its user namespace."""
    await room.client.park(name, netns.fd, ID_BASE)
    pid = room.client.pid
    assert pid
    await until(lambda: bool(user_namespaces(descendants(pid))))
    return user_namespaces(descendants(pid))


async def test_a_container_that_was_prepared_is_the_same_inside(room: Room, netns: Namespace) -> None:
    said = []
    for crew in ("", "one"):
        if crew:
            own = await parked(room, netns)
        bundle = room.bundle("sh", "-c", LOOK, id_base=ID_BASE, netns=path_of(netns), hostname="same")
        launched = await launch(room, bundle, crew)
        if crew:
            assert user_namespaces([launched.init_pid]) == own
        await launched.release()
        await launched.wait()
        launched.close()
        said.append(output(bundle).replace(bundle.name, "NAME").replace(str(bundle), "BUNDLE"))
    assert said[0] == said[1]
    assert "/dev/pts" in said[0] and "uid=0" in said[0]


@pytest.mark.parametrize("odd", ["ids", "network", "bind", "shm"])
async def test_one_that_does_not_fit_costs_only_time(room: Room, netns: Namespace, tmp_path: Path, odd: str) -> None:
    own = await parked(room, netns)
    options: dict[str, object] = {"id_base": ID_BASE, "netns": path_of(netns)}
    if odd == "ids":
        options["id_base"] = ID_BASE + 65_536
    elif odd == "network":
        options["netns"] = None
    elif odd == "bind":
        source = room.store / "volume"
        source.mkdir()
        options["binds"] = (Mount(destination="/dev/mine", type="bind", source=str(source), options=("rbind",)),)
    else:
        options["shm_bytes"] = 1 << 20
    bundle = room.bundle("sh", "-c", "df -k /dev/shm; ls /dev", **options)
    launched = await launch(room, bundle, "one")
    assert not own & user_namespaces([launched.init_pid])
    await until(lambda: descendants(launched.monitor_pid) == [launched.init_pid])  # no zombie stays
    await launched.release()
    record = await launched.wait()
    assert record.code == 0, output(bundle)
    launched.close()
    assert ("\nmine\n" in output(bundle)) == (odd == "bind")
    assert (" 1024 " in output(bundle)) == (odd == "shm")
    assert not own & user_namespaces(descendants(room.client.pid or 0))


async def test_a_crew_that_is_replaced_or_loses_its_launcher_ends(room: Room, netns: Namespace) -> None:
    await parked(room, netns)
    launcher = room.client.pid
    assert launcher
    await until(lambda: len(descendants(launcher)) == 4)  # monitor, maker, init, helper
    first = descendants(launcher)
    await room.client.park("two", netns.fd, ID_BASE)
    await until(lambda: not any(map(start_ticks, first)))
    await until(lambda: len(descendants(launcher)) == 4)
    second = descendants(launcher)
    os.kill(launcher, signal.SIGKILL)
    await until(lambda: not any(map(start_ticks, second)))


async def test_a_failed_start_of_a_prepared_one_is_said_and_undone(room: Room, netns: Namespace) -> None:
    await parked(room, netns)
    launched = await launch(room, room.bundle("/missing", id_base=ID_BASE, netns=path_of(netns)), "one")
    with pytest.raises(StartFailed, match="no such file"):
        await launched.release()
    await parked(room, netns)
    bundle = room.bundle("true", id_base=ID_BASE, netns=path_of(netns))
    replace(room.plan("gone"), lowers=("nowhere",)).write(bundle / ROOT)
    with pytest.raises(StartFailed, match="step 3 root"):
        await launch(room, bundle, "one")
    await parked(room, netns)
    launched = await launch(room, room.bundle("true", id_base=ID_BASE, netns=path_of(netns)), "one")
    await launched.abandon()


@pytest.mark.parametrize("victim", range(4), ids=["monitor", "maker", "init", "helper"])
async def test_who_is_killed_at_any_moment_leaves_nothing(room: Room, netns: Namespace, victim: int) -> None:
    await room.client.start()
    launcher = room.client.pid
    assert launcher
    for delay_ms in range(0, 24, 3):
        await parked(room, netns)
        await until(lambda: len(descendants(launcher)) >= 4)
        pids = descendants(launcher)
        bundle = room.bundle("sleep", "60", id_base=ID_BASE, netns=path_of(netns))
        starting = asyncio.create_task(launch(room, bundle, "one", go=delay_ms % 2 == 1))
        await asyncio.sleep(delay_ms / 1000)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[victim], signal.SIGKILL)
        try:
            launched = await starting
        except StartFailed:
            continue
        with contextlib.suppress(ProcessLookupError):  # it was at its gate when it was killed
            os.kill(launched.monitor_pid, signal.SIGKILL)
        assert (await launched.wait()).unknown
        launched.close()


@pytest.mark.parametrize("victim", range(4), ids=["monitor", "maker", "init", "helper"])
async def test_one_that_was_killed_while_it_waited_costs_only_time(room: Room, netns: Namespace, victim: int) -> None:
    await parked(room, netns)
    launcher = room.client.pid
    assert launcher
    await until(lambda: len(descendants(launcher)) == 4)
    pid = descendants(launcher)[victim]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: "Z" in _state_of(pid) or start_ticks(pid) is None)
    launched = await launch(room, room.bundle("true", id_base=ID_BASE, netns=path_of(netns)), "one")
    await until(lambda: descendants(launched.monitor_pid) == [launched.init_pid])  # no zombie stays
    await launched.release()
    assert (await launched.wait()).code == 0
    launched.close()


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


@pytest.mark.parametrize("crew", ["", "one"])
async def test_a_start_may_begin_before_its_bundle_is_complete(room: Room, netns: Namespace, crew: str) -> None:
    if crew:
        await parked(room, netns)
    bundle = room.bundle("cat", "/etc/late", id_base=ID_BASE, netns=path_of(netns))
    root = (bundle / ROOT).read_bytes()
    (bundle / ROOT).unlink()
    underway = await room.client.begin(request_for(bundle, crew, go=True))
    await until(lambda: has_group(room, bundle))  # all goes on but for the root
    (room.store / f"up-{bundle.name}/etc").mkdir()
    (room.store / f"up-{bundle.name}/etc/late").write_text("in time\n")
    (bundle / ROOT).write_bytes(root)
    launched = await underway.complete()
    await launched.release()
    assert (await launched.wait()).code == 0, output(bundle)
    launched.close()
    await underway.abandon()  # is nothing now
    assert output(bundle) == "in time"


@pytest.mark.parametrize("crew", ["", "one"])
async def test_a_start_that_is_given_up_while_its_bundle_is_filled_is_undone(
    room: Room, netns: Namespace, crew: str
) -> None:
    for delay_ms in (0, 5, 40):
        if crew:
            await parked(room, netns)
        bundle = room.bundle("true", id_base=ID_BASE, netns=path_of(netns))
        underway = await room.client.begin(request_for(bundle, crew))
        await asyncio.sleep(delay_ms / 1000)
        await underway.abandon()
        assert not has_group(room, bundle)
        assert not (bundle / STATE).exists()


async def test_a_start_whose_engine_is_killed_while_its_bundle_is_filled_is_undone(
    room: Room, netns: Namespace
) -> None:
    """The engine is a process of its own here, which the launcher and all others outlive or follow."""
    bundle = room.bundle("true", id_base=ID_BASE, netns=path_of(netns))
    engine = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BEGINNER, str(bundle)), stdout=asyncio.subprocess.PIPE, pass_fds=(netns.fd,)
    )
    assert engine.stdout
    launcher = int(await engine.stdout.readline())
    await until(lambda: has_group(room, bundle))
    pids = descendants(launcher)
    assert pids
    engine.kill()
    await engine.wait()
    await until(lambda: not any(map(start_ticks, [launcher, *pids])))
    assert not has_group(room, bundle)


async def test_a_start_whose_launcher_is_killed_meanwhile_goes_on(room: Room, netns: Namespace) -> None:
    bundle = room.bundle("true", id_base=ID_BASE, netns=path_of(netns))
    underway = await room.client.begin(request_for(bundle, ""))
    assert room.client.pid
    os.kill(room.client.pid, signal.SIGKILL)
    launched = await underway.complete()
    await launched.release()
    assert (await launched.wait()).code == 0
    launched.close()


@pytest.mark.parametrize("crew", ["", "one"])
@pytest.mark.parametrize("name", ["proc", "sys"])
async def test_a_link_in_the_place_of_proc_or_sys_is_refused(
    room: Room, netns: Namespace, crew: str, name: str
) -> None:
    if crew:
        await parked(room, netns)
    plan = room.plan("c1")
    (room.store / "up-c1" / name).symlink_to("tmp")
    with pytest.raises(StartFailed, match=f"/{name} is a symbolic link"):
        await launch(room, room.bundle("true", plan=plan, id_base=ID_BASE, netns=path_of(netns)), crew)
