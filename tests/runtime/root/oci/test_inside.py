"""What a container sees of itself and of the host, read from inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.oci.default import DEFAULT_MOUNTS
from runtime.oci.spec import MASKED_PATHS, Mount
from tests.runtime.root.oci.conftest import Room

pytestmark = pytest.mark.root


async def test_it_sees_its_own_processes_host_name_and_groups_only(room: Room) -> None:
    record, said = await room.run("sh", "-c", "hostname; cut -d: -f3 /proc/self/cgroup | sort -u; ps -o pid= | wc -l")
    assert record.code == 0
    assert said.split() == ["c1", "/", "3"]  # sh, ps and wc


async def test_its_root_is_a_range_of_its_own_on_the_host(room: Room) -> None:
    bundle = room.bundle("sleep", "60", id_base=3_000_000)
    launched = await room.start(bundle)
    proc = Path(f"/proc/{launched.init_pid}")
    uids = next(line.split()[1:] for line in (proc / "status").read_text().splitlines() if line.startswith("Uid:"))
    assert set(uids) == {"3000000"}
    assert (proc / "uid_map").read_text().split() == ["0", "3000000", "65536"]
    room.cgroups.kill(room.group(bundle))
    assert (await launched.wait()).code == 137


async def test_no_descriptor_of_the_host_reaches_the_program(room: Room) -> None:
    _, said = await room.run("sh", "-c", "ls /proc/1/fd; true")
    assert said.split() == ["0", "1", "2"]


REFUSED = (
    "mount -t tmpfs none /tmp",
    "unshare -U true",
    "unshare -m true",
    "mknod /tmp/sda b 8 0",
    "echo 1 > /proc/sys/kernel/panic",
    "echo b > /proc/sysrq-trigger",
    "hostname other",
    "mkdir /sys/fs/cgroup/pids/x || mkdir /sys/fs/cgroup/x",
    "echo x > /sys/kernel/mm/ksm/run",
    "dd if=/proc/kcore of=/dev/null count=1 && test -s /proc/kcore",
    "swapon /tmp",
    "chroot /proc/1/root ls /var/tmp/none",
)


async def test_it_is_refused_what_would_reach_the_host(room: Room) -> None:
    lines = [f"({command}) >/dev/null 2>&1 && echo 'allowed: {command}'" for command in REFUSED]
    _, said = await room.run("sh", "-c", "\n".join([*lines, "(true) && echo tried all"]))
    assert said == "tried all"


async def test_masked_paths_are_empty_and_proc_sys_is_read_only(room: Room) -> None:
    paths = " ".join(MASKED_PATHS)
    script = (
        f"for p in {paths}; do test -d $p && ls $p; test -f $p && cat $p; done; cat /sys/block/* 2>/dev/null; echo end"
    )
    _, said = await room.run("sh", "-c", script)
    assert said == "end"


async def test_capabilities_and_filter_are_in_place(room: Room) -> None:
    _, said = await room.run("grep", "-E", "^(Cap|NoNew|Seccomp:)", "/proc/self/status", no_new_privileges=True)
    facts = dict(line.split(":\t") for line in said.splitlines())
    assert facts["CapBnd"] == facts["CapEff"] == facts["CapPrm"] == "00000000a80425fb"
    assert facts["CapInh"] == facts["CapAmb"] == "0000000000000000"
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")


async def test_a_user_by_name_gets_its_groups_home_and_no_capabilities(room: Room) -> None:
    script = "id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status; echo out > /dev/stdout"
    _, said = await room.run("sh", "-c", script, user="app")
    assert said.splitlines() == ["1000", "1000", "1000 33", "/home/app", "CapEff:\t0000000000000000", "out"]


async def test_what_it_writes_keeps_the_images_ids_on_disk(room: Room) -> None:
    record, _ = await room.run("sh", "-c", "echo x > /root.txt && chown 33:44 /root.txt && rm /etc/group")
    assert record.code == 0
    upper = room.store / "up-c1"
    assert ((upper / "root.txt").stat().st_uid, (upper / "root.txt").stat().st_gid) == (33, 44)
    assert (upper / "etc/group").is_char_device()  # a whiteout
    assert (room.store / "l/etc/group").exists()


async def test_a_read_only_root_refuses_writes_and_dev_shm_takes_them(room: Room) -> None:
    _, said = await room.run("sh", "-c", "touch /x; touch /dev/shm/y && echo shm", readonly=True)
    assert "Read-only file system" in said
    assert said.endswith("shm")


async def test_a_bound_folder_belongs_to_the_container_and_may_be_read_only(room: Room) -> None:
    volume = room.store / "volume"
    volume.mkdir()
    (volume / "old").write_text("kept")
    binds = (
        Mount(destination="/data", type="bind", source=str(volume), options=("rbind", "rw")),
        Mount(destination="/etc/resolv.conf", type="bind", source=str(volume / "old"), options=("bind", "ro")),
    )
    script = (
        "cat /data/old && echo new > /data/new && stat -c %u /data/new && cat /etc/resolv.conf; echo > /etc/resolv.conf"
    )
    _, said = await room.run("sh", "-c", script, binds=binds)
    assert {"kept0", "kept"} <= set(said.splitlines())
    assert "Read-only file system" in said
    assert (volume / "new").stat().st_uid == 0


async def test_a_symbolic_link_in_the_image_cannot_lead_a_mount_outside(room: Room) -> None:
    plan = room.plan("c1")
    outside = room.store / "outside"
    outside.mkdir()
    (room.store / "up-c1/dev").symlink_to(f"../../../../..{outside}")
    (room.store / "up-c1/linked").symlink_to("dangling/../../up")
    binds = (Mount(destination="/linked", type="bind", source=str(room.store / "l/etc"), options=("bind", "ro")),)
    record, _ = await room.run("sh", "-c", "test -c /dev/null && test -f /up/passwd", plan=plan, binds=binds)
    assert record.code == 0
    assert list(outside.iterdir()) == []


async def test_without_a_sandbox_it_has_a_loopback_and_may_bind_low_ports(room: Room) -> None:
    script = "ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1; nc -l -p 80 -w 1 </dev/null; echo $?; ls /sys/class/net"
    _, said = await room.run("sh", "-c", script, user="app")
    assert said.split()[:2] == ["1", "1"]
    assert said.split()[-1] == "lo"
    assert "ermission" not in said


def test_the_default_mounts_are_dockers() -> None:
    assert [mount.destination for mount in DEFAULT_MOUNTS][:2] == ["/proc", "/dev"]
