"""Images out of the engine by the docker command line: what goes out is read by others and comes in again as the same image."""

from __future__ import annotations

import functools
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.root.engine.conftest import Engine
from tests.runtime.root.images.registry_server import PASSWORD, USER, RegistryServer

CHANGE = """
echo new > /added; mkdir -p /made/below; echo x > /made/below/file; rm /etc/secret; chmod 4755 /bin/busybox;
ln /added /linked; ln -s added /soft; mkfifo /pipe; rm -r /tmp; mkdir -m 1777 /tmp; echo here > /tmp/fresh;
rm -r /root; echo now a file > /root; chown 1000:65535 /made; touch -d '2001-02-03 00:00:00' /made/below/file;
dd if=/dev/zero of=/holes bs=1 count=1 seek=3000000
"""
DIFF = """C /bin
C /bin/busybox
C /etc
D /etc/secret
C /root
C /tmp
A /added
A /holes
A /linked
A /made
A /made/below
A /made/below/file
A /pipe
A /soft
A /tmp/fresh"""
LOOK = """stat -c '%n %a %u %g %F' /added /linked /soft /pipe /made /tmp /root /bin/busybox /holes
cat /tmp/fresh /root /soft; ls /etc /tmp; stat -c %h /added; stat -c '%Y %s' /made/below/file /holes"""


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def identity(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.docker("image", "inspect", name))[0]
    return found


@pytest.fixture(scope="module", params=["folder", "sized"])
def committed(request: pytest.FixtureRequest, engine: Engine) -> Iterator[str]:
    """A running container that changed its files, with an image made of it."""
    size = ["--storage-opt", "size=64m"] if request.param == "sized" else []
    name = f"app-{request.param}"
    engine.docker("run", "-d", "--name", name, *size, "-e", "A=1", "busybox", "sleep", "600")
    engine.docker("exec", name, "sh", "-c", CHANGE)
    changes = ["--change", 'CMD ["sh", "-c", "cat /added"]', "--change", "ENV B=two", "--change", "EXPOSE 81"]
    engine.docker("commit", "-m", "changed", "-a", "someone", *changes, name, f"{name}:v1")
    yield name
    engine.docker("rm", "-f", name)
    engine.docker("rmi", "-f", f"{name}:v1")


@pytest.fixture(autouse=True)
def no_containers_stay() -> None:
    """The module's containers stay for all its tests."""


def test_a_diff_names_what_changed(engine: Engine, committed: str) -> None:
    assert sorted(engine.docker("diff", committed).strip().splitlines()) == sorted(DIFF.splitlines())


def test_a_commit_has_the_files_and_the_configuration(engine: Engine, committed: str) -> None:
    image = f"{committed}:v1"
    before = engine.docker("exec", committed, "sh", "-c", LOOK)
    assert "/bin/busybox 4755 0 0" in before and "981158400 2" in before
    assert engine.docker("run", "--rm", "--network", "none", image, "sh", "-c", LOOK) == before
    assert engine.docker("run", "--rm", "--network", "none", image) == "new\n"
    found = identity(engine, image)
    assert found["Config"]["Env"] == ["PATH=/bin", "A=1", "B=two"] and found["Config"]["ExposedPorts"] == {"81/tcp": {}}
    assert (found["Author"], found["Comment"]) == ("someone", "changed")
    assert len(found["RootFS"]["Layers"]) == 2
    top = json.loads(engine.docker("history", "--no-trunc", "--format", "json", image).splitlines()[0])
    assert top["Comment"] == "changed" and top["Size"] not in ("0B", "") and top["CreatedBy"].startswith("sleep 600")


def test_a_container_goes_on_after_a_commit_and_one_that_never_ran_has_no_changes(
    engine: Engine, committed: str
) -> None:
    assert engine.docker("exec", committed, "cat", "/added") == "new\n"
    assert engine.inspect(committed)["State"]["Status"] == "running"
    identity = engine.docker("create", "--storage-opt", "size=64m", "busybox").strip()
    assert engine.docker("diff", identity) == ""
    engine.docker("rm", identity)


@pytest.mark.parametrize("committed", ["folder"], indirect=True)
def test_what_is_saved_is_read_by_others_and_comes_in_as_the_same(
    engine: Engine, committed: str, tmp_path: Path
) -> None:
    image, archive, again = f"{committed}:v1", tmp_path / "two.tar", tmp_path / "again.tar"
    engine.docker("tag", image, "local.example/team/app:v2")
    engine.docker("save", "-o", str(archive), image, "busybox", "local.example/team/app:v2")
    before = {name: identity(engine, name) for name in (image, "busybox")}
    _others_read(before, archive, tmp_path, committed)
    engine.docker("rmi", "-f", "local.example/team/app:v2", image)
    assert engine.call("GET", f"/images/{before[image]['Id']}/json")[0] == 404
    said = engine.docker("load", "-i", str(archive))
    assert sorted(line for line in said.splitlines() if line) == [
        "Loaded image: app-folder:v1", "Loaded image: busybox:latest", "Loaded image: local.example/team/app:v2",
    ]  # fmt: skip
    for name, found in before.items():
        assert (identity(engine, name)["Id"], identity(engine, name)["RootFS"]) == (found["Id"], found["RootFS"])
    engine.docker("save", "-o", str(again), image, "busybox", "local.example/team/app:v2")
    assert again.read_bytes() == archive.read_bytes()
    engine.docker("save", "-o", str(again), before[image]["Id"])
    assert json.loads(run("tar", "-xOf", again, "manifest.json"))[0]["RepoTags"] is None
    engine.docker("rmi", "-f", "local.example/team/app:v2")


