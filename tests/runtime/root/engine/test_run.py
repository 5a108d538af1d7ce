"""`docker run` by the real command lines: output, exit status, input, names."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.runtime.root.engine.conftest import Engine


def test_version_and_info_are_answered(engine: Engine, cli: str) -> None:
    server = "{{(index .Server.Components 0).Name}} {{.Server.Version}} {{.Server.APIVersion}}"
    assert engine.docker("version", "--format", server, cli=cli) == "Engine 0.1.0 1.44\n"
    found, body = engine.docker("info", cli=cli), engine.call("GET", "/info")[1]
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    file = f"moorage-{engine.short}/memory.swap.max" if unified else "memory/memory.memsw.limit_in_bytes"
    swap = Path("/sys/fs/cgroup", file).exists()
    assert " Storage Driver: overlay2\n  Backing Filesystem: ext4\n" in found
    assert f" Cgroup Version: {body['CgroupVersion']}\n" in found and body["CgroupVersion"] == ("2" if unified else "1")
    assert ("WARNING: No swap limit support" in found) is not swap and body["SwapLimit"] is swap
    warned = [line for line in found.splitlines() if line.startswith("WARNING")]
    assert warned == body["Warnings"] and any("not for buffered ones" in line for line in warned) is not unified


def test_output_comes_and_the_container_goes(engine: Engine, cli: str) -> None:
    assert engine.docker("run", "--rm", "busybox", "echo", "hello", cli=cli) == "hello\n"
    assert engine.docker("ps", "-aq", cli=cli) == ""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("nosuch",), 127),
        (("/etc/passwd",), 126),
        (("sh", "-c", "sleep 9 & kill -9 $!; wait $!"), 137),
    ],
)
def test_exit_statuses_are_dockers(engine: Engine, cli: str, command: tuple[str, ...], code: int) -> None:
    engine.docker("run", "--rm", "busybox", *command, cli=cli, code=code)


def test_a_start_that_fails_exits_125(engine: Engine, cli: str) -> None:
    assert "refused" in engine.docker("run", "--rm", "--privileged", "busybox", "true", cli=cli, code=125)
    assert "nosuch" in engine.docker("run", "--rm", "--network", "nosuch", "busybox", "true", cli=cli, code=125)


def test_a_megabyte_of_output_is_complete(engine: Engine, cli: str) -> None:
    found = engine.docker("run", "--rm", "busybox", "seq", "1", "200000", cli=cli)
    expected = "".join(f"{n}\n" for n in range(1, 200_001))
    assert hashlib.sha256(found.encode()).digest() == hashlib.sha256(expected.encode()).digest()


def test_input_is_carried_and_its_end_too(engine: Engine, cli: str) -> None:
    data = b"".join(b"%d\n" % n for n in range(50_000))
    assert (
        engine.docker("run", "--rm", "-i", "busybox", "md5sum", cli=cli, data=data).split()[0]
        == hashlib.md5(data).hexdigest()
    )


def test_the_last_line_without_a_line_end_is_not_lost(engine: Engine) -> None:
    assert engine.docker("run", "--rm", "busybox", "printf", "one\ntwo") == "one\ntwo"


def test_both_streams_are_kept_apart(engine: Engine) -> None:
    command = [
        "docker",
        "-H",
        f"unix://{engine.socket}",
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_user_folder_environment_name_label_and_entrypoint_are_as_asked(engine: Engine, cli: str) -> None:
    flags = (
        "-u",
        "1000",
        "-w",
        "/tmp",
        "-e",
        "A=b",
        "--name",
        "asked",
        "--label",
        "x=y",
        "--hostname",
        "box",
        "--entrypoint",
        "/bin/sh",
    )
    found = engine.docker("run", *flags, "busybox", "-c", 'echo "$(id -u) $(pwd) $A $(hostname)"', cli=cli)
    assert found == "1000 /tmp b box\n"
    body = engine.inspect("asked")
    assert body["Config"]["Labels"] == {"from": "image", "x": "y"} and body["State"]["ExitCode"] == 0


def test_a_taken_name_is_a_conflict(engine: Engine) -> None:
    engine.docker("create", "--name", "taken", "busybox")
    assert "already in use" in engine.docker("create", "--name", "taken", "busybox", code=1)


def test_a_container_sees_only_itself(engine: Engine) -> None:
    script = "cat /proc/self/cgroup | cut -d: -f3 | sort -u; cat /proc/self/uid_map; ps | wc -l; cat /etc/secret; mount -t tmpfs x /tmp"
    lines = engine.docker("run", "--rm", "busybox", "sh", "-c", script, code=None).splitlines()
    assert lines[0] == "/"
    inside, outside, count = lines[1].split()
    assert inside == "0" and int(outside) >= 65_536 and count == "65536"
    assert int(lines[2]) < 8
    assert lines[3] == "not yours"
    assert "permission denied" in lines[4] or "not permitted" in lines[4]


def test_limits_are_those_asked_for(engine: Engine, cli: str) -> None:
    flags = ("--memory", "64m", "--cpus", "0.5", "--pids-limit", "20")
    engine.docker("run", "-d", "--name", "limited", *flags, "busybox", "sleep", "60", cli=cli)
    host = json.loads(engine.docker("inspect", "limited", cli=cli))[0]["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 20)
    stats = engine.call("GET", "/containers/limited/stats?stream=0&one-shot=1")[1]
    assert stats["memory_stats"]["limit"] == 64 << 20 and stats["pids_stats"]["limit"] == 20


def test_a_published_port_leads_inside(engine: Engine, cli: str) -> None:
    flags = ("-d", "--name", "web", "-p", "127.0.0.1:0:8000")
    engine.docker("run", *flags, "busybox", "sh", "-c", "echo served > /tmp/x; httpd -f -p 8000 -h /tmp", cli=cli)
    port = engine.docker("port", "web", "8000/tcp", cli=cli).strip().rpartition(":")[2]
    assert int(port) > 0
    address = engine.inspect("web")["NetworkSettings"]["IPAddress"]
    command = ["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "0", "--max-time", "10"]
    assert (
        subprocess.run([*command, f"http://{address}:8000/x"], capture_output=True, text=True, check=True).stdout
        == "served\n"
    )
    assert (
        subprocess.run([*command, f"http://127.0.0.1:{port}/x"], capture_output=True, text=True, check=True).stdout
        == "served\n"
    )


def test_an_archive_is_loaded_by_name_and_from_a_pipe(engine: Engine, archive: bytes, cli: str, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(archive)
    assert "Loaded image: busybox:latest" in engine.docker("load", "-i", str(tmp_path / "image.tar"), cli=cli)
    assert "Loaded image: busybox:latest" in engine.docker("load", cli=cli, data=archive)
    assert engine.docker("load", cli=cli, data=b"no archive" * 100, code=1)


def test_networks_are_made_used_and_removed(engine: Engine, cli: str) -> None:
    engine.docker("network", "create", "acme", cli=cli)
    assert "acme" in engine.docker("network", "ls", cli=cli)
    found = json.loads(engine.docker("network", "inspect", "acme", cli=cli))[0]
    assert (found["Name"], found["Driver"]) == ("acme", "bridge") and found["IPAM"]["Config"][0]["Subnet"]
    serve = "echo served > /tmp/x; httpd -f -p 8000 -h /tmp"
    engine.docker("run", "-d", "--name", "db", "--network", "acme", "busybox", "sh", "-c", serve, cli=cli)
    fetch = "until wget -q -O - http://db:8000/x; do sleep 0.1; done"
    assert engine.docker("run", "--rm", "--network", "acme", "busybox", "sh", "-c", fetch, cli=cli) == "served\n"
    assert "endpoint" in engine.docker("network", "rm", "acme", cli=cli, code=1)
    engine.docker("rm", "-f", "db", cli=cli)
    engine.docker("network", "rm", "acme", cli=cli)
    assert "acme" not in engine.docker("network", "ls", cli=cli)


def test_what_is_not_here_is_said(engine: Engine) -> None:
    assert "not part of this engine" in engine.docker("swarm", "init", code=1)
    assert engine.call("POST", "/build")[0] == 501
    assert engine.call("GET", "/v1.44/plugins")[0] == 501
    assert engine.call("GET", "/nothing")[0] == 404
    assert engine.call("GET", "/v1.12/containers/json")[0] == 400
    assert engine.call("GET", "/v1.99/containers/json")[0] == 400


def test_two_engines_do_not_share_a_state(engine: Engine) -> None:
    import sys

    command = [sys.executable, "-m", "runtime.engine", "--state", str(engine.state)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, cwd=Path(__file__).parents[4]
    )
    assert done.returncode == 1 and "Another engine" in done.stderr
