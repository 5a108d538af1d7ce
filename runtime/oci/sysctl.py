"""Which kernel parameters belong to a container's namespaces, and writing them."""

from __future__ import annotations

from pathlib import Path

from runtime.oci.fields import SpecFault
from runtime.oci.spec import Spec

_IPC = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
        "kernel.shm_rmid_forced")  # fmt: skip
_UTS = ("kernel.domainname", "kernel.hostname")


def parts(name: str) -> tuple[str, ...]:
    """The parts of a name: "net/ipv4/ip_forward" and "net.ipv4.ip_forward" are one, and whichever of the two marks comes first
    divides, the other one is a dot inside a part (sysctl.d(5)). What is checked is what is written."""
    first = next((c for c in name if c in "./"), ".")
    return tuple(part.replace("/", ".") if first == "." else part for part in name.split(first))


def check(spec: Spec) -> None:
    """Raise SpecFault for a parameter that would reach beyond the container's own namespaces."""
    for given in spec.linux.sysctl:
        kind = _kind(parts(given))
        if not kind or spec.linux.namespace(kind) is None:
            raise SpecFault(
                f"The sysctl {given} would reach the host.",
                f"Leave it out{f', or add a {kind} namespace' if kind else ''}.",
            )


def of_network(name: str) -> bool:
    """Whether a parameter is the network namespace's."""
    return parts(name)[0] == "net"


def write(name: str, value: str) -> None:
    """Set a parameter, which `check` let pass, in the namespaces of this process."""
    found = parts(name)
    if not _kind(found):
        raise SpecFault(f"The sysctl {name} would reach the host.", "Leave it out.")
    Path("/proc/sys", *found).write_text(value)


def _kind(found: tuple[str, ...]) -> str:
    """The namespace it belongs to; "" for the host's, and for what is no path of plain parts."""
    if any(part in ("", ".", "..") or "/" in part for part in found):
        return ""
    name = ".".join(found)
    if found[0] == "net" and len(found) > 1:
        return "network"
    if name in _IPC or found[:2] == ("fs", "mqueue"):
        return "ipc"
    return "uts" if name in _UTS else ""
