"""The engine with its numbered steps and those of its launcher, monitors, makers and inits as places to stand at (board.py).

Nothing but the moment changes: each place is before a step that is then carried out by the code under test itself. Run with
`python -c "from tests.runtime.root.steps.places import engine; engine('BOARD')" ARGUMENT…`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from runtime.oci import crew, init, launcher, lifecycle, maker, monitor, rootfs
from runtime.oci.session import Session
from runtime.oci.state import ExitRecord
from tests.runtime.root.steps.board import Board

PROGRAM = "from tests.runtime.root.steps.places import engine; engine({!r})"
_BOOT = """
import sys; sys.path.insert(0, sys.argv[1])
from tests.runtime.root.steps.places import launch; launch({!r}, int(sys.argv[2]))
"""

# In the order in which they are reached.
OF_GATHER = ("gather: 2 network", "gather: 2 clone", "gather: 3 ids", "gather: 3 root")
OF_MAKER = (
    "create: 2 network",
    "create: 2 cgroup",
    "create: 2 clone",
    "create: 3 limits",
    "maker: state",
    "create: 5 gate",
)
OF_HELPER = ("helper: root", "helper: mounts")
OF_INIT = ("init: 3 root", "init: 4 mounts", "init: 4 streams", "init: 4 user", "init: 4 rights", "init: 5 exec")
OF_LAUNCHER = ("launcher: hand over",)
OF_MONITOR = ("monitor: begin", "monitor: session", "monitor: ready", "monitor: take")
OF_ENGINE = (
    "engine: network", "engine: specification", "engine: launch", "engine: endpoint", "engine: storage", "engine: files",
    "engine: complete", "engine: gate", "engine: runs",
)  # fmt: skip
OF_END = ("monitor: drain", "monitor: record", "monitor: write", "monitor: clients", "monitor: cgroup")
OF_REMOVAL = ("engine: kill", "engine: end", "engine: record", "engine: leave", "engine: remains", "engine: ids")


def _before(board: Board, owner: Any, name: str, place: str) -> None:
    """Make the call of a function, or of a method of a class, a place."""
    real = getattr(owner, name)

    def placed(*args: Any, **given: Any) -> Any:
        board.come(place)
        return real(*args, **given)

    setattr(owner, name, placed)


def _mark_steps(board: Board) -> None:
    """`with step("2 cgroup")` in `create` is the place "create: 2 cgroup"."""
    real: Callable[[str], contextlib.AbstractContextManager[None]] = crew.step

    def step(name: str) -> contextlib.AbstractContextManager[None]:
        board.come(f"{sys._getframe(1).f_code.co_name}: {name}")
        return real(name)

    crew.step = lifecycle.step = step  # type: ignore[attr-defined]

    def set_attribute(work: Any, name: str, value: Any) -> None:
        object.__setattr__(work, name, value)
        if name == "step":
            board.come(f"init: {value}")

    init._Work.__setattr__ = set_attribute  # type: ignore[method-assign,assignment]


def launch(path: str, fd: int) -> None:
    """Be a launcher."""
    board = Board(path)
    _mark_steps(board)
    for owner, name, place in (
        (launcher, "_hand_over", "launcher: hand over"),
        (maker, "_write_state", "maker: state"),
        (lifecycle.handshake, "try_send", "create: 5 gate"),
        (rootfs, "build", "helper: root"),
        (crew, "_hand_over", "helper: mounts"),
        (monitor, "_live", "monitor: begin"),
        (monitor, "_session", "monitor: session"),
        (monitor, "_say_ready", "monitor: ready"),
        (Session, "take", "monitor: take"),
        (Session, "_drain", "monitor: drain"),
        (monitor, "_record", "monitor: record"),
        (ExitRecord, "write", "monitor: write"),
        (Session, "finish_clients", "monitor: clients"),
        (monitor, "take_away", "monitor: cgroup"),
    ):
        _before(board, owner, name, place)
    launcher.main(fd)


def engine(path: str) -> None:
    """Be an engine, with the arguments that follow on the command line."""
    from runtime.engine import __main__ as command
    from runtime.engine import bundle, containers, supervise
    from runtime.engine import lifecycle as life
    from runtime.engine.idranges import IdRanges
    from runtime.engine.joining import Joining
    from runtime.oci.client import Launched, LauncherClient, Underway

    board = Board(path)
    launcher.BOOT = _BOOT.format(path)
    for owner, name, place in (
        (Joining, "sandbox", "engine: network"),
        (bundle, "write_config", "engine: specification"),
        (LauncherClient, "begin", "engine: launch"),
        (Joining, "connect", "engine: endpoint"),
        (life.Lifecycle, "_prepare_root", "engine: storage"),
        (bundle, "write_host_files", "engine: files"),
        (Underway, "complete", "engine: complete"),
        (Launched, "release", "engine: gate"),
        (life.Lifecycle, "_save_soon", "engine: runs"),
        (life.Lifecycle, "_send", "engine: kill"),
        (supervise.Supervisor, "ended", "engine: end"),
        (containers.Containers, "discard", "engine: record"),
        (Joining, "leave", "engine: leave"),
        (containers, "remove_remains", "engine: remains"),
        (IdRanges, "give_back", "engine: ids"),
    ):
        _before(board, owner, name, place)
    sys.exit(command.main(sys.argv[1:]))
