"""What the children that unpack and read could still do if a layer took them over, asked from inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[4]
PROBE = """
import json, os, signal, socket, sys, threading
from runtime.kernel import syscalls
from runtime.images import confinement, extract, pack
root, host = int(sys.argv[1]), int(sys.argv[2])
confinement.confine(root, 1 << 20, {"extract": extract.KEPT_CAPABILITIES, "pack": pack.READ_TRUSTED}[sys.argv[3]])
def attempt(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return "done"
def write():
    with open("inside", "wb") as file:
        os.fchown(file.fileno(), 1000, 1000)
def grow():
    with open("large", "wb", buffering=0) as file:
        file.truncate((1 << 20) + 1)
thread = threading.Thread(target=print, args=("",), kwargs={"end": ""})
results = {
    "read": attempt(lambda: open("secret").close()), "write": attempt(write), "grow": attempt(grow),
    "host files": attempt(lambda: os.stat("/etc/passwd")), "proc": attempt(lambda: os.stat("/proc/self")),
    "fork": attempt(lambda: os.fork() or os._exit(0)), "exec": attempt(lambda: os.execv("/x", ["x"])),
    "kill": attempt(lambda: os.kill(host, 0)), "socket": attempt(lambda: socket.socket()),
    "chroot": attempt(lambda: os.chroot(".")), "setuid": attempt(lambda: os.setresuid(0, 0, 0)),
    "device": attempt(lambda: os.mknod("sda", 0o60600, os.makedev(8, 0))),
    "whiteout": attempt(lambda: os.mknod("wh", 0o20000, 0)),
    "mount": attempt(lambda: syscalls.mount("x", "/", "tmpfs")), "remove": attempt(lambda: os.unlink("secret")),
    "unshare": attempt(lambda: os.unshare(0x20000)), "up": attempt(lambda: os.stat("../../../etc/passwd")),
    "thread": attempt(thread.start), "ids": os.getresuid() + os.getresgid(), "groups": os.getgroups(),
}
print(json.dumps(results), flush=True)
os._exit(0)
"""


def probed(folder: Path, program: str) -> dict[str, Any]:
    """What a child in this folder, confined as that program is, was answered."""
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0o600)
    fd = os.open(folder, os.O_RDONLY)
    command = [sys.executable, "-c", PROBE, str(fd), str(os.getpid()), program]
    done = subprocess.run(command, cwd=ROOT, pass_fds=(fd,), capture_output=True, text=True)
    os.close(fd)
    results: dict[str, Any] = json.loads(done.stdout)
    assert results["ids"] == [65534] * 6 and results["groups"] == []
    assert {results[name] for name in ("host files", "up", "proc")} == {"No such file or directory"}
    refused = ("fork", "exec", "kill", "socket", "chroot", "setuid", "unshare", "mount")
    assert {results[name] for name in refused} == {"Operation not permitted"}
    return results


def test_the_child_that_unpacks_can_write_files_and_nothing_else(tmp_path: Path) -> None:
    results = probed(tmp_path, "extract")
    assert {name for name in results if results[name] == "done"} == {"read", "write", "whiteout", "thread", "remove"}
    assert (results["grow"], results["device"]) == ("File too large", "Operation not permitted")
    assert (tmp_path / "inside").stat().st_uid == 1000


def test_the_child_that_reads_can_read_files_and_nothing_else(tmp_path: Path) -> None:
    results = probed(tmp_path, "pack")
    assert {name for name in results if results[name] == "done"} == {"read", "thread"}
    assert {results[name] for name in ("write", "grow", "whiteout", "remove")} == {"Permission denied"}
