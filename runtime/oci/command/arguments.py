"""The command line: the flags that runc and crun share, so that podman, conmon and containerd's shim find what they pass."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TextIO

DEFAULT_ROOT = "/run/moorage-oci"


class Parser(argparse.ArgumentParser):
    """Exits with 1 as runc does."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """argparse.ArgumentParser."""
        self.exit(1, f"{self.prog}: {message}\n")


class _Command(NamedTuple):
    about: str
    add: Callable[[Parser], object]


def parse(argv: list[str]) -> argparse.Namespace:
    """Options stand in the namespace under their long names, the command, None without one, as `command`.

    Only the parser of the command that is asked for is made.
    """
    top = _top()
    top.add_argument("command", nargs="?", choices=_COMMANDS, metavar="COMMAND")
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    found = top.parse_args(argv)
    rest = found.__dict__.pop("rest")
    if found.command:
        about, add = _COMMANDS[found.command]
        made = Parser(prog=f"moorage-oci {found.command}", allow_abbrev=False, description=about)
        add(made)
        made.parse_args(rest, found)
    return found


def print_help(file: TextIO) -> None:
    """All commands, and the options before them."""
    _top().print_help(file)


def _top() -> Parser:
    words = "\n".join(f"  {name:<12}{command.about}" for name, command in _COMMANDS.items())
    top = Parser(
        prog="moorage-oci", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="moorage-oci [options] COMMAND ...",
        description="Runs containers as the OCI runtime specification says.", epilog=f"commands:\n{words}",
    )  # fmt: skip
    top.add_argument("--version", "-v", action="store_true", help="print the version and end")
    _global_options(top)
    return top


def _global_options(top: Parser) -> None:
    top.add_argument("--root", type=Path, default=Path(DEFAULT_ROOT), help=f"where states are kept ({DEFAULT_ROOT})")
    top.add_argument("--log", default="", help="file for what went wrong, beside stderr")
    top.add_argument("--log-format", choices=("text", "json"), default="text")
    top.add_argument("--debug", action="store_true", help="say more")
    top.add_argument("--cgroup-manager", choices=("cgroupfs", "disabled", "systemd"), default="cgroupfs")
    top.add_argument("--systemd-cgroup", action="store_true", help="not supported")
    top.add_argument("--rootless", default="auto", help="ignored: root is needed")
    top.add_argument("--criu", default="", help=argparse.SUPPRESS)


def _making(made: Parser) -> None:
    made.add_argument("--bundle", "-b", type=Path, default=Path(), help="folder with config.json (the current one)")
    made.add_argument("--config", "-f", type=Path, help="another file than BUNDLE/config.json")
    made.add_argument("--no-pivot", action="store_true", help="chroot instead of pivot_root, for a root on a ramdisk")
    made.add_argument("--no-new-keyring", action="store_true", help="keep the caller's session keyring")
    made.add_argument("--no-subreaper", action="store_true", help=argparse.SUPPRESS)
    _process_ends(made)


def _process_ends(made: Parser) -> None:
    made.add_argument("--pid-file", type=Path, help="file for the process id")
    made.add_argument("--console-socket", type=Path, help="unix socket that gets the terminal's other side")
    made.add_argument("--preserve-fds", type=int, default=0, help="hand on this many descriptors after 2")


def _exec(made: Parser) -> None:
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


def _update(made: Parser) -> None:
    _container(made)
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


def _container(made: Parser) -> None:
    made.add_argument("id", metavar="ID")


def _create(made: Parser) -> None:
    _container(made)
    _making(made)


def _run(made: Parser) -> None:
    _create(made)
    made.add_argument("--detach", "-d", action="store_true", help="do not wait for its end")
    made.add_argument("--keep", action="store_true", help="do not delete it after its end")


def _state(made: Parser) -> None:
    _container(made)
    made.add_argument("--all", "-a", action="store_true", help=argparse.SUPPRESS)


def _kill(made: Parser) -> None:
    _container(made)
    made.add_argument("signal", nargs="?", default="SIGTERM")
    made.add_argument("--all", "-a", action="store_true", help="to all of its processes")
    made.add_argument("--regex", "-r", action="store_true", help="ID is a pattern of ids")


def _delete(made: Parser) -> None:
    _container(made)
    made.add_argument("--force", "-f", action="store_true", help="end it first; one that is not there is no error")
    made.add_argument("--regex", "-r", action="store_true", help="ID is a pattern of ids")


def _list(made: Parser) -> None:
    made.add_argument("--quiet", "-q", action="store_true", help="ids only")
    made.add_argument("--format", "-f", choices=("table", "json"), default="table")


def _ps(made: Parser) -> None:
    _container(made)
    made.add_argument("--format", "-f", choices=("table", "json"), default="table")
    made.add_argument("options", nargs=argparse.REMAINDER, help="for ps(1); -ef without any")


def _events(made: Parser) -> None:
    _container(made)
    made.add_argument("--stats", action="store_true", help="once")
    made.add_argument("--interval", default="5s", help="5s by default")


def _spec(made: Parser) -> None:
    made.add_argument("--bundle", "-b", type=Path, default=Path())
    made.add_argument("--rootless", action="store_true", help="with a user namespace")


def _unsupported(made: Parser) -> None:
    _container(made)
    made.add_argument("rest", nargs=argparse.REMAINDER)


_COMMANDS = {
    "create": _Command("make a container up to its start", _create),
    "start": _Command("run the program of a container that was created", _container),
    "run": _Command("create, start, wait, delete", _run),
    "state": _Command("print the state of a container", _state),
    "kill": _Command("send a signal (SIGTERM) to a container's first process", _kill),
    "delete": _Command("take a container away", _delete),
    "pause": _Command("stop all processes of a container where they are", _container),
    "resume": _Command("let them go on", _container),
    "exec": _Command("run a further program in a container", _exec),
    "list": _Command("list containers", _list),
    "ps": _Command("list a container's processes", _ps),
    "update": _Command("change a container's limits", _update),
    "events": _Command("print counters every few seconds", _events),
    "spec": _Command("write an example of a config.json", _spec),
    "features": _Command("print what this runtime can do", lambda made: None),
    "checkpoint": _Command("not supported", _unsupported),
    "restore": _Command("not supported", _unsupported),
}
