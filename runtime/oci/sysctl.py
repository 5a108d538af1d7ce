"""Which kernel parameters belong to a container's namespaces, and writing them."""

from __future__ import annotations

from pathlib import Path

from runtime.oci.fields import SpecFault
from runtime.oci.spec import Spec

_IPC = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
        "kernel.shm_rmid_forced")  # fmt: skip
_UTS = ("kernel.domainname", "kernel.hostname")


def dotted(name: str) -> str:
    """The name with dots: "net/ipv4/ip_forward" and "net.ipv4.ip_forward" are one (a dot in a part is a slash there)."""
    first = min((c for c in "./" if c in name), key=name.index, default=".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def check(spec: Spec) -> None:
    """Raise SpecFault for a parameter that would reach beyond the container's own namespaces."""
    for given in spec.linux.sysctl:
        name = dotted(given)
        kind = "network" if name.startswith("net.") else "ipc" if name in _IPC or name.startswith("fs.mqueue.") else ""
        kind = "uts" if name in _UTS else kind
        if ".." in name or not kind or spec.linux.namespace(kind) is None:
            raise SpecFault(
                f"The sysctl {given} would reach the host.",
                f"Leave it out{f', or add a {kind} namespace' if kind else ''}.",
            )


def write(name: str, value: str) -> None:
    """Set a parameter in the namespaces of this process."""
    path = dotted(name).translate(str.maketrans("./", "/."))
    Path("/proc/sys", path).write_text(value)
