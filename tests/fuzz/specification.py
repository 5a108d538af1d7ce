"""Fuzzing of the specification's parser: `python -m tests.fuzz.specification [SECONDS [SEED]]`.

Bytes and values of valid configurations are changed at random, a fixed seed repeats a run. What comes of it must be read or refused
by a fault, in every part that reads a configuration before a process is made; nothing else may be raised, nothing may take long.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault
from runtime.kernel.cgroups import detect, devices
from runtime.oci import lifecycle, limits, mountplan, seccomp_profile, stage
from runtime.oci.default import Options, default
from runtime.oci.nsplan import NamespacePlan
from runtime.oci.spec import Mount, Spec

SEED = 20_260
SLOW_S = 2.0
BIND = Mount(destination="/data", type="bind", source="/v", options=("rbind", "ro", "idmap"))
PLAIN = default(
    Options(
        args=("sh", "-c", "true"), hostname="h", cgroups_path="top/a", id_base=1_048_576, user="app", binds=(BIND,),
        netns=Path("/run/n"), annotations={"a": "b"}, sysctl={"net.core.somaxconn": "1"}, shm_bytes=1 << 20,
    )
).to_json()  # fmt: skip
RARE: dict[str, Any] = {
    "process": {
        "user": {"uid": 1, "umask": 18, "additionalGids": [2]}, "terminal": True, "consoleSize": {"height": 2, "width": 3},
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4}, "execCPUAffinity": {"initial": "0-1,3", "final": "0"},
        "oomScoreAdj": 5, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
    },
    "hooks": {"prestart": [{"path": "/h", "args": ["h"], "env": ["A=b"], "timeout": 1}], "startContainer": [{"path": "/s"}]},
    "linux": {
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}}, "personality": {"domain": "LINUX32"},
        "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438}, {"type": "p", "path": "/dev/p"}],
        "rootfsPropagation": "rslave", "netDevices": {"eth0": {"name": "e"}}, "intelRdt": {"closID": "x"},
        "resources": {
            "memory": {"limit": 9, "swap": 10, "swappiness": 3, "reservation": 2}, "pids": {"limit": 3},
            "cpu": {"shares": 9, "quota": 1000, "period": 2000, "cpus": "0-1", "mems": "0", "burst": 1, "idle": 0},
            "blockIO": {"weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 9}],
                        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}], "rdma": {"m": {"hcaHandles": 1}},
            "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]}, "unified": {"memory.high": "1"},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{"names": ["mkdir", "no_such"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2,
                          "args": [{"index": 1, "value": 7, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}],
        },
    },
}  # fmt: skip


def merged(base: Any, more: Any) -> Any:
    """Objects with the keys of both, else the second."""
    if not (isinstance(base, dict) and isinstance(more, dict)):
        return more
    return base | {key: merged(base.get(key), value) for key, value in more.items()}


def namespaces(*kinds: str) -> dict[str, Any]:
    """The part of a configuration that lists them."""
    return {"linux": {"namespaces": [{"type": kind} for kind in kinds]}}


ALL = merged(merged(PLAIN, RARE), namespaces("user", "pid", "mount", "uts", "ipc", "cgroup", "network", "time"))
UNMAPPED = merged(
    ALL, merged(namespaces("mount", "uts", "network", "time"), {"linux": {"uidMappings": [], "gidMappings": []}})
)
CORPUS = (PLAIN, ALL, UNMAPPED, {"process": {"args": ["a"]}, **namespaces("mount")})
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30, 1.5, 1e300, float("inf"), float("nan"),
    "", "\0", "\ud800", "\udc80", "²", "x" * 5000, "/", "..", "a/../b", "/dev", "/proc", "0-99999999999", "-", ",", "rbind", "bind",
    "mount", "user", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "%s", "{}", [], {}, [[]], [None], [0], [""], {"": ""}, {"a": None},
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every object or list with each of its keys or indexes."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def changed(value: Any, rng: random.Random) -> Any:
    """A copy with one to three values replaced, moved, doubled or left out."""
    copy = deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        found = list(places(copy))
        if not found:
            break
        holder, key = rng.choice(found)
        match rng.randrange(5):
            case 0:
                del holder[key]
            case 1:
                holder[key] = [deepcopy(holder[key]) for _ in range(rng.randrange(4))]
            case 2:
                other, there = rng.choice(found)
                with contextlib.suppress(IndexError, KeyError):  # left out meanwhile
                    holder[key] = deepcopy(other[there])
            case _:
                holder[key] = deepcopy(rng.choice(ODD))
    return copy


def bent(data: bytes, rng: random.Random) -> bytes:
    """The same with some bytes changed, cut out or repeated."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(found) + 1), rng.choice((1, 1, 2, 8, 100))
        match rng.randrange(4):
            case 0:
                found[at : at + length] = rng.randbytes(length)
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = found[at : at + length] * rng.randint(1, 3)
            case _:
                found[at:at] = rng.choice(
                    (b"[", b"{", b'"', b"\\u0000", b"\\ud800", b"9" * 5000, b"[" * 100_000, b"\xff", b",")
                )
    return bytes(found)


def read(data: bytes) -> bool:
    """Read a configuration as a start does, up to its first process; False when it was refused. Raises nothing else."""
    try:
        spec = Spec.decode(data)
    except RuntimeFault:
        return False
    assert Spec.decode(json.dumps(spec.to_json()).encode()) == spec
    good = True
    for look in (_plans, _filter):
        try:
            look(spec)
        except RuntimeFault:
            good = False
    with contextlib.suppress(RuntimeFault):
        lifecycle.isolated(spec)
    return good


def _plans(spec: Spec) -> None:
    """What is decided from a configuration that was found right."""
    lifecycle.checked(spec)
    cgroups = detect()
    NamespacePlan.of(spec, cgroups)
    for version in (1, 2):
        with contextlib.suppress(RuntimeFault):  # each has what the other refuses
            limits.resources_of(spec.linux.resources, version)
    devices.program(limits.resources_of(spec.linux.resources).devices)
    limits.of_loop(spec.linux.resources.block_io, "loop3")
    for operation in mountplan.operations(spec):
        operation.describe()
    stage.late(spec, stage.ahead(spec, cgroups))


def _filter(spec: Spec) -> None:
    if spec.linux.seccomp:
        seccomp_profile.check(spec.linux.seccomp)


def one(rng: random.Random) -> tuple[bytes, bool]:
    """A changed configuration, and whether it was read. Raises what should not be, with the configuration in a note."""
    value = changed(rng.choice(CORPUS), rng)
    data = json.dumps(value).encode()
    if rng.random() < 0.3:
        data = bent(data, rng)
    started = time.perf_counter()
    try:
        good = read(data)
        assert time.perf_counter() - started < SLOW_S, "it took too long"
    except BaseException as error:
        error.add_note(f"configuration: {data[:6000]!r}")
        raise
    return data, good


def main(argv: list[str]) -> None:
    """For so many seconds, says how many were tried."""
    seconds, seed = float(argv[0]) if argv else 10.0, int(argv[1]) if len(argv) > 1 else SEED
    rng, end = random.Random(seed), time.monotonic() + seconds
    tried = good = 0
    while time.monotonic() < end:
        good += one(rng)[1]
        tried += 1
    print(f"{tried} configurations, {good} of them read, the others refused")


if __name__ == "__main__":
    main(sys.argv[1:])
