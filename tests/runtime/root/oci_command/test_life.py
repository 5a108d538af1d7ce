"""Create, start, kill, delete and what lies between, as callers of an OCI runtime expect it."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.kernel.cgroups import detect
from runtime.kernel.process import start_ticks
from tests.runtime.root.oci_command.conftest import ROOT, RUNTIME, Room

pytestmark = pytest.mark.root


def test_a_container_goes_through_its_states(room: Room) -> None:
    pid_file = room.folder / "pid"
    config = room.config("sleep", "600") | {"annotations": {"org.example": "yes"}}
    name = room.created(config, "--pid-file", pid_file)
    state = room.state(name)
    assert (state["status"], state["annotations"], state["ociVersion"]) == ("created", {"org.example": "yes"}, "1.2.0")
    assert state["bundle"] == str(room.folder / "b1")
    assert state["pid"] == int(pid_file.read_text())
    assert Path(f"/proc/{state['pid']}/comm").read_text() != "sleep\n"
    room.said("start", name)
    assert Path(f"/proc/{state['pid']}/comm").read_text() == "sleep\n"
    assert room.state(name)["status"] == "running"
    assert "running, not created" in room.call("start", name).stderr
    assert "is running" in room.call("delete", name).stderr
    room.said("pause", name)
    assert room.state(name)["status"] == "paused"
    assert "paused, not running" in room.call("exec", name, "true").stderr
    room.said("resume", name)
    room.said("kill", name, "KILL")
    room.ended(state["pid"])
    assert (room.state(name)["status"], room.state(name)["pid"]) == ("stopped", 0)
    assert "not running" in room.call("kill", name, "9").stderr
    room.said("delete", name)
    done = room.call("state", name)
    assert (done.returncode, "does not exist" in done.stderr) == (1, True)
    assert room.call("delete", name).returncode == 1
    assert room.call("delete", "--force", name).returncode == 0


def test_one_that_was_never_started_is_deleted_as_it_is(room: Room) -> None:
    name = room.created(room.config("sleep", "600"))
    pid = room.state(name)["pid"]
    room.said("delete", name)
    assert start_ticks(pid) is None


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b"])
def test_an_id_that_is_none_is_refused(room: Room, name: str) -> None:
    bundle = room.bundle(room.config("true"))
    done = room.call("run", "--bundle", bundle, name)
    assert (done.returncode, "is no id" in done.stderr) == (1, True)


def test_an_id_is_taken_once(room: Room) -> None:
    name = room.created(room.config("sleep", "600"))
    done = room.call("create", "--bundle", room.folder / "b1", name)
    assert (done.returncode, "exists" in done.stderr) == (1, True)
    assert room.state(name)["status"] == "created"


def test_run_ends_with_the_programs_code(room: Room) -> None:
    assert room.run(room.config("sh", "-c", "exit 7")).returncode == 7
    config = room.config("sh", "-c", "kill -9 $$")  # which the first process of a namespace could not
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]
    assert room.run(config).returncode == 128 + 9
    assert list(room.states.glob("*")) == []


def test_run_hands_signals_on_and_keeps_or_detaches(room: Room) -> None:
    bundle = room.bundle(room.config("sh", "-c", "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.05; done"))
    running = subprocess.Popen(
        [RUNTIME, "--root", str(room.states), "run", "--keep", "--bundle", str(bundle), "c1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGTERM)
    assert running.stdout.readline() == "got\n"
    assert running.wait(20) == 3
    assert room.state("c1")["status"] == "stopped"
    room.said("delete", "c1")


def test_a_program_that_is_not_there_is_said_at_once_and_one_that_is_none_at_start(room: Room) -> None:
    done = room.call("create", "--bundle", room.bundle(room.config("/nowhere")), "c1")
    assert (done.returncode, "no such file or directory" in done.stderr) == (1, True)
    bundle = room.bundle(room.config("/etc/text"))
    (bundle / "rootfs/etc/text").write_text("words")
    (bundle / "rootfs/etc/text").chmod(0o755)
    name = "c2"
    null = subprocess.DEVNULL
    room.call("create", "--bundle", bundle, name, capture_output=False, stdin=null, stdout=null, stderr=null)
    done = room.call("start", name)
    assert (done.returncode, "exec format error" in done.stderr) == (1, True)
    done = room.run(room.config("/etc/passwd"))
    assert (done.returncode, "permission denied" in done.stderr) == (1, True)


def test_errors_are_in_the_log_as_runc_writes_them(room: Room) -> None:
    log = room.folder / "log"
    assert room.call("--log", log, "--log-format", "json", "state", "nobody").returncode == 1
    entry = json.loads(log.read_text())
    assert (entry["level"], "does not exist" in entry["msg"]) == ("error", True)
    assert room.call("--systemd-cgroup", "state", "x").returncode == 1
    assert "not supported" in room.call("checkpoint", "x").stderr
    assert room.call("nonsense").returncode == 1


def test_list_and_ps(room: Room) -> None:
    first, second = (room.started(room.config("sleep", "600")) for _ in range(2))
    assert room.said("list", "-q").split() == [first, second]
    assert [item["status"] for item in json.loads(room.said("list", "--format", "json"))] == ["running"] * 2
    assert room.said("list").splitlines()[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    pid = room.state(first)["pid"]
    assert json.loads(room.said("ps", "--format", "json", first)) == [pid]
    lines = room.said("ps", first).splitlines()
    assert len(lines) == 2
    assert str(pid) in lines[1]
    room.said("delete", "--force", "--regex", "c[12]")
    assert room.said("list", "-q").split() == []


def test_kill_all_and_a_shared_pid_namespace(room: Room) -> None:
    config = room.config("sh", "-c", "sleep 600 & sleep 601 & wait")
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]
    name = room.started(config)
    pids = json.loads(room.said("ps", "--format", "json", name))
    room.said("kill", name, "KILL")
    for pid in pids:
        room.ended(pid)
    room.said("delete", name)
    name = room.started(room.config("sh", "-c", "sleep 600 & trap '' USR1; wait"))
    room.said("kill", "--all", name, "USR1")
    room.said("kill", "--all", name, "KILL")
    room.said("delete", "--force", name)


def test_update_events_and_groups(room: Room) -> None:
    config = room.config("sleep", "600")
    config["linux"]["resources"] |= {"memory": {"limit": 64 << 20}, "pids": {"limit": 20}}
    name = room.started(config)
    room.said("update", "--memory", "96m", "--pids-limit", "30", name)
    resources = {"cpu": {"quota": 50_000, "period": 100_000}}
    room.said("update", "--resources", "-", name, input=json.dumps(resources))
    stats = json.loads(room.said("events", "--stats", name))
    assert (stats["type"], stats["id"]) == ("stats", name)
    assert stats["data"]["memory"]["usage"]["limit"] == 96 << 20
    assert stats["data"]["pids"] == {"current": 1, "limit": 30}
    assert detect().sample(f"{room.top}/b1").memory_limit_bytes == 96 << 20
    assert "Nothing is to be changed" in room.call("update", name).stderr


def test_without_a_manager_it_stays_in_the_callers_group(room: Room) -> None:
    bundle = room.bundle(room.config("cat", "/proc/self/cgroup"))
    said = room.said("--cgroup-manager", "disabled", "run", "--bundle", bundle, "c1")
    assert said.splitlines() == [
        line for line in said.splitlines() if line.endswith(":/")
    ]  # the root of its own namespace
    assert detect().list(room.top) == []


def test_nothing_is_mounted_on_a_host_whose_mounts_are_shared(room: Room) -> None:
    """As systemd makes them; pivot_root(2) refuses such a root too."""
    bundle = room.bundle(room.config("true"))
    script = 'shared=$(grep -c " / / .* shared:" /proc/self/mountinfo); "$@" && echo "$shared $(grep -c rootfs /proc/self/mountinfo)"'
    command = ("unshare", "--mount", "--propagation", "shared", "sh", "-c", script, "sh")
    done = subprocess.run(
        [*command, RUNTIME, "--root", str(room.states), "run", "--bundle", str(bundle), "c1"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout == "1 0\n", done.stderr


def test_a_group_that_others_are_in_is_refused_and_they_live_on(room: Room) -> None:
    first = room.started(room.config("sleep", "600"))
    config = room.config("true")
    config["linux"]["cgroupsPath"] = f"/{room.top}/b1"
    done = room.run(config)
    assert (done.returncode, "holds 1 processes already" in done.stderr) == (1, True)
    assert room.state(first)["status"] == "running"


def test_a_terminal_that_is_not_its_own_is_inherited_as_it_is(room: Room) -> None:
    ours, theirs = os.openpty()
    config = room.config("sh", "-c", "test -t 1 && echo yes")
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle = room.bundle(config)
    command = [RUNTIME, "--root", str(room.states), "run", "--bundle", str(bundle), "c1"]
    done = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, check=False, timeout=60)
    assert (done.returncode, os.read(ours, 100)) == (0, b"yes\r\n")
    assert os.fstat(theirs).st_uid == os.getuid()
    os.close(ours)
    os.close(theirs)


def chmod_of_interpreter(pid: int) -> int:
    """What comes of giving the file behind /proc/PID/exe the mode it has: 0, or the error's number. Changes nothing."""
    exe = Path(f"/proc/{pid}/exe")
    try:
        exe.chmod(stat.S_IMODE(exe.stat().st_mode))
    except OSError as error:
        return error.errno or -1
    return 0


