"""What an engine finds when it comes back, and what a dead one leaves behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.network.bridge import Networks
from runtime.network.leftovers import leftovers, names_of
from runtime.network.model import NetworkFault, NetworkInUse, PortBinding
from tests.runtime.root.network.conftest import Start
from tests.runtime.root.network.inside import HOST, inside, listen_in, reaches, socket_in, wait_until

pytestmark = pytest.mark.root


def run(*command: str) -> str:
    """Output of a command that must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def test_a_new_engine_finds_all_as_it_was(
    networks: Networks, start: Start, tmp_path: Path, run_dir: Path, pool: str
) -> None:
    team = await networks.create("team-a", labels={"k": "v"})
    (sandbox, endpoint), (peer, _) = await start("team-a", aliases=("web",)), await start("team-a")
    published = await networks.publish(endpoint, [PortBinding(container_port=80)])
    await networks.close()
    with listen_in(sandbox.path, 80):
        assert reaches(HOST, "127.0.0.1", published.ports[0].host_port)
        again = await Networks.open(tmp_path, run_dir, pool)
        assert again.get("team-a") == team
        assert again.endpoints(sandbox.container_id) == (published,)
        assert reaches(HOST, "127.0.0.1", published.ports[0].host_port)
        assert reaches(peer.path, endpoint.address, 80)
        await again.close()


async def test_bridges_and_firewall_that_someone_removed_are_made_again(
    networks: Networks, start: Start, tmp_path: Path, run_dir: Path, pool: str
) -> None:
    (sandbox, endpoint), (peer, _) = await start(), await start()
    port = (await networks.publish(endpoint, [PortBinding(container_port=80)])).ports[0].host_port
    await networks.close()
    run("ip", "link", "del", networks.get("bridge").bridge)
    for family in ("ip", "bridge"):
        run("nft", "delete", "table", family, names_of(tmp_path).table)
    again = await Networks.open(tmp_path, run_dir, pool)
    with listen_in(sandbox.path, 80):
        assert reaches(peer.path, endpoint.address, 80)
        assert reaches(HOST, "127.0.0.1", port)
        assert not reaches(peer.path, endpoint.gateway, port)
    await again.close()


async def test_a_sandbox_that_is_gone_is_forgotten_with_its_address(
    networks: Networks, start: Start, tmp_path: Path, run_dir: Path, pool: str
) -> None:
    sandbox, endpoint = await start()
    await networks.close()
    run("umount", str(sandbox.path))
    again = await Networks.open(tmp_path, run_dir, pool)
    assert again.sandbox(sandbox.container_id) is None
    assert again.members(endpoint.network_id) == ()
    await again.close()


async def test_links_and_namespaces_without_a_record_are_removed(
    networks: Networks, tmp_path: Path, run_dir: Path, pool: str
) -> None:
    await networks.close()
    stray, names = run_dir / "netns" / "0123456789ab", names_of(tmp_path)
    run("ip", "link", "add", f"{names.veth}77", "type", "veth", "peer", "name", f"{names.veth}78")
    run("ip", "link", "add", f"{names.bridge}9", "type", "bridge")
    stray.touch()
    run("unshare", "--net", "sh", "-c", f"mount --bind /proc/self/ns/net {stray}")
    again = await Networks.open(tmp_path, run_dir, pool)
    assert again.leftovers().count == 0
    assert list(stray.parent.iterdir()) == []
    await again.close()


