"""Every system call and file by which a program would reach the kernel, tried with all walls, with one alone, and with none."""

from __future__ import annotations

import re

import pytest

from tests.runtime.root.walls.conftest import ALL, COMMAND, HERE, Walls, Yard, kept, outcomes

pytestmark = pytest.mark.root

FILTER, CAPABILITIES, USER = "filter", "capabilities", "user"
MASKS, READONLY, DEVICES = "masks", "readonly", "devices"
EVERYTHING = frozenset((FILTER, CAPABILITIES, USER, MASKS, READONLY, DEVICES))

# Each attack with the walls that hold it, every one of them alone.
HELD = {
    "mount": {FILTER, CAPABILITIES},
    "mount_by_descriptor": {FILTER, CAPABILITIES},
    "open_tree": {FILTER, CAPABILITIES},
    "umount": {FILTER, CAPABILITIES},
    "move_masks_away": {FILTER, CAPABILITIES},
    "remount_writable": {FILTER, CAPABILITIES},
    "pivot_root": {FILTER, CAPABILITIES},
    "mount_cgroup_hierarchy": {FILTER, CAPABILITIES},
    "unshare_mounts": {FILTER, CAPABILITIES},
    "unshare_user": {FILTER},
    "clone_user": {FILTER},
    "clone3_user": {FILTER},
    "setns": {FILTER, CAPABILITIES},
    "set_host_name": {FILTER, CAPABILITIES},
    "init_module": {FILTER, CAPABILITIES, USER},
    "finit_module": {FILTER, CAPABILITIES, USER},
    "delete_module": {FILTER, CAPABILITIES, USER},
    "kexec_load": {FILTER, CAPABILITIES, USER},
    "kexec_file_load": {FILTER, CAPABILITIES, USER},
    "reboot": {FILTER, CAPABILITIES},
    "swapoff": {FILTER, CAPABILITIES, USER},
    "set_clock": {FILTER, CAPABILITIES, USER},
    "adjtimex": {CAPABILITIES, USER},
    "acct": {FILTER, CAPABILITIES, USER},
    "syslog": {FILTER, CAPABILITIES, USER},
    "bpf": {FILTER, CAPABILITIES, USER},
    "perf_event_open": {FILTER},
    "keyctl": {FILTER},
    "add_key": {FILTER},
    "request_key": {FILTER},
    "io_uring": {FILTER},
    "userfaultfd": {FILTER},
    "open_by_handle": {FILTER, CAPABILITIES},
    "fanotify": {FILTER},
    "numa_policy": {FILTER},
    "take_descriptor": {FILTER},
    "compare_kernel_objects": {FILTER},
    "no_address_randomisation": {FILTER},
    "kernel_crypto": {FILTER},
    "socket_of_virtual_machines": {FILTER},
    "write_proc_sys": {READONLY, USER},
    "write_core_pattern": {READONLY, USER},
    "write_sysrq": {READONLY, USER},
    "write_sys": {READONLY, USER},
    "write_uevent_helper": {READONLY, USER},
    "read_kcore": {MASKS, USER},
    "read_keys": {MASKS},
    "read_kernel_symbols": {MASKS},
    "read_kernel_log": {MASKS, USER},
    "look_into_firmware": {MASKS},
    "write_cgroup": {READONLY, USER},
    "make_cgroup": {READONLY, USER},
    "make_device": {USER},
    "make_and_open_device": {USER, DEVICES},
    "make_and_open_console": {USER, DEVICES},
    "open_device_of_image": {DEVICES},
}
NAMES = list(HELD)
LACKING = ("ENOSYS", "EAFNOSUPPORT", "ENOENT")  # of a kernel without the call, the family or the file

ENGINE, EXEC = "as the engine makes it", "by exec"
RUNS = {
    ENGINE: ALL,
    EXEC: ALL,
    "all": ALL,
    "as podman makes it": COMMAND,
    "no capabilities dropped, no user namespace": Walls(frozenset((CAPABILITIES, USER))),
    "no filter, no user namespace": Walls(frozenset((FILTER, USER))),
    "a user namespace alone": Walls(EVERYTHING - {USER}),
    "none": Walls(EVERYTHING),
}
_found: dict[str, dict[str, str]] = {}


def tried(yard: Yard, run: str) -> dict[str, str]:
    """All attacks in one container, once for all tests."""
    ways = {ENGINE: by_launcher, EXEC: by_exec}
    return kept(_found, run, lambda: ways[run](yard) if run in ways else yard.try_all(NAMES, RUNS[run]))


def by_launcher(yard: Yard) -> dict[str, str]:
    """With launcher, monitor and overlay."""
    code, said = yard.launch(yard.attacking(NAMES))
    assert code == 0, said
    return outcomes(said, NAMES)


def by_exec(yard: Yard) -> dict[str, str]:
    """In a container that runs already."""
    name, _ = yard.start(yard.spec("sleep", "600"))
    code, said = yard.command("exec", name, *yard.attacking(NAMES).process.args)
    assert code == 0, said
    return outcomes(said, NAMES)


@pytest.mark.parametrize("run", [run for run in RUNS if run != "none"])
def test_what_any_wall_holds_is_refused(yard: Yard, run: str) -> None:
    standing = EVERYTHING - RUNS[run].off
    through = [name for name, said in tried(yard, run).items() if HELD[name] & standing and said == "through"]
    assert through == []


@pytest.mark.parametrize("name", NAMES)
def test_it_gets_through_without_its_walls(yard: Yard, name: str) -> None:
    said = tried(yard, "none")[name]
    assert said == "through" or said in LACKING  # this kernel has nothing to attack there
    assert tried(yard, ENGINE)[name] != "through"


def test_every_attack_is_tried_with_each_of_its_walls_alone() -> None:
    for name, walls in HELD.items():
        for wall in walls:
            alone = [run for run, made in RUNS.items() if walls & (EVERYTHING - made.off) == {wall}]
            assert alone, f"{name} is never tried with {wall} alone"


def test_the_threat_model_names_every_attack_and_no_test_that_is_not_there() -> None:
    text = (HERE.parents[3] / "docs/threat-model.md").read_text()
    assert [name for name in NAMES if f"[{name}]" not in text] == []
    tests = "".join(path.read_text() for path in HERE.parents[2].rglob("test_*.py"))
    files = {path.stem for path in HERE.parents[2].rglob("test_*.py")}
    named = set(re.findall(r"\btest_[a-z0-9_]+", text)) - files
    assert [name for name in named if f"def {name}" not in tests] == []