def test_the_interpreter_of_an_init_at_its_gate_cannot_be_changed(room: Room) -> None:
    """CVE-2019-5736. Writing itself would be refused while the file runs, but not after: so its mode is what is tried."""
    name = room.created(room.config("sleep", "600"))
    assert chmod_of_interpreter(room.state(name)["pid"]) == errno.EROFS
    unshielded = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runtime.oci.command.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["--root", str(room.states), "create", "--bundle", str(room.bundle(room.config("sleep", "600"))), "c2"]
    null = subprocess.DEVNULL
    command = [sys.executable, "-I", "-S", "-c", unshielded, str(ROOT), *words]
    assert subprocess.run(command, stdin=null, stdout=null, stderr=null, check=False).returncode == 0
    assert chmod_of_interpreter(room.state("c2")["pid"]) == 0


def test_features_and_spec(room: Room) -> None:
    features = json.loads(room.said("features"))
    assert features["linux"]["cgroup"]["v2"]
    assert "startContainer" in features["hooks"]
    assert {"rro", "tmpcopyup", "idmap"} <= set(features["mountOptions"])
    folder = room.folder / "new"
    folder.mkdir()
    room.said("spec", "--bundle", folder)
    written = json.loads((folder / "config.json").read_text())
    assert written["process"]["terminal"]
    assert room.call("spec", "--bundle", folder).returncode == 1
    assert "moorage-oci" in room.said("--version")
