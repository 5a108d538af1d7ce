"""What the unpacking child could still do if a layer took it over, asked from inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[4]
PROBE = """
import json, os, signal, socket, sys, threading
from runtime.images import confinement, extract
root, host = int(sys.argv[1]), int(sys.argv[2])
confinement.confine(root, 1 << 20, extract.KEPT_CAPABILITIES)
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
    "write": attempt(write), "grow": attempt(grow),
    "host files": attempt(lambda: os.stat("/etc/passwd")), "proc": attempt(lambda: os.stat("/proc/self")),
    "fork": attempt(lambda: os.fork() or os._exit(0)), "exec": attempt(lambda: os.execv("/x", ["x"])),
    "kill": attempt(lambda: os.kill(host, 0)), "socket": attempt(lambda: socket.socket()),
    "chroot": attempt(lambda: os.chroot(".")), "setuid": attempt(lambda: os.setresuid(0, 0, 0)),
    "device": attempt(lambda: os.mknod("sda", 0o60600, os.makedev(8, 0))),
    "whiteout": attempt(lambda: os.mknod("wh", 0o20000, 0)),
    "unshare": attempt(lambda: os.unshare(0x20000)), "up": attempt(lambda: os.stat("../../../etc/passwd")),
    "thread": attempt(thread.start), "ids": os.getresuid() + os.getresgid(), "groups": os.getgroups(),
}
print(json.dumps(results), flush=True)
os._exit(0)
"""


def test_the_child_can_write_files_and_nothing_else(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    command = [sys.executable, "-c", PROBE, str(fd), str(os.getpid())]
    done = subprocess.run(command, cwd=ROOT, pass_fds=(fd,), capture_output=True, text=True)
    os.close(fd)
    results = json.loads(done.stdout)
    assert {name for name in results if results[name] == "done"} == {"write", "whiteout", "thread"}
    assert results["ids"] == [65534] * 6 and results["groups"] == []
    assert results["grow"] == "File too large"
    assert {results[name] for name in ("host files", "up", "proc")} == {"No such file or directory"}
    refused = ("fork", "exec", "kill", "socket", "chroot", "setuid", "device", "unshare")
    assert {results[name] for name in refused} == {"Operation not permitted"}
    assert (tmp_path / "inside").stat().st_uid == 1000