def _others_read(before: dict[str, dict[str, Any]], archive: Path, tmp_path: Path, name: str) -> None:
    """skopeo in both ways, umoci what skopeo made of it, podman: the same ids and layers."""
    image = before[f"{name}:v1"]
    seen = json.loads(run("skopeo", "inspect", "--config", f"docker-archive:{archive}:{name}:v1"))
    assert seen["rootfs"]["diff_ids"] == image["RootFS"]["Layers"]
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    run("skopeo", "copy", "-q", f"oci-archive:{archive}:v1", f"oci:{layout}:v1")
    config = json.loads(run("skopeo", "inspect", "--raw", f"oci:{layout}:v1"))["config"]["digest"]
    assert config == image["Id"]
    run("umoci", "unpack", "--image", f"{layout}:v1", bundle)
    assert (bundle / "rootfs/tmp/fresh").read_text() == "here\n" and not (bundle / "rootfs/etc/secret").exists()
    assert [path.name for path in (bundle / "rootfs/tmp").iterdir()] == ["fresh"]
    assert (bundle / "rootfs/made").stat().st_gid == 65535
    with tempfile.TemporaryDirectory() as runroot:  # a path of at most 50 letters
        podman = ("podman", "--root", tmp_path / "podman", "--runroot", runroot, "--storage-driver", "vfs")
        run(*podman, "load", "-q", "-i", archive)
        listed = run(*podman, "images", "--no-trunc", "-q")
    assert {line.strip() for line in listed.splitlines()} == {found["Id"] for found in before.values()}


def test_an_export_has_all_files_and_is_imported_as_an_image(engine: Engine, committed: str, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar"
    engine.docker("export", "-o", str(archive), committed)
    with tarfile.open(archive) as found:
        names = set(found.getnames())
        assert {"added", "bin/busybox", "etc/group", "tmp/fresh", "pipe", "root"} <= names and "etc/secret" not in names
        assert (found.getmember("made").uid, found.getmember("linked").linkname) == (1000, "added")
        assert found.getmember("holes").sparse is not None and archive.stat().st_size < 3_000_000 + 2**21
    said = engine.docker("import", "-m", "from outside", "--change", "CMD cat /added", str(archive), "imported:v1")
    assert identity(engine, "imported:v1")["Id"] == said.strip()
    assert identity(engine, "imported:v1")["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /added"]
    assert engine.docker("run", "--rm", "--network", "none", "imported:v1") == "new\n"
    engine.docker("rmi", "imported:v1")


def test_a_refusal_comes_before_the_first_byte(engine: Engine) -> None:
    assert engine.call("GET", "/images/get?names=none")[0] == 404
    code, body = engine.call("POST", "/images/create?fromSrc=-&repo=bad", io.BytesIO(b"no tar" * 200).read())
    assert code == 400 and "checksum" in body["message"]
    code, body = engine.call("POST", "/images/create?fromSrc=-&changes=RUN+rm", b"")
    assert code == 400 and "no instruction" in body["message"]


def test_login_push_and_pull_by_the_command_line(engine: Engine, tmp_path: Path) -> None:
    with RegistryServer().running() as registry:
        registry.auth = "basic"
        docker = functools.partial(engine.docker, "--config", str(tmp_path))
        name = f"{registry.address}/team/app:v1"
        engine.docker("tag", "busybox", name)
        assert "sign-in" in docker("login", "-u", USER, "-p", "wrong", registry.address, code=1)
        assert "Login Succeeded" in docker("login", "-u", USER, "-p", PASSWORD, registry.address)
        said = docker("push", name)
        before = identity(engine, name)
        digest = next(text for text in before["RepoDigests"] if text.startswith(registry.address)).partition("@")[2]
        assert f"v1: digest: {digest} size:" in said and len(registry.uploads) == 2
        engine.docker("rmi", name)
        assert "Status: Downloaded newer image" in docker("pull", name)
        assert identity(engine, name)["Id"] == before["Id"]
        assert "does not talk to the registry docker.io" in engine.docker("pull", "alpine", code=1)
        code, body = engine.call(
            "POST", "/auth", {"username": "a", "password": "b", "serveraddress": "https://index.docker.io/v1/"}
        )
        assert code == 403 and "--registry docker.io" in body["message"]
        engine.docker("rmi", name)
