"""Control groups as functions of a path: both versions against folders with the kernel's file names."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from runtime.kernel.cgroups import CgroupFault, DeviceRate, DeviceRule, Resources, devices, files, v1, v2

MOUNTINFO_V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / {root}/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / {root}/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / {root}/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / {root}/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / {root}/unified rw,relatime - cgroup2 cgroup2 rw
"""


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def _v1(root: Path) -> v1.V1:
    names = ("cpu", "cpuacct", "memory", "pids", "blkio", "devices", "freezer")
    for name in names:
        (root / name).mkdir(exist_ok=True)
    return v1.V1({name: root / name for name in names})


def test_v1_is_found_by_its_controllers_also_when_two_share_a_mount(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(MOUNTINFO_V1.format(root=tmp_path))
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified/cgroup.controllers").write_text("hugetlb\n")
    assert v2.find(mountinfo) is None
    assert v1.find(mountinfo).mounts["cpuacct"] == tmp_path / "cpu,cpuacct"


def test_a_host_without_the_memory_controller_is_refused_by_name(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(MOUNTINFO_V1.format(root=tmp_path).replace("rw,memory", "rw,perf_event"))
    with pytest.raises(CgroupFault, match="no cgroup controller memory"):
        v1.find(mountinfo)


def test_v2_is_found_when_it_carries_the_controllers(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"41 31 0:38 / {tmp_path} rw,relatime - cgroup2 cgroup2 rw\n")
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    found = v2.find(mountinfo)
    assert found is not None
    assert found.root == tmp_path


def test_v1_sample_counts_memory_without_cache_that_can_be_dropped(tmp_path: Path) -> None:
    groups = _v1(tmp_path)
    _write(
        tmp_path / "memory/t/a",
        memory__usage_in_bytes="1000\n",
        memory__stat="cache 500\ntotal_cache 500\ntotal_inactive_file 300\n",
        memory__limit_in_bytes="9223372036854771712\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    )
    _write(tmp_path / "cpuacct/t/a", cpuacct__usage="123\n")
    _write(tmp_path / "cpu/t/a", cpu__stat="nr_periods 10\nnr_throttled 4\nthrottled_time 99\n")
    _write(tmp_path / "pids/t/a", pids__current="3\n", pids__max="max\n")
    bytes_moved = "8:0 Read 10\n8:0 Write 20\n7:0 Read 1\n8:0 Total 30\nTotal 31\n"
    _write(tmp_path / "blkio/t/a", blkio__throttle__io_service_bytes_recursive=bytes_moved)
    sample = groups.sample("t/a")
    assert (sample.memory_bytes, sample.cache_bytes, sample.memory_limit_bytes) == (700, 500, 0)
    assert (sample.cpu_ns, sample.throttled_ns, sample.throttled_periods, sample.periods) == (123, 99, 4, 10)
    assert (sample.pids, sample.pids_limit, sample.oom_kills) == (3, 0, 2)
    assert (sample.read_bytes, sample.write_bytes) == (11, 20)


def test_v2_sample_reads_the_unified_files(tmp_path: Path) -> None:
    _write(
        tmp_path / "t",
        cpu__stat="usage_usec 5\nnr_periods 2\nnr_throttled 1\nthrottled_usec 7\n",
        memory__current="4096\n",
        memory__stat="file 100\ninactive_file 96\n",
        memory__max="max\n",
        memory__events="low 0\noom 1\noom_kill 3\n",
        pids__current="2\n",
        pids__max="16\n",
        io__stat="8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1 rbytes=10 wbytes=0 rios=1 wios=0\n",
    )
    sample = v2.V2(tmp_path).sample("t")
    assert (sample.cpu_ns, sample.throttled_ns, sample.memory_bytes, sample.memory_limit_bytes) == (5000, 7000, 4000, 0)
    assert (sample.pids, sample.pids_limit, sample.oom_kills) == (2, 16, 3)
    assert (sample.read_bytes, sample.write_bytes, sample.read_ops, sample.write_ops) == (11, 2, 4, 4)


def test_a_sample_of_a_group_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        v2.V2(tmp_path).sample("gone")
    with pytest.raises(FileNotFoundError):
        _v1(tmp_path).sample("gone")


def test_v2_limits_are_written_in_the_kernels_words(tmp_path: Path) -> None:
    files = ("cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "pids.max", "io.max", "memory.oom.group")
    _write(tmp_path / "t", **{name.replace(".", "__"): "" for name in files})
    v2.V2(tmp_path).set_limits(
        "t",
        Resources(
            cpu_quota_us=50_000,
            cpu_weight=100,
            memory_bytes=1 << 20,
            swap_bytes=0,
            pids=-1,
            io=(DeviceRate(major=8, minor=0, write_bps=5),),
            oom_group=True,
        ),
    )
    written = {name: (tmp_path / "t" / name).read_text() for name in files}
    assert written == {
        "cpu.max": "50000 100000",
        "cpu.weight": "100",
        "memory.max": "1048576",
        "memory.swap.max": "0",
        "pids.max": "max",
        "io.max": "8:0 rbps=max wbps=5 riops=max wiops=max",
        "memory.oom.group": "1",
    }


def test_v1_weight_is_converted_to_shares(tmp_path: Path) -> None:
    groups = _v1(tmp_path)
    _write(tmp_path / "cpu/t", cpu__shares="")
    groups.set_limits("t", Resources(cpu_weight=100))
    assert (tmp_path / "cpu/t/cpu.shares").read_text() == "1024"


DENY_ALL = DeviceRule(allow=False)
RULES = (
    DENY_ALL,
    DeviceRule(allow=True, kind="c", access="m"),
    DeviceRule(allow=True, kind="c", major=1, minor=3),
    DeviceRule(allow=True, kind="c", major=136, access="rw"),
)


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "allowed"),
    [
        ("c", "rw", 1, 3, True),
        ("c", "rw", 1, 1, False),
        ("c", "m", 8, 0, True),
        ("b", "m", 8, 0, False),
        ("b", "r", 1, 3, False),
        ("c", "w", 136, 7, True),
        ("c", "wm", 136, 7, False),
    ],
)
def test_the_device_program_decides_by_the_last_rule_that_matches(
    kind: str, access: str, major: int, minor: int, allowed: bool
) -> None:
    kinds, bits = {"b": 1, "c": 2}, {"m": 1, "r": 2, "w": 4}
    asked = sum(bits[c] for c in access) << 16 | kinds[kind]
    assert bool(_interpret(devices.program(RULES), asked, major, minor)) is allowed


def _interpret(code: bytes, *context: int) -> int:
    """The seven eBPF instructions the program is made of."""
    registers, at = [0] * 11, 0
    while True:
        op, regs, offset, value = struct.unpack_from("<BBhi", code, at * 8)
        dst, src = regs & 15, regs >> 4
        at += 1
        match op:
            case 0xB7:
                registers[dst] = value
            case 0xBF:
                registers[dst] = registers[src]
            case 0x57:
                registers[dst] &= value
            case 0x77:
                registers[dst] >>= value
            case 0x61:
                registers[dst] = context[offset // 4]
            case 0x55:
                at += offset if registers[dst] != value else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"instruction {op:#x}")


@pytest.mark.parametrize(
    ("stat", "dying"),
    [
        ("nr_descendants 3\nnr_dying_descendants 7\n", 7),
        ("nr_dying_descendants 7\nnr_dying_subsys_memory 5\nnr_dying_subsys_pids 1\n", 5),
        ("", 0),
    ],
)
def test_v2_counts_dying_groups_of_memory_where_the_kernel_tells_them_apart(
    tmp_path: Path, stat: str, dying: int
) -> None:
    _write(tmp_path, cgroup__stat=stat)
    assert v2.V2(tmp_path).dying() == dying


@pytest.mark.parametrize(("stat", "asked"), [("active_file 300\ninactive_file 200\nanon 9\n", "500"), ("anon 9\n", "")])
def test_v2_gives_page_cache_back_and_asks_for_nothing_where_there_is_none(
    tmp_path: Path, stat: str, asked: str
) -> None:
    _write(tmp_path / "a", memory__stat=stat, memory__reclaim="")
    v2._reclaim(tmp_path / "a")
    assert (tmp_path / "a/memory.reclaim").read_text() == asked


def test_v2_marks_are_those_of_the_group_alone(tmp_path: Path) -> None:
    _write(
        tmp_path / "g",
        cpu__stat="usage_usec 7\nnr_periods 9\nnr_throttled 4\n",
        pids__current="3\n",
        pids__max="20\n",
        pids__events="max 9\n",
        memory__high="50331648\n",
        memory__swap__events="high 0\nmax 2\nfail 5\n",
        io__stat="8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1 rbytes=10\n",
    )
    group = v2.V2(tmp_path)
    marks = group.marks("g")
    assert (marks.cpu_ns, marks.throttled_periods, marks.forks_refused, marks.swap_at_max) == (7000, 4, 9, 2)
    assert (marks.memory_at_max, marks.memory_at_high, marks.memory_high_bytes) == (0, 0, 0)
    _write(tmp_path / "g", pids__events__local="max 1\n", memory__events__local="low 0\nhigh 5\nmax 6\noom 0\n")
    marks = group.marks("g")
    assert (marks.forks_refused, marks.memory_at_max, marks.memory_at_high, marks.memory_high_bytes) == (
        1,
        6,
        5,
        48 << 20,
    )
    assert group.devices("g") == {"8:0": (1, 2, 3, 4), "7:1": (10, 0, 0, 0)}


def test_v1_marks_and_devices(tmp_path: Path) -> None:
    group = _v1(tmp_path)
    _write(tmp_path / "cpu/g", cpu__stat="nr_periods 9\nnr_throttled 4\n")
    _write(tmp_path / "memory/g", memory__failcnt="6\n", memory__memsw__failcnt="2\n")
    _write(tmp_path / "pids/g", pids__events="max 9\n", pids__max="20\n", pids__current="3\n")
    _write(
        tmp_path / "blkio/g",
        blkio__throttle__io_service_bytes_recursive="8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
        blkio__throttle__io_serviced_recursive="8:0 Read 3\n8:0 Write 4\nTotal 7\n",
    )
    marks = group.marks("g")
    assert (marks.throttled_periods, marks.memory_at_max, marks.swap_at_max, marks.forks_refused) == (4, 6, 2, 9)
    assert group.devices("g") == {"8:0": (1, 2, 3, 4)}


def test_a_file_that_is_read_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    text = "0123456789abcde\n" * 10_000
    _write(tmp_path, long=text)
    assert files.read(tmp_path / "long") == text and files.read(tmp_path / "none") == ""
