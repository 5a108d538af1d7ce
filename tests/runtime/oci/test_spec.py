"""The specification: strict where it is read, Docker's where it is made."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.kernel.cgroups import UNLIMITED, DeviceRate
from runtime.oci import launcher, lifecycle, limits, mountplan, scheduling, seccomp_profile, users
from runtime.oci.default import Options, default
from runtime.oci.fields import SpecFault
from runtime.oci.spec import Device, IdMapping, Mount, NetDevice, Seccomp, SeccompArg, SeccompSyscall, Spec
from runtime.oci.spec_resources import (
    NO_DEVICE,
    BlockIO,
    Cpu,
    DeviceRuleSpec,
    LinuxResources,
    Memory,
    Pids,
    ThrottleDevice,
)

OPTIONS = Options(args=("sh",), hostname="h" * 80, cgroups_path="top/t/a/i", id_base=200_000, user="app")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    spec = default(replace(OPTIONS, netns=Path("/run/n"), annotations={"a": "b"}))
    spec.write(tmp_path / "config.json")
    assert Spec.read(tmp_path / "config.json") == spec
    assert len(spec.hostname) == 63


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": {"args": "sh"}}, r"config.process.args is str, not a list"),
        ({"process": {"args": [1]}}, r"config.process.args\[0\] is int, not str"),
        ({"process": {"args": ["a\0b"]}}, "NUL"),
        ({"process": {}}, "config.process lacks a field"),
        ({"process": {"args": ["a"], "noNewPrivileges": "yes"}}, "noNewPrivileges is str, not bool"),
        ({"process": {"args": ["a"]}, "linux": {"uidMappings": [{"hostID": 1}]}}, "uidMappings.0. lacks a field"),
        ([], "config is list, not an object"),
    ],
)
def test_a_wrong_type_is_named_by_its_place(change: object, words: str) -> None:
    with pytest.raises(SpecFault, match=words):
        Spec.parse(change)


def test_unknown_keys_are_left_out() -> None:
    spec = Spec.parse({"process": {"args": ["a"], "apparmorProfile": "x"}, "solaris": {}})
    assert spec.process.args == ("a",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cgroups_path": ""}, "cgroupsPath"),
        ({"cgroups_path": "../memory"}, "cgroupsPath"),
        ({"cgroups_path": "/top"}, "cgroupsPath"),
        ({"uid_mappings": ()}, "id maps"),
        ({"namespaces": ()}, "user, pid, mount"),
        ({"net_devices": {"eth0": NetDevice()}}, "interfaces of the host's"),
        ({"uid_mappings": (IdMapping(container_id=0, host_id=0, size=65_536),)}, "begins at 0"),
        ({"gid_mappings": (IdMapping(container_id=0, host_id=1000, size=1),)}, "begins at 1000"),
        *(
            ({"sysctl": {name: "1"}}, "would reach the host")
            for name in (
                "net.x/../../kernel/panic",
                "net/../kernel/core_pattern",
                "net.//.kernel.core_pattern",
                "net",
                "net.",
                "net//x",
                "/net/x",
                ".net.x",
                "net/./x",
                "net...kernel.panic",
                "kernel.panic",
                "kernel/core_pattern",
                "",
                "fs.mqueue/../../kernel/panic",
                "net/ipv4/..",
            )
        ),
    ],
)
def test_a_spec_that_would_reach_the_host_is_refused(change: dict[str, object], words: str) -> None:
    spec = default(OPTIONS)
    with pytest.raises(SpecFault, match=words):
        lifecycle.isolated(replace(spec, linux=replace(spec.linux, **change)))  # type: ignore[arg-type]


def test_host_network_takes_no_network_sysctl() -> None:
    with pytest.raises(SpecFault, match=r"net\.core"):
        lifecycle.isolated(default(replace(OPTIONS, host_network=True, sysctl={"net.core.somaxconn": "1"})))


def test_resources_become_limits_of_a_group() -> None:
    rate = ThrottleDevice(major=8, minor=0, rate=5)
    io = BlockIO(throttle_read_bps_device=(rate,), throttle_write_iops_device=(rate,))
    found = limits.resources_of(
        LinuxResources(
            memory=Memory(limit=100, swap=150),
            cpu=Cpu(shares=2048, quota=50_000),
            pids=Pids(limit=0),
            block_io=io,
        )
    )
    assert (found.memory_bytes, found.swap_bytes, found.pids, found.cpu_weight) == (100, 50, UNLIMITED, 200)
    assert found.io == (DeviceRate(major=8, minor=0, read_bps=5, write_iops=5),)
    assert limits.of_loop(io, "loop3") == (DeviceRate(major=7, minor=3, read_bps=5, write_iops=5),)
    assert limits.of_loop(io, "") == ()


def test_rates_of_a_store_without_a_device_are_for_the_loop_device_alone() -> None:
    major, minor = NO_DEVICE
    io = BlockIO(throttle_read_bps_device=(ThrottleDevice(major=major, minor=minor, rate=5),))
    assert limits.resources_of(LinuxResources(block_io=io)).io == ()
    assert limits.of_loop(io, "loop3") == (DeviceRate(major=7, minor=3, read_bps=5),)


def test_the_mount_plan_reads_as_what_will_be_done() -> None:
    bind = Mount(destination="/data", type="bind", source="/v", options=("rbind",))
    plan = [step.describe() for step in mountplan.operations(default(replace(OPTIONS, binds=(bind,))))]
    assert plan[:3] == ["mount proc on /proc", "mount tmpfs on /dev", "attach device:/dev/null on /dev/null"]
    assert "mount sysfs on /sys" in plan  # its own network's, since no other is given
    assert "attach bind:7 on /data" in plan
    assert "mask /proc/kcore" in plan
    assert plan[-1] == "make /proc/sysrq-trigger read-only"


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0, ())),
        ("app", (1000, 1001, (33, 44))),
        ("1000", (1000, 1001, (33, 44))),
        ("app:extra", (1000, 33, ())),
        ("77", (77, 0, ())),
        ("77:88", (77, 88, ())),
    ],
)
def test_users_are_looked_up_as_docker_does(tmp_path: Path, user: str, ids: tuple[int, int, tuple[int, ...]]) -> None:
    found = users.resolve(user, **_tables(tmp_path))
    assert (found.uid, found.gid, found.groups) == ids


@pytest.mark.parametrize("user", ["nobody", "app:nogroup", "70000", "-1", "bad:0", "big"])
def test_users_that_cannot_be_are_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(users.RuntimeFault):
        users.resolve(user, **_tables(tmp_path))


def test_a_pipe_in_place_of_passwd_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "passwd")
    assert users.resolve("5", passwd=str(tmp_path / "passwd"), group="/none").uid == 5


def _tables(folder: Path) -> dict[str, str]:
    (folder / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nshort:x\n\xff:x:1:1\napp:x:1000:1001::/home/app:/bin/sh\nbig:x:99999999999:0:::\n"
    )
    (folder / "group").write_text("extra:x:33:other,app\nmore:x:44:app\nodd:x:zz:app\n")
    return {"passwd": str(folder / "passwd"), "group": str(folder / "group")}


def test_the_launcher_loads_only_what_monitors_need() -> None:
    root = str(Path(launcher.__file__).parents[2])
    probe = "import sys; sys.path.insert(0, sys.argv[1]); import runtime.oci.launcher; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", probe, root], capture_output=True, text=True, check=True
    ).stdout.split()
    unwanted = {"asyncio", "logging", "ssl", "pyroute2", "aiohttp", "threading", "http", "email", "hashlib"}
    assert not unwanted & set(loaded)


@pytest.mark.parametrize("change", [{"type": "x"}, {"access": "rx"}, {"access": "", "type": "c"}, {"major": -2}])
def test_a_device_rule_that_is_none_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(SpecFault, match=r"linux\.resources\.devices"):
        limits.resources_of(LinuxResources(devices=(DeviceRuleSpec(**{"allow": True, "access": "r"} | change),)))  # type: ignore[arg-type]


def test_minus_one_in_a_device_rule_is_any() -> None:
    (rule,) = limits.resources_of(
        LinuxResources(devices=(DeviceRuleSpec(allow=True, type="c", major=-1, minor=3),))
    ).devices
    assert (rule.major, rule.minor) == (None, 3)


@pytest.mark.parametrize("device", [("x", 1, 1), ("c", 1 << 12, 0), ("b", 7, -1)])
def test_a_device_that_is_none_is_refused(device: tuple[str, int, int]) -> None:
    kind, major, minor = device
    with pytest.raises(SpecFault, match=r"linux\.devices has /dev/x"):
        mountplan.node(Device(type=kind, path="/dev/x", major=major, minor=minor))


@pytest.mark.parametrize("text", ["0-99999999999", "²", "1-", "-1", ",", "a"])
def test_what_is_no_list_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(SpecFault, match="no list of CPUs"):
        scheduling.cpus(text)


def test_a_negative_value_of_a_seccomp_condition_is_refused() -> None:
    arg = SeccompArg(index=0, value=-1, op="SCMP_CMP_EQ")
    entry = SeccompSyscall(names=("mkdir",), action="SCMP_ACT_ALLOW", args=(arg,))
    with pytest.raises(SpecFault, match="negative"):
        seccomp_profile.program(Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(entry,)))