PARKING = """
import asyncio, sys
from pathlib import Path
from runtime.network.bridge import Networks
async def main():
    networks = await Networks.open(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    parked = [await networks.park() for _ in range(3)]
    sandbox = await networks.adopt(parked[0], "ab" * 32)
    print("parked", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_parked_sandboxes_die_with_a_killed_engine(tmp_path: Path, run_dir: Path, pool: str) -> None:
    arguments = [sys.executable, "-c", PARKING, str(tmp_path), str(run_dir), pool]
    engine = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
    assert engine.stdout and await engine.stdout.readline() == b"parked\n"
    assert len(leftovers(tmp_path, run_dir, running=False).links) == 4
    engine.kill()
    await engine.wait()
    again = await Networks.open(tmp_path, run_dir, pool)
    bridge = again.get("bridge").bridge
    await asyncio.to_thread(wait_until, lambda: leftovers(tmp_path, run_dir, running=False).links == (bridge,))
    assert again.sandbox("ab" * 32) is not None
    await again.close()


async def test_fifty_sandboxes_at_once_leave_nothing(networks: Networks, start: Start) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    made = await asyncio.gather(*(start(rate_in_bps=10**7) for _ in range(50)))
    assert len({endpoint.address for _, endpoint in made}) == 50
    await asyncio.gather(*(networks.remove_sandbox(sandbox) for sandbox, _ in made))
    await asyncio.to_thread(wait_until, lambda: networks.leftovers().count == 0)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


async def test_a_second_engine_on_the_same_pool_passes_over_what_the_first_has(
    networks: Networks, tmp_path: Path
) -> None:
    taken = networks.get("bridge")
    other = await Networks.open(tmp_path / "other", tmp_path / "run", "10.231.0.0/16")
    try:
        assert other.get("bridge").subnet != taken.subnet
        with pytest.raises(NetworkInUse, match=rf"overlaps {taken.subnet}.*{taken.bridge}"):
            await other.create("asked", subnet=taken.subnet)
    finally:
        await other.destroy()


async def test_a_subnet_that_meets_another_network_is_refused(networks: Networks) -> None:
    with pytest.raises(NetworkInUse, match="of another network"):
        await networks.create("team-a", subnet=networks.get("bridge").subnet)


async def test_two_engines_live_side_by_side(start: Start, tmp_path: Path) -> None:
    other_state = tmp_path / "other"
    other_state.mkdir()
    other_run = tmp_path / "run"
    other = await Networks.open(other_state, other_run, f"10.231.{(os.getpid() + 8) % 16 * 16}.0/20")
    try:
        sandbox, endpoint = await start()
        stranger = await other.create_sandbox(secrets.token_hex(32))
        theirs = await other.connect(stranger, "bridge")
        published = await other.publish(theirs, [PortBinding(container_port=80)])
        with listen_in(sandbox.path, 80), listen_in(stranger.path, 80):
            assert reaches(HOST, theirs.address, 80)
            assert not reaches(stranger.path, endpoint.address, 80)
            assert not reaches(sandbox.path, theirs.address, 80)
            assert reaches(HOST, endpoint.gateway, published.ports[0].host_port)
            assert not reaches(sandbox.path, endpoint.gateway, published.ports[0].host_port)
    finally:
        await other.destroy()
    assert leftovers(other_state, other_run, running=False).count == 0


async def test_a_network_in_use_is_not_removed(networks: Networks, start: Start) -> None:
    await networks.create("team-a")
    sandbox, endpoint = await start("team-a")
    with pytest.raises(NetworkInUse, match=endpoint.container_id[:12]):
        await networks.remove("team-a")
    await networks.remove_sandbox(sandbox)
    await networks.remove("team-a")
    assert [network.name for network in networks.list()] == ["bridge"]


async def test_the_default_network_stays(networks: Networks) -> None:
    with pytest.raises(NetworkFault):
        await networks.remove("bridge")


async def test_an_address_rests_before_it_is_given_out_again(networks: Networks, start: Start) -> None:
    sandbox, first = await start()
    await networks.remove_sandbox(sandbox)
    _, second = await start()
    assert second.address != first.address


async def test_a_second_network_takes_over_the_default_route(networks: Networks, start: Start) -> None:
    team = await networks.create("team-a")
    sandbox, first = await start()
    second = await networks.connect(sandbox, team)
    assert second.interface == "eth1"
    assert "dev eth0" in inside(sandbox.path, lambda: run("ip", "route", "show", "default"))
    await networks.disconnect(first)
    await networks.disconnect(first)
    assert f"via {team.gateway} dev eth1" in inside(sandbox.path, lambda: run("ip", "route", "show", "default"))
    assert networks.endpoints(sandbox.container_id) == (second,)


STRANGER = """
import os, socket
os.setgroups([])
os.setresgid(54321, 54321, 54321)
os.setresuid(54321, 54321, 54321)
socket.socket().bind(("0.0.0.0", 80))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
print("bound and may ping")
"""


async def test_a_sandbox_lets_any_user_bind_low_ports_and_ping(start: Start) -> None:
    sandbox, _ = await start()
    said = run("nsenter", f"--net={sandbox.path}", sys.executable, "-I", "-S", "-c", STRANGER)
    assert said == "bound and may ping\n"


async def test_counters_are_the_containers_view(networks: Networks, start: Start) -> None:
    (receiver, server), (sender, client) = await start(), await start()
    with listen_in(receiver.path, 80) as listener, socket_in(sender.path) as sock:
        sock.connect((server.address, 80))
        taken, _ = listener.accept()
        sock.sendall(bytes(100_000))
        sock.close()
        while taken.recv(65536):
            pass
        taken.close()
    got, sent = networks.sample(server), networks.sample(client)
    assert got.rx_bytes > 100_000 > got.tx_bytes
    assert sent.tx_bytes > 100_000 > sent.rx_bytes


async def test_the_first_packet_after_connecting_arrives(networks: Networks, start: Start) -> None:
    """A lost first ARP reply costs a second: it happened in one of twenty connections, so forty are tried."""
    for _ in range(40):
        sandbox, endpoint = await start()
        with listen_in(sandbox.path, 80), socket_in(HOST) as client:
            client.settimeout(0.5)
            client.connect((endpoint.address, 80))
        await networks.remove_sandbox(sandbox)


async def test_a_connection_whose_caller_went_away_is_finished_and_on_record(networks: Networks) -> None:
    sandbox = await networks.create_sandbox(secrets.token_hex(32))
    caller = asyncio.create_task(networks.connect(sandbox, "bridge"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await networks.create("later")  # the thread does one thing after the other: by now the first is done
    assert [endpoint.network for endpoint in networks.endpoints(sandbox.container_id)] == ["bridge"]
