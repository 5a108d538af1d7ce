"""Resources that are written as they are named: which file on which version, and what a version does not have."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.oci import limitfiles
from runtime.oci.fields import SpecFault, decode
from runtime.oci.spec_resources import LinuxResources


def files(version: int, **resources: Any) -> list[tuple[str, str]]:
    return list(limitfiles.of(decode(LinuxResources, resources, "resources"), version))


def test_each_version_has_its_own_names() -> None:
    both: dict[str, Any] = {
        "cpu": {"burst": 5000, "idle": 1},
        "blockIO": {"weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 200}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 21}],
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 9}},
    }
    assert files(1, **both) == [
        ("cpu.cfs_burst_us", "5000"), ("cpu.idle", "1"), ("blkio.bfq.weight", "100"), ("blkio.bfq.weight_device", "8:0 200"),
        ("hugetlb.2MB.limit_in_bytes", "2097152"), ("rdma.max", "mlx5_1 hca_handle=3 hca_object=9"),
    ]  # fmt: skip
    assert files(2, **both) == [
        ("cpu.max.burst", "5000"), ("cpu.idle", "1"), ("io.bfq.weight", "100"), ("io.bfq.weight", "8:0 200"),
        ("hugetlb.2MB.max", "2097152"), ("rdma.max", "mlx5_1 hca_handle=3 hca_object=9"),
    ]  # fmt: skip


def test_what_only_one_version_has_is_named_on_the_other() -> None:
    old: dict[str, Any] = {
        "memory": {"swappiness": 10, "disableOOMKiller": True},
        "network": {"classID": 7, "priorities": [{"name": "lo", "priority": 3}]},
        "cpu": {"realtimeRuntime": 1, "realtimePeriod": 2},
    }
    assert dict(files(1, **old)) == {
        "memory.swappiness": "10", "memory.oom_control": "1", "net_cls.classid": "7", "net_prio.ifpriomap": "lo 3",
        "cpu.rt_period_us": "2", "cpu.rt_runtime_us": "1",
    }  # fmt: skip
    for part, fields in old.items():
        for name, value in fields.items():
            with pytest.raises(SpecFault, match=f"{part}.{name} is of cgroup v1"):
                files(2, **{part: {name: value}})
    assert files(2, unified={"memory.high": "5"}) == [("memory.high", "5")]
    with pytest.raises(SpecFault, match="this host has v1"):
        files(1, unified={"memory.high": "5"})


@pytest.mark.parametrize("name", ["../memory.high", "a/b", "cgroup.procs"])
def test_unified_names_files_of_controllers_alone(name: str) -> None:
    with pytest.raises(SpecFault, match="Name a controller's file"):
        files(2, unified={name: "1"})


def test_weights_of_leaves_are_gone() -> None:
    with pytest.raises(SpecFault, match="leafWeight"):
        files(1, blockIO={"leafWeight": 10})
