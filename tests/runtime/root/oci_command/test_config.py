"""What the configuration asks for, seen from inside: namespaces, mounts, devices, hooks, terminal, scheduling."""

from __future__ import annotations

import array
import json
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.runtime.root.oci_command.conftest import RUNTIME, Config, Room

pytestmark = pytest.mark.root


def without(config: Config, *kinds: str) -> Config:
    """The same with these namespaces shared with the host."""
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] not in kinds]
    return config


def mapped(config: Config) -> Config:
    """The same in a user namespace."""
    config["linux"]["namespaces"].append({"type": "user"})
    ids = [{"containerID": 0, "hostID": 500_000, "size": 65_536}]
    config["linux"] |= {"uidMappings": ids, "gidMappings": ids}
    return config


def test_namespaces_are_the_hosts_or_its_own(room: Room) -> None:
    script = 'for n in ipc net pid uts user cgroup; do echo "$n $(readlink /proc/self/ns/$n)"; done'
    said = room.output(without(room.config("sh", "-c", script), "network", "ipc"))
    inside = dict(line.split() for line in said.splitlines())
    same = {kind for kind, name in inside.items() if name == str(Path(f"/proc/self/ns/{kind}").readlink())}
    assert same == {"net", "ipc", "user"}


def test_namespaces_of_another_are_joined(room: Room) -> None:
    first = room.started(mapped(room.config("sleep", "600")))
    pid = room.state(first)["pid"]
    names = {"user": "user", "pid": "pid", "uts": "uts", "ipc": "ipc", "network": "net", "cgroup": "cgroup"}
    script = "for n in user pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done; id -u; cat /proc/1/comm"
    config = room.config("sh", "-c", script)
    config.pop("hostname")
    config["linux"]["namespaces"] = [{"type": kind, "path": f"/proc/{pid}/ns/{file}"} for kind, file in names.items()]
    config["linux"]["namespaces"].append({"type": "mount"})
    config["linux"]["maskedPaths"] = []
    # sysfs of a network namespace that another user namespace owns is the runtime's to mount
    said = room.output(config).splitlines()
    assert said[:6] == [str(Path(f"/proc/{pid}/ns/{file}").readlink()) for file in names.values()]
    assert said[6:] == ["0", "sleep"]


def test_a_user_namespace_has_its_ids_and_lent_devices(room: Room) -> None:
    config = mapped(room.config("sh", "-c", "cat /proc/self/uid_map; stat -c '%t:%T %u' /dev/null /dev/mine; id -u"))
    config["linux"]["devices"] = [
        {"type": "c", "path": "/dev/mine", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 7}
    ]
    bundle = room.bundle(config)
    subprocess.run(["chown", "-Rh", "500000:500000", bundle / "rootfs"], check=True)
    said = room.said("run", "--bundle", bundle, "c1").split("\n")
    assert said[0].split() == ["0", "500000", "65536"]
    assert said[1:4] == ["1:3 65534", "1:5 7", "0"]


def test_devices_without_a_user_namespace_are_its_own(room: Room) -> None:
    before = stat.S_IMODE(Path("/dev/null").stat().st_mode)
    config = room.config(
        "sh",
        "-c",
        "stat -c '%t:%T %a %u' /dev/null /dev/mine /dev/pipe; chmod 600 /dev/null; cat /dev/mine | head -c 0",
    )
    config["linux"]["devices"] = [
        {"type": "c", "path": "/dev/mine", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7},
        {"type": "p", "path": "/dev/pipe"},
    ]
    assert room.output(config).split("\n")[:3] == ["1:3 666 0", "1:5 640 7", "0:0 666 0"]
    assert stat.S_IMODE(Path("/dev/null").stat().st_mode) == before


def test_clocks_of_a_time_namespace(room: Room) -> None:
    config = room.config("cat", "/proc/uptime", "/proc/self/timens_offsets")
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5, "nanosecs": 7}}
    said = room.output(config)
    assert float(said.split()[0]) > 1_000_000
    assert "monotonic" in said


