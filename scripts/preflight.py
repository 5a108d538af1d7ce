"""What this machine must offer before anything is made: each check is one sentence with the way out, or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

from scripts import records
from scripts.state import ROOT, State

FREE_BYTES_NEEDED = 1024**3
PACKAGES = ROOT / "scripts/packages.tsv"


def root(_: State) -> str:
    """Root makes namespaces, cgroups and mounts."""
    return (
        ""
        if os.geteuid() == 0
        else "this needs root, because it makes namespaces, cgroups and mounts: run it with sudo."
    )


def overlay(_: State) -> str:
    """Layers are stacked by overlayfs."""
    if any(line.split()[-1] == "overlay" for line in Path("/proc/filesystems").read_text().splitlines()):
        return ""
    modules = Path("/lib/modules", os.uname().release)
    if modules.exists() and any(modules.rglob("overlay.ko*")):
        return ""
    return f"kernel {os.uname().release} has no overlay file system: use one with CONFIG_OVERLAY_FS."


def user_namespaces(_: State) -> str:
    """Each container gets its own range of user ids."""
    limit = Path("/proc/sys/user/max_user_namespaces")
    if Path("/proc/self/ns/user").exists() and (not limit.exists() or int(limit.read_text()) > 0):
        return ""
    return "this kernel makes no user namespaces: set sysctl user.max_user_namespaces to 10000 or use a kernel with CONFIG_USER_NS."


def cgroups(_: State) -> str:
    """Limits are cgroups', of either version."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        needed, have = {"cpu", "memory", "pids"}, set(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split())
    else:
        mounts = Path("/proc/self/mountinfo").read_text()
        needed, have = {"cpu", "memory", "pids", "freezer", "devices"}, set()
        for line in mounts.splitlines():
            if " - cgroup " in line:
                have |= set(line.rsplit(" ", 1)[1].split(","))
    lacking = sorted(needed - have)
    return (
        f"the cgroup controllers {', '.join(lacking)} are not there: mount them, or boot with unified cgroups."
        if lacking
        else ""
    )


def disk(state: State) -> str:
    """The store needs room, and a file system that can be idmapped."""
    folder = state.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free >= FREE_BYTES_NEEDED:
        return ""
    return f"{folder} has {free / 1e6:.0f} MB free and Moorage needs {FREE_BYTES_NEEDED / 1e6:.0f} MB: make room or set MOORAGE_STATE to a larger disk."


def port(state: State) -> str:
    """HAProxy's port must be ours to take, unless our HAProxy already has it."""
    if records.read(state.records / "haproxy.json") is not None:
        return ""
    for address in state.binds:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, state.port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return f"port {state.port} on {address} is in use: end what listens there, or set MOORAGE_PORT to another."
                if ":" in address and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue  # this machine has no IPv6
                return f"port {state.port} on {address} cannot be taken ({error.strerror}): set MOORAGE_BIND and MOORAGE_PORT."
    return ""


def absent(*needs: str) -> dict[str, str]:
    """Programs of packages.tsv that these (`up`, `dev`) need and that are not here, with the reason."""
    rows = [line.split("\t") for line in PACKAGES.read_text().splitlines() if not line.startswith("#")]
    return {program: why for need, program, _, why in rows if need in needs and not _is_here(program)}


def _is_here(program: str) -> bool:
    if program.startswith("/"):
        return any(Path(place).exists() for place in program.split("|"))
    return shutil.which(program) is not None or Path("/usr/sbin", program).exists()


def programs(_: State) -> str:
    """Programs that are not Python's."""
    lacking = ", ".join(absent("up"))
    return f"{lacking} is missing: run make up, which installs it, or install it by hand." if lacking else ""


def tools_of_tests(_: State) -> str:
    """Programs without which tests would say nothing of what they are for."""
    lacking = ", ".join(f"{program} ({why})" for program, why in absent("up", "dev").items())
    return f"{lacking} is missing: run make test, which installs it, or install it by hand." if lacking else ""


def forwarding(chains: str, bridges: str) -> str:
    """A firewall of the host's that drops what is forwarded. `chains` is what `nft --json list chains` prints, `bridges` what ours
    are called."""
    for entry in json.loads(chains)["nftables"]:
        chain = entry.get("chain", {})
        own = chain.get("table", "").startswith("moorage_")
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and not own:
            place = f"{chain['family']} {chain['table']} {chain['name']}"
            return (
                f"the firewall's chain {place} drops forwarded packets: apps answer, but do not reach the internet or each other; "
                f"accept them by `nft insert rule {place} iifname {bridges} accept` and the same with oifname, or change its policy."
            )
    return ""


def warnings(state: State) -> list[str]:
    """What does not keep the platform from starting, but will be felt."""
    try:
        done = subprocess.run(["nft", "--json", "list", "chains"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []  # `programs` says so
    return [sentence] if done.returncode == 0 and (sentence := forwarding(done.stdout, f"m{state.short[:4]}b*")) else []


CHECKS = (overlay, user_namespaces, cgroups, disk, port, programs)


def problems(state: State) -> list[str]:
    """Every sentence that applies; empty when the machine will do. Without root nothing else can be looked at."""
    if sentence := root(state):
        return [sentence]
    return [sentence for check in CHECKS if (sentence := check(state))]
