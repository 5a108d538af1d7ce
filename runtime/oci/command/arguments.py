"""The command line: the flags that runc and crun share, so that podman, conmon and containerd's shim find what they pass."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_ROOT = "/run/moorage-oci"


class Parser(argparse.ArgumentParser):
    """Exits with 1 as runc does."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """argparse.ArgumentParser."""
        self.exit(1, f"{self.prog}: {message}\n")


def parser() -> Parser:
    """All commands. Options stand in their namespace under their long names."""
    top = Parser(
        prog="moorage-oci", allow_abbrev=False, description="Runs containers as the OCI runtime specification says."
    )
    top.add_argument("--version", "-v", action="store_true", help="print the version and end")
    _global_options(top)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, about: str, *, container: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, allow_abbrev=False, help=about, description=about)
        if container:
            made.add_argument("id", metavar="ID")
        return made

    _making(command("create", "make a container up to its start"))
    command("start", "run the program of a container that was created")
    run = command("run", "create, start, wait, delete")
    _making(run)
    run.add_argument("--detach", "-d", action="store_true", help="do not wait for its end")
    run.add_argument("--keep", action="store_true", help="do not delete it after its end")
    state = command("state", "print the state of a container")
    state.add_argument("--all", "-a", action="store_true", help=argparse.SUPPRESS)
    kill = command("kill", "send a signal (SIGTERM) to a container's first process")
    kill.add_argument("signal", nargs="?", default="SIGTERM")
    kill.add_argument("--all", "-a", action="store_true", help="to all of its processes")
    kill.add_argument("--regex", "-r", action="store_true", help="ID is a pattern of ids")
    delete = command("delete", "take a container away")
    delete.add_argument("--force", "-f", action="store_true", help="end it first; one that is not there is no error")
    delete.add_argument("--regex", "-r", action="store_true", help="ID is a pattern of ids")
    command("pause", "stop all processes of a container where they are")
    command("resume", "let them go on")
    _exec(command("exec", "run a further program in a container", container=False))
    listing = command("list", "list containers", container=False)
    listing.add_argument("--quiet", "-q", action="store_true", help="ids only")
    listing.add_argument("--format", "-f", choices=("table", "json"), default="table")
    ps = command("ps", "list a container's processes")
    ps.add_argument("--format", "-f", choices=("table", "json"), default="table")
    ps.add_argument("options", nargs=argparse.REMAINDER, help="for ps(1); -ef without any")
    _update(command("update", "change a container's limits"))
    events = command("events", "print counters every few seconds")
    events.add_argument("--stats", action="store_true", help="once")
    events.add_argument("--interval", default="5s", help="5s by default")
    spec = command("spec", "write an example of a config.json", container=False)
    spec.add_argument("--bundle", "-b", type=Path, default=Path())
    spec.add_argument("--rootless", action="store_true", help="with a user namespace")
    command("features", "print what this runtime can do", container=False)
    for name in ("checkpoint", "restore"):
        command(name, "not supported").add_argument("rest", nargs=argparse.REMAINDER)
    return top


def _global_options(top: argparse.ArgumentParser) -> None:
    top.add_argument("--root", type=Path, default=Path(DEFAULT_ROOT), help=f"where states are kept ({DEFAULT_ROOT})")
    top.add_argument("--log", default="", help="file for what went wrong, beside stderr")
    top.add_argument("--log-format", choices=("text", "json"), default="text")
    top.add_argument("--debug", action="store_true", help="say more")
    top.add_argument("--cgroup-manager", choices=("cgroupfs", "disabled", "systemd"), default="cgroupfs")
    top.add_argument("--systemd-cgroup", action="store_true", help="not supported")
    top.add_argument("--rootless", default="auto", help="ignored: root is needed")
    top.add_argument("--criu", default="", help=argparse.SUPPRESS)


def _making(made: argparse.ArgumentParser) -> None:
    made.add_argument("--bundle", "-b", type=Path, default=Path(), help="folder with config.json (the current one)")
    made.add_argument("--config", "-f", type=Path, help="another file than BUNDLE/config.json")
    made.add_argument("--no-pivot", action="store_true", help="chroot instead of pivot_root, for a root on a ramdisk")
    made.add_argument("--no-new-keyring", action="store_true", help="keep the caller's session keyring")
    made.add_argument("--no-subreaper", action="store_true", help=argparse.SUPPRESS)
    _process_ends(made)


def _process_ends(made: argparse.ArgumentParser) -> None:
    made.add_argument("--pid-file", type=Path, help="file for the process id")
    made.add_argument("--console-socket", type=Path, help="unix socket that gets the terminal's other side")
    made.add_argument("--preserve-fds", type=int, default=0, help="hand on this many descriptors after 2")


def _exec(made: argparse.ArgumentParser) -> None:
    _process_ends(made)
    made.add_argument("--process", "-p", type=Path, help="file with the process as JSON")
    made.add_argument("--cwd", default="")
    made.add_argument("--env", "-e", action="append", default=[])
    made.add_argument("--tty", "-t", action="store_true")
    made.add_argument("--user", "-u", default="", help="UID[:GID]")
    made.add_argument("--additional-gids", "-g", action="append", type=int, default=[])
    made.add_argument("--detach", "-d", action="store_true")
    made.add_argument("--process-label", default="")
    made.add_argument("--apparmor", default="")
    made.add_argument("--no-new-privs", action="store_true", default=None)
    made.add_argument("--cap", "-c", action="append", default=[])
    made.add_argument("--cgroup", action="append", default=[], help="a group below the container's")
    made.add_argument("--ignore-paused", action="store_true")
    made.add_argument("id", metavar="ID")
    made.add_argument("args", nargs=argparse.REMAINDER, metavar="COMMAND")


def _update(made: argparse.ArgumentParser) -> None:
    made.add_argument("--resources", "-r", default="", help='file with "resources" as JSON, - for stdin')
    for name in (
        "blkio-weight", "cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-rt-period", "cpu-rt-runtime", "cpu-idle",
        "memory", "memory-reservation", "memory-swap", "pids-limit",
    ):  # fmt: skip
        made.add_argument(f"--{name}", type=_amount)
    for name in ("cpuset-cpus", "cpuset-mems"):
        made.add_argument(f"--{name}", default="")


def _amount(text: str) -> int:
    """A number, maybe with k, m or g."""
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    lower = text.lower().removesuffix("b")
    if lower[-1:] in units:
        return int(lower[:-1]) * units[lower[-1]]
    return int(lower)