def test_mount_options(room: Room) -> None:
    source = room.folder / "source"
    (source / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "below"], check=True)
    try:
        config = room.config(
            "sh", "-c",
            "cat /up/a; stat -c %a /up; touch /up/new; touch /plain/below/x || echo ro-below; touch /plain/y || echo ro; touch /slave/y && echo rw;"
            "cd /; ls /one/below | wc -l; grep -c ' /slave .*master:' /proc/self/mountinfo; grep ' /private ' /proc/self/mountinfo",
        )  # fmt: skip
        config["mounts"] += [
            {"destination": "/up", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nodev", "mode=700"]},
            {"destination": "/plain", "source": str(source), "options": ["rbind", "rro"]},
            {"destination": "/one", "source": str(source), "options": ["bind", "ro", "nosuid", "noatime"]},
            {"destination": "/slave", "source": str(source), "options": ["rbind", "rslave"]},
            {"destination": "/private", "source": str(source), "options": ["bind", "private", "nosymfollow"]},
        ]
        bundle = room.bundle(config)
        up = bundle / "rootfs/up"
        up.mkdir(mode=0o751)
        up.chmod(0o751)
        (up / "a").write_text("copied\n")
        done = room.call("run", "--bundle", bundle, "c1")
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert said[:5] == ["copied", "751", "ro-below", "ro", "rw"], done.stderr
        assert said[5] == "0"
        assert (source / "y").exists()
        assert not (up / "new").exists()
        assert "nosymfollow" in said[-1]
        assert "shared:" not in said[-1]
    finally:
        subprocess.run(["umount", source / "below"], check=True)


def test_ids_of_a_bind_are_mapped_when_asked(room: Room) -> None:
    source = room.folder / "files"
    source.mkdir()
    (source / "a").touch()
    config = room.config("stat", "-c", "%u", "/plain/a", "/mapped/a", "/other/a")
    ids = [{"containerID": 0, "hostID": 1000, "size": 1}]
    config["mounts"] += [
        {"destination": "/plain", "type": "bind", "source": str(source), "options": ["rbind"]},
        {"destination": "/mapped", "type": "bind", "source": str(source), "options": ["bind", "idmap"]},
        {"destination": "/other", "type": "bind", "source": str(source), "options": ["bind", "idmap"],
         "uidMappings": [{"containerID": 0, "hostID": 501_000, "size": 1}],
         "gidMappings": [{"containerID": 0, "hostID": 501_000, "size": 1}]},
    ]  # fmt: skip
    del ids
    bundle = room.bundle(mapped(config))
    subprocess.run(["chown", "-Rh", "500000:500000", bundle / "rootfs"], check=True)
    assert room.said("run", "--bundle", bundle, "c1").split() == ["65534", "0", "1000"]


def test_hooks_run_in_their_order_with_the_state(room: Room) -> None:
    log = room.folder / "hooks"
    script = room.folder / "hook"
    script.write_text(
        f'#!/bin/sh\nread -r state; echo "$1 $(echo "$state" | sed \'s/.*"status": "\\([a-z]*\\)".*/\\1/\')" >>{log}\n'
    )
    script.chmod(0o755)

    def hook(name: str) -> list[Config]:
        return [{"path": str(script), "args": ["hook", name], "env": ["PATH=/bin:/usr/bin"]}]

    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    config = room.config("sh", "-c", "cat /started") | {"hooks": {kind: hook(kind) for kind in kinds}}
    config["hooks"]["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", "cat >/started; echo inside >>/started"], "env": ["PATH=/bin"]}
    ]
    said = room.output(config)
    assert '"status": "created"' in said
    assert said.endswith("inside\n")
    assert log.read_text().splitlines() == [
        "prestart creating", "createRuntime creating", "createContainer creating", "poststart running", "poststop stopped",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_a_hook_that_fails_ends_the_container(room: Room, kind: str) -> None:
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo no luck >&2; exit 3"]}
    config = room.config("sleep", "600") | {"hooks": {kind: [failing]}}
    done = room.run(config)
    assert done.returncode == 1
    assert "ended with status 3: no luck" in done.stderr


def test_late_hooks_that_fail_are_warnings_and_slow_ones_are_ended(room: Room) -> None:
    failing = {"path": "/bin/false"}
    config = room.config("true") | {"hooks": {"poststart": [failing], "poststop": [failing]}}
    done = room.run(config)
    assert (done.returncode, done.stderr.count("warning: The hook /bin/false")) == (0, 2)
    slow = {"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}
    assert "longer than its 1 s" in room.run(room.config("true") | {"hooks": {"createRuntime": [slow]}}).stderr


def received(console: socket.socket) -> int:
    """The terminal that came to a console socket."""
    connection, _ = console.accept()
    with connection:
        _, ancillary, _, _ = connection.recvmsg(64, socket.CMSG_SPACE(4))
    return array.array("i", ancillary[0][2])[0]


def read_all(fd: int) -> str:
    """Until the terminal's program has gone."""
    text = b""
    while True:
        try:
            text += os.read(fd, 4096)
        except OSError:
            os.close(fd)
            return text.decode()


def test_a_terminal_goes_to_the_console_socket(room: Room, console: socket.socket) -> None:
    config = room.config("sh", "-c", "tty; stty size; echo on; ls -l /dev/console")
    config["process"] |= {"terminal": True, "consoleSize": {"height": 41, "width": 123}}
    name = room.created(config, "--console-socket", room.folder / "console")
    fd = received(console)
    room.said("start", name)
    said = read_all(fd)
    assert "/dev/pts/0" in said
    assert "41 123" in said
    assert "136,   0" in said, said
    room.ended(room.state(name)["pid"] or 1 << 22)
    assert "nobody is there" in room.call("create", "--bundle", room.bundle(config), "c9").stderr


def test_a_link_in_the_place_of_the_console_is_no_place(room: Room) -> None:
    config = room.config("sh", "-c", "cat /tmp/own; head -c 1 /dev/console")
    config["process"]["terminal"] = True
    devices = room.folder / "devices"
    devices.mkdir()
    (devices / "console").symlink_to("/proc/self/attr/current")
    os.mknod(devices / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for mount in config["mounts"]:
        if mount["destination"] == "/dev":
            mount |= {"type": "bind", "source": str(devices), "options": ["bind"]}
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev/")]
    config["mounts"].append(
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]}
    )
    done = room.run(config)
    assert (done.returncode, "symbolic links" in done.stderr) == (1, True), done.stderr


def test_exec_takes_a_terminal_too(room: Room, console: socket.socket) -> None:
    name = room.started(room.config("sleep", "600"))
    room.said("exec", "--tty", "--detach", "--console-socket", room.folder / "console", name, "tty")
    assert "/dev/pts/0" in read_all(received(console))


def test_exec(room: Room) -> None:
    name = room.started(room.config("sleep", "600"))
    done = room.call(
        "exec", "--env", "A=1", "--cwd", "/tmp", "--user", "1000:1000", name, "sh", "-c", "echo $A $PWD; id; exit 5"
    )
    assert (done.returncode, done.stdout) == (5, "1 /tmp\nuid=1000(app) gid=1000\n"), done.stderr
    assert room.call("exec", name, "/nowhere").returncode == 255
    process = {"args": ["sh", "-c", "grep -E 'CapEff|NoNewPrivs' /proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
               "noNewPrivileges": True, "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}}  # fmt: skip
    (room.folder / "process").write_text(json.dumps(process))
    said = room.said("exec", "--process", room.folder / "process", name)
    assert dict(line.split() for line in said.splitlines()) == {"NoNewPrivs:": "1", "CapEff:": "0000000000000020"}
    said = room.said("exec", "--cap", "CAP_SYS_PTRACE", name, "sh", "-c", "grep CapEff /proc/self/status")
    assert int(said.split()[1], 16) >> 19 & 1
    pid_file = room.folder / "exec-pid"
    with Path(os.devnull).open("w") as null:
        room.call(
            "exec",
            "--detach",
            "--pid-file",
            pid_file,
            name,
            "sleep",
            "601",
            capture_output=False,
            stdout=null,
            stderr=null,
        )
    assert Path(f"/proc/{pid_file.read_text()}/cmdline").read_bytes() == b"sleep\x00601\x00"


def test_exec_on_cpus_of_its_own(room: Room) -> None:
    name = room.started(room.config("sleep", "600"))
    process = {"args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"]}
    for affinity in ({"initial": "0-1", "final": "1"}, {"initial": "1"}):
        (room.folder / "process").write_text(json.dumps(process | {"execCPUAffinity": affinity}))
        assert room.said("exec", "--process", room.folder / "process", name).split()[1] == "1"
    (room.folder / "process").write_text(json.dumps(process | {"execCPUAffinity": {"final": "one"}}))
    assert "no list of CPUs" in room.call("exec", "--process", room.folder / "process", name).stderr


def test_descriptors_are_handed_on_by_number(room: Room) -> None:
    config = room.config("sh", "-c", "cat <&3; cat <&5; ls /proc/self/fd | tr '\\n' ' '")
    bundle = room.bundle(config)
    for number in (3, 5):
        (room.folder / f"f{number}").write_text(f"from {number}\n")
    script = f'exec 3<{room.folder}/f3 5<{room.folder}/f5 4<&- 6<&-; exec "$@"'
    command = [RUNTIME, "--root", str(room.states), "run", "--preserve-fds", "4", "--bundle", str(bundle), "c1"]
    done = subprocess.run(["sh", "-c", script, "sh", *command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.splitlines()[:2] == ["from 3", "from 5"], done.stderr
    assert done.stdout.splitlines()[2].split() == list("012345")  # 4, a gap, is the folder that ls reads


def test_a_working_folder_outside_the_root_is_refused(room: Room) -> None:
    """CVE-2024-21626: a folder of the host's, open while the container is made."""
    secret = room.folder / "secret"
    secret.mkdir()
    (secret / "of-the-host").touch()
    refused = 0
    for number in range(3, 14):
        config = room.config("sh", "-c", "ls; ls ..")
        config["process"]["cwd"] = f"/proc/self/fd/{number}"
        bundle = room.bundle(config)
        command = [
            RUNTIME,
            "--root",
            str(room.states),
            "run",
            "--preserve-fds",
            "1",
            "--bundle",
            str(bundle),
            f"c{room.made}",
        ]
        done = subprocess.run(
            ["sh", "-c", f'exec 3<{secret}; exec "$@"', "sh", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "of-the-host" not in done.stdout
        refused += "is outside the container" in done.stderr
    assert refused


def test_how_it_is_scheduled_and_what_it_believes(room: Room) -> None:
    script = (
        "uname -m; cut -d' ' -f19 /proc/self/stat; grep ^policy /proc/self/sched; ionice; umask; pwd; "
        "cat /proc/self/oom_score_adj; ulimit -n; hostname; cat /proc/sys/kernel/domainname; id -G"
    )
    config = room.config("sh", "-c", script)
    config["process"] |= {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 7}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
        "cwd": "/made/here", "oomScoreAdj": 300, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}],
    }  # fmt: skip
    config["process"]["user"] |= {"umask": 0o27, "additionalGids": [11, 12]}
    config["linux"]["personality"] = {"domain": "LINUX32"}
    config["domainname"] = "example"
    said = room.output(config).splitlines()
    assert said[0] == "i686"
    assert said[1] == "7"
    assert said[2].split()[-1] == "3"  # SCHED_BATCH
    text = "\n".join(said[3:])
    for part in ("idle", "0027", "/made/here", "300", "77", "box", "example"):
        assert part in text, part
    assert {"11", "12"} <= set(said[-1].split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linux": {"namespaces": [{"type": "pid"}]}}, "mount namespace of its own"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "flux"}]}}, "no namespace"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}, "twice"),
        ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}}, "no user namespace"),
        ({"linux": {"timeOffsets": {"boottime": {"secs": 1}}}}, "no new time namespace"),
        ({"linux": {"sysctl": {"kernel.panic": "1"}}}, "would reach the host"),
        ({"linux": {"cgroupsPath": "/a/../b"}}, "cgroupsPath"),
        ({"linux": {"cgroupsPath": "system.slice:a:b"}}, "cgroupfs manager"),
        ({"linux": {"intelRdt": {"closID": "a"}}}, "intelRdt"),
        ({"linux": {"personality": {"domain": "MINIX"}}}, "There are LINUX"),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}}, "would stop the runtime"),
        ({"linux": {"mountLabel": "system_u:object_r:x"}}, "no SELinux"),
        ({"process": {"args": [1]}}, "config.process.args[0] is int"),
        ({"process": {"capabilities": {"bounding": ["CAP_FLY"]}}}, "CAP_FLY is no capability"),
        ({"process": {"rlimits": [{"type": "RLIMIT_LUCK", "soft": 1, "hard": 1}]}}, "no resource limit"),
        ({"process": {"scheduler": {"policy": "SCHED_MAGIC"}}}, "There are SCHED_OTHER"),
        ({"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 9}}}, "between 0 and 7"),
        ({"root": {"path": "nowhere"}}, "where no folder is"),
        ({"process": {"cwd": 5}}, "config.process.cwd is int, not str"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_leaves_nothing(room: Room, change: Config, words: str) -> None:
    config = room.config("true")
    for part, fields in change.items():
        config[part] |= fields
    done = room.run(config)
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr
