"""A volume read out while it is written, and put back: everything in it, whole or not at all, and nobody stands still for good."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.root.engine.conftest import Engine, eventually

SLEEP = ("busybox", "sleep", "600")
MAKE = (
    "cd /d; echo one >a; ln a b; ln -s a link; mkdir -p sub/deep; echo two >sub/deep/.wh.x; mkfifo pipe; chown 33:44 sub; chmod 2750 sub; "
    "dd if=/dev/zero of=sparse bs=1k count=4 seek=4000 2>/dev/null; dd if=/dev/urandom of=big bs=1k count=3000 2>/dev/null; touch -d @1000000000 a"
)
LOOK = (
    "cd /d; find . | sort | while read f; do stat -c '%n %a %u:%g %s %F' \"$f\"; done; cat a b sub/deep/.wh.x; readlink link; "
    "md5sum big sparse; stat -c '%Y %h' a; [ $(stat -c %b sparse) -lt 100 ] && echo has holes"
)


@pytest.fixture(autouse=True)
def no_volumes_stay(engine: Engine) -> Iterator[None]:
    if engine.process is None:
        engine.start()
    yield
    engine.clear()
    for volume in engine.call("GET", "/volumes")[1]["Volumes"]:
        assert engine.call("DELETE", f"/volumes/{volume['Name']}")[0] == 204


def raw(engine: Engine, name: str, query: str = "") -> bytes:
    command = ["curl", "-sf", "--unix-socket", str(engine.socket), f"http://e/moorage/volumes/{name}/snapshot{query}"]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def chunks(engine: Engine, name: str) -> list[bytes]:
    data, found = raw(engine, name, "?frames=1"), []
    while length := int.from_bytes(data[:4]):
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    assert data == bytes(4)
    return found


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def run(engine: Engine, name: str, command: str) -> str:
    return engine.docker("run", "--rm", "-v", f"{name}:/d", "busybox", "sh", "-c", command)


@pytest.mark.parametrize("size", ["64m", ""])
def test_all_of_a_volume_comes_back_in_another(engine: Engine, size: str) -> None:
    for name in ("from", "to"):
        engine.docker("volume", "create", *(("-o", f"size={size}") if size else ()), name)
    run(engine, "from", MAKE)
    before = run(engine, "from", LOOK)
    found = raw(engine, "from")
    assert b"".join(chunks(engine, "from")) == found
    with tarfile.open(fileobj=io.BytesIO(found)) as tar:
        assert len(tar.getmembers()) == 10
    run(engine, "to", "echo old >/d/old")
    code, body = engine.call("PUT", f"/moorage/volumes/to/content?digest={digest_of(found)}", found)
    assert (code, body.get("digest")) == (200, digest_of(found)), body
    assert run(engine, "to", LOOK) == before
    assert engine.leftovers() == {}


def test_a_small_change_changes_few_chunks(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "size=64m", "data")
    run(
        engine,
        "data",
        "cd /d; for i in $(seq 300); do echo $i >f$i; done; dd if=/dev/urandom of=big bs=1M count=8 2>/dev/null",
    )
    first = set(chunks(engine, "data"))
    assert set(chunks(engine, "data")) == first
    run(
        engine,
        "data",
        "cd /d; echo changed >f150; echo new >f151x; echo x | dd of=big bs=1 seek=4000000 conv=notrunc 2>/dev/null",
    )
    second = chunks(engine, "data")
    assert sum(chunk not in first for chunk in second) <= 5 and len(second) > 10


def test_a_running_writer_is_frozen_for_a_consistent_copy_and_goes_on(engine: Engine) -> None:
    for name, size in (("sized", "64m"), ("plain", "")):
        engine.docker("volume", "create", *(("-o", f"size={size}") if size else ()), name)
        writer = "i=0; while :; do i=$((i+1)); echo $i >/d/one; echo $i >/d/two; done"
        engine.docker("run", "-d", "--name", name, "-v", f"{name}:/d", "busybox", "sh", "-c", writer)
        eventually(lambda name=name: engine.docker("exec", name, "cat", "/d/two").strip(), "the writer")  # type: ignore[misc]
        for _ in range(3):
            with tarfile.open(fileobj=io.BytesIO(raw(engine, name))) as tar:
                one, two = (int(tar.extractfile(f"./{n}").read() or 0) for n in ("one", "two"))  # type: ignore[union-attr]
            assert 0 <= one - two <= 1 or 0 in (one, two), "two moments in one copy"
        now = engine.docker("exec", name, "cat", "/d/two")
        eventually(lambda name=name, now=now: engine.docker("exec", name, "cat", "/d/two") != now, "further writes")  # type: ignore[misc]


def test_what_is_damaged_too_large_or_in_use_leaves_the_old(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "size=8m", "data")
    run(engine, "data", "echo old >/d/old")
    whole = raw(engine, "data")
    put = f"/moorage/volumes/data/content?digest={digest_of(whole)}"
    code, body = engine.call("PUT", put, whole[:-600])
    assert code == 400, body
    code, body = engine.call("PUT", put, whole.replace(b"old\n", b"new\n"))
    assert code == 400 and "damaged" in body["message"], body
    large = io.BytesIO()
    with tarfile.open(fileobj=large, mode="w") as tar:
        info = tarfile.TarInfo("big")
        info.size = 12 << 20
        tar.addfile(info, io.BytesIO(bytes(range(256)) * (12 << 12)))
    digest = digest_of(large.getvalue())
    code, body = engine.call("PUT", f"/moorage/volumes/data/content?digest={digest}", large.getvalue())
    assert code == 400 and "full" in body["message"], body
    engine.docker("run", "-d", "--name", "user", "-v", "data:/d", *SLEEP)
    code, body = engine.call("PUT", put, whole)
    assert code == 409 and "in use by user" in body["message"]
    assert engine.docker("exec", "user", "ls", "/d") == "old\n"
    assert [p.name for p in (engine.state / "engine/volumes/.drafts").iterdir()] == []


def test_an_engine_killed_in_a_copy_leaves_nobody_frozen(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "size=64m", "data")
    engine.docker("run", "-d", "--name", "user", "-v", "data:/d", *SLEEP)
    folder = engine.state / "engine" / "volumes"
    pid = engine.inspect("user")["State"]["Pid"]
    engine.end(signal.SIGKILL)
    subprocess.run(["fsfreeze", "-f", f"/proc/{pid}/root/d"], check=True)
    (folder / ".held.json").write_text(json.dumps({"volume": "data", "groups": []}))
    engine.start()
    assert engine.docker("exec", "user", "sh", "-c", "echo goes on >/d/x; sync; cat /d/x") == "goes on\n"
    assert not (Path(folder) / ".held.json").exists()
