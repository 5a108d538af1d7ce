"""Volumes by the real command lines: made, mounted, seeded, shared, held to a size, removed; and nothing stays of them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.root.engine.conftest import Engine, busybox_archive, eventually

SLEEP = ("busybox", "sleep", "600")


@pytest.fixture(autouse=True)
def no_volumes_stay(engine: Engine) -> Iterator[None]:
    if engine.process is None:
        engine.start()
    yield
    if engine.process is None:
        engine.start()
    engine.clear()
    for volume in engine.call("GET", "/volumes")[1]["Volumes"]:
        assert engine.call("DELETE", f"/volumes/{volume['Name']}")[0] == 204


def volume(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.docker("volume", "inspect", name))[0]
    return found


def loops(engine: Engine) -> list[str]:
    """Loop devices of volumes."""
    root = str(engine.state / "engine" / "volumes")
    files = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            files.append(path.read_text().strip())
        except OSError:
            continue
    return [file for file in files if file.startswith(root)]


def test_the_command_line_makes_lists_and_removes_them(engine: Engine, cli: str) -> None:
    assert engine.docker("volume", "create", "--label", "of=me", "data", cli=cli) == "data\n"
    assert engine.docker("volume", "create", "data", cli=cli) == "data\n"
    assert engine.docker("volume", "ls", "-q", "-f", "label=of=me", cli=cli) == "data\n"
    assert engine.docker("volume", "ls", "-q", "-f", "dangling=false", cli=cli) == ""
    found = json.loads(engine.docker("volume", "inspect", "data", cli=cli))[0]
    assert (found["Driver"], found["Scope"], found["Labels"]) == ("local", "local", {"of": "me"})
    engine.docker("run", "-d", "--name", "holds", "-v", "data:/d", *SLEEP, cli=cli)
    assert "volume is in use" in engine.docker("volume", "rm", "data", cli=cli, code=1)
    mount = engine.inspect("holds")["Mounts"][0]
    assert (mount["Type"], mount["Name"], mount["Destination"], mount["RW"]) == ("volume", "data", "/d", True)
    assert engine.docker("ps", "--filter", "volume=data", "--format", "{{.Mounts}}", cli=cli) == "data\n"
    engine.docker("rm", "-f", "holds", cli=cli)
    assert engine.docker("volume", "rm", "data", cli=cli) == "data\n"
    assert "no such volume" in engine.docker("volume", "inspect", "data", cli=cli, code=1).lower()


def test_what_is_written_stays_when_the_container_goes_and_read_only_is(engine: Engine, cli: str) -> None:
    engine.docker("run", "--rm", "-v", "kept:/d", "busybox", "sh", "-c", "echo here >/d/file", cli=cli)
    assert engine.docker("run", "--rm", "-v", "kept:/d:ro", "busybox", "cat", "/d/file", cli=cli) == "here\n"
    mount = "type=volume,source=kept,target=/d,readonly"
    refused = engine.docker("run", "--rm", "--mount", mount, "busybox", "touch", "/d/x", cli=cli, code=1)
    assert "Read-only file system" in refused
    assert engine.docker("run", "--rm", "-v", "kept:/etc:ro", "busybox", "touch", "/etc/x", code=1)


def test_a_size_is_held_by_the_kernel_shared_at_once_and_changed_live(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "size=8m", "small")
    engine.docker("run", "-d", "--name", "one", "-v", "small:/d", *SLEEP)
    engine.docker("run", "-d", "--name", "two", "-v", "small:/d", "--user", "1000", *SLEEP)
    assert len(loops(engine)) == 1
    engine.docker("exec", "one", "sh", "-c", "echo from one >/d/x; chown 1000:1000 /d /d/x; ls /d")
    assert engine.docker("exec", "two", "sh", "-c", "cat /d/x; stat -c %u:%g /d/x; echo and two >>/d/x") == (
        "from one\n1000:1000\n"
    )
    assert engine.docker("exec", "one", "cat", "/d/x") == "from one\nand two\n"
    full = "dd if=/dev/zero of=/d/big bs=1M count=12 2>&1 || true; rm /d/big"
    assert "No space left" in engine.docker("exec", "two", "sh", "-c", full)
    assert engine.call("POST", "/moorage/volumes/small", {"size": "32m"}) == (
        200,
        {"live": True, "size_bytes": 32 << 20},
    )
    assert "No space left" not in engine.docker("exec", "two", "sh", "-c", full)
    assert engine.call("POST", "/moorage/volumes/small", {"size": "8m"})[0] == 200
    assert "No space left" in engine.docker("exec", "two", "sh", "-c", full)
    assert engine.call("POST", "/moorage/volumes/small", {"size": "9g"})[0] == 400
    engine.docker("rm", "-f", "one")
    assert engine.docker("exec", "two", "cat", "/d/x") == "from one\nand two\n"
    engine.docker("rm", "-f", "two")
    eventually(lambda: not loops(engine), "the end of the loop device")
    assert engine.docker("run", "--rm", "-v", "small:/d", "busybox", "cat", "/d/x") == "from one\nand two\n"


def test_an_empty_volume_gets_what_the_image_has_with_owner_and_mode(engine: Engine, cli: str) -> None:
    look = "stat -c '%a %u' /etc /etc/secret; ls /etc"
    plain = engine.docker("run", "--rm", "busybox", "sh", "-c", look)
    engine.docker("volume", "create", "-o", "size=8m", "sized")
    for name in ("fresh", "sized"):
        assert engine.docker("run", "--rm", "-v", f"{name}:/etc", "busybox", "sh", "-c", look, cli=cli) == plain
        inside = ("run", "--rm", "-v", f"{name}:/d", "busybox")
        assert engine.docker(*inside, "cat", "/d/secret") == "not yours\n"
        engine.docker(*inside, "rm", "/d/secret")
        again = engine.docker("run", "--rm", "-v", f"{name}:/etc", "busybox", "ls", "/etc")
        assert "secret" not in again
    bare = "type=volume,source=bare,target=/etc,volume-nocopy"
    assert "secret" not in engine.docker("run", "--rm", "--mount", bare, "busybox", "ls", "/etc", cli=cli)


def test_a_first_content_that_does_not_fit_or_was_cut_short_is_begun_anew(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "size=1m", "tiny")
    said = engine.docker("run", "--rm", "-v", "tiny:/bin", "busybox", "true", code=125)
    assert "does not fit into the volume" in said
    engine.call("POST", "/moorage/volumes/tiny", {"size": "64m"})
    assert "busybox" in engine.docker("run", "--rm", "-v", "tiny:/bin", "busybox", "ls", "/bin")
    data = Path(volume_path(engine, "half"))
    (data / "junk").write_text("half a copy")
    (data / ".moorage-unfinished").touch()
    engine.docker("run", "--rm", "-v", "half:/etc", "busybox", "cat", "/etc/secret")
    assert (
        sorted(path.name for path in data.iterdir())
        == engine.docker("run", "--rm", "-v", "half:/d", "busybox", "ls", "-A", "/d").split()
    )
    assert not (data / "junk").exists() and (data / "secret").exists()


def volume_path(engine: Engine, name: str) -> str:
    engine.docker("volume", "create", name)
    return str(volume(engine, name)["Mountpoint"])


def test_a_sub_path_is_found_inside_the_volume_and_no_link_leads_out(engine: Engine) -> None:
    prepare = (
        "mkdir -p /d/a/b; echo inside >/d/a/b/f; ln -s a/b /d/link; ln -s /etc /d/out; ln -s ../../../../etc /d/up"
    )
    engine.docker("volume", "create", "-o", "size=8m", "sized")
    for name in ("plain", "sized"):
        engine.docker("run", "--rm", "-v", f"{name}:/d", "busybox", "sh", "-c", prepare)
        for sub in ("a/b", "link"):
            mount = f"type=volume,source={name},target=/x,volume-subpath={sub}"
            assert engine.docker("run", "--rm", "--mount", mount, "busybox", "cat", "/x/f") == "inside\n"
        for sub in ("out", "up", "nosuch"):
            mount = f"type=volume,source={name},target=/x,volume-subpath={sub}"
            said = engine.docker("run", "--rm", "--mount", mount, "busybox", "ls", "/x", code=125)
            assert f"The volume has no '{sub}'" in said, said
        mount = f"type=volume,source={name},target=/x,volume-subpath=../a"
        assert "relative path" in engine.docker("run", "--rm", "--mount", mount, "busybox", "true", code=125)
    options = {"Subpath": "made/here", "CreateSubpath": True}
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "stat -c %u /x; touch /x/f"],
        "HostConfig": {"Mounts": [{"Type": "volume", "Source": "sized", "Target": "/x", "VolumeOptions": options}]},
    }
    identity = engine.call("POST", "/containers/create?name=maker", body)[1]["Id"]
    assert engine.call("POST", f"/containers/{identity}/start")[0] == 204
    engine.docker("wait", "maker")
    assert engine.docker("logs", "maker") == "0\n"
    assert engine.docker("run", "--rm", "-v", "sized:/d", "busybox", "ls", "/d/made/here") == "f\n"


def test_images_volumes_are_anonymous_and_go_with_rm_v(engine: Engine, cli: str) -> None:
    code, said = engine.call(
        "POST", "/images/load?quiet=1", busybox_archive("with-volume:latest", Volumes={"/etc": {}, "/new": {}})
    )
    assert code == 200, said

    def anonymous() -> list[str]:
        return engine.docker("volume", "ls", "-q", cli=cli).split()

    engine.docker("run", "--name", "has", "with-volume", "cat", "/etc/secret", cli=cli)
    names = anonymous()
    assert len(names) == 2 and all(len(name) == 64 for name in names)
    assert sorted(m["Destination"] for m in engine.inspect("has")["Mounts"]) == ["/etc", "/new"]
    engine.docker("rm", "has", cli=cli)
    assert anonymous() == names
    assert engine.docker("volume", "prune", "-f", cli=cli).count("\n") >= 3
    assert anonymous() == []
    engine.docker("create", "--name", "has", "-v", "/etc", "with-volume", "true", cli=cli)
    assert len(anonymous()) == 2
    engine.docker("rm", "-v", "has", cli=cli)
    assert anonymous() == []
    engine.docker("run", "--rm", "with-volume", "true", cli=cli)
    eventually(lambda: not anonymous(), "the removal with --rm")
    said = engine.docker("create", "--name", "held", "--storage-opt", "size=16m", "with-volume", "true", cli=cli)
    assert "stay in the writable layer" in said and anonymous() == []


def test_named_volumes_are_not_pruned_unless_asked(engine: Engine) -> None:
    engine.docker("volume", "create", "named")
    engine.docker("volume", "prune", "-f")
    assert engine.docker("volume", "ls", "-q") == "named\n"
    engine.docker("volume", "prune", "-f", "-a")
    assert engine.docker("volume", "ls", "-q") == ""


def test_memory_is_mounted_with_its_size_and_mode(engine: Engine, cli: str) -> None:
    look = "stat -c %a /m; df -k /m | tail -1 | tr -s ' ' | cut -d' ' -f2,6"
    mount = "type=tmpfs,target=/m,tmpfs-size=4m,tmpfs-mode=0750"
    assert engine.docker("run", "--rm", "--mount", mount, "busybox", "sh", "-c", look, cli=cli) == "750\n4096 /m\n"
    short = engine.docker("run", "--rm", "--tmpfs", "/m:size=2m,mode=711", "busybox", "sh", "-c", look, cli=cli)
    assert short == "711\n2048 /m\n"


def test_volumes_below_one_another_and_doubles(engine: Engine) -> None:
    engine.docker(
        "run", "--rm", "-v", "inner:/d/in", "-v", "outer:/d", "busybox", "sh", "-c", "echo i >/d/in/f; echo o >/d/f"
    )
    assert engine.docker("run", "--rm", "-v", "inner:/x", "busybox", "ls", "/x") == "f\n"
    assert engine.docker("run", "--rm", "-v", "outer:/x", "busybox", "ls", "/x") == "f\nin\n"
    doubled = {"Image": "busybox", "HostConfig": {"Binds": ["a:/x", "b:/x/"]}}
    code, body = engine.call("POST", "/containers/create", doubled)
    assert code == 400 and "Duplicate mount point" in body["message"]
    assert "refused" in engine.docker("create", "-v", "/etc:/x", "busybox", code=1)
    folder = Path(volume(engine, "outer")["Mountpoint"]).parent
    assert "refused" in engine.docker("create", "-v", f"{folder}:/x", "busybox", code=1)
    said = engine.docker("volume", "create", "-o", "type=none", "-o", "device=/etc", "-o", "o=bind", "etc", code=1)
    assert "refused" in said


def test_a_killed_engine_leaves_the_volume_to_its_containers_and_nothing_else(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "size=8m", "deep")
    engine.docker("run", "-d", "--name", "lives", "-v", "deep:/d", *SLEEP)
    engine.docker("exec", "lives", "sh", "-c", "echo before >/d/f")
    engine.end(signal.SIGKILL)
    engine.start()
    engine.docker("run", "--rm", "-v", "deep:/d", "busybox", "sh", "-c", "cat /d/f; echo after >>/d/f")
    assert len(loops(engine)) == 1
    assert engine.docker("exec", "lives", "cat", "/d/f") == "before\nafter\n"
    engine.end(signal.SIGKILL)
    assert engine.leftovers() == {}
    os.kill(json.loads((next(engine.containers.iterdir()) / "state.json").read_text())["init"]["pid"], signal.SIGKILL)
    eventually(lambda: not loops(engine), "the end of the loop device")
    engine.start()
    engine.docker("start", "lives")
    assert engine.docker("exec", "lives", "cat", "/d/f") == "before\nafter\n"
