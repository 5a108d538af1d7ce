"""Each test of the shared suite once for each driver, on the ground it needs; `DRIVER_MATRIX` has the results printed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from runtime.storage import trees
from runtime.storage.driver import Driver
from runtime.storage.fuse_overlayfs import PROGRAM
from tests.runtime.root.images.mounting import eventually
from tests.runtime.root.storage import grounds, images

PREFIX = "driver-matrix: "
_results: dict[str, dict[str, list[str]]] = {}
_asked = os.environ.get("DRIVER_MATRIX", "")


@pytest.fixture(scope="session")
def ground_of() -> Iterator[Callable[[str], Path]]:
    """Where a driver's stores lie; made when it is first asked for."""
    made: dict[str, Path] = {}
    with ExitStack() as stack:

        def ground(name: str) -> Path:
            if name not in made:
                made[name] = stack.enter_context(grounds.GROUNDS[name].make())
            return made[name]

        yield ground


@pytest.fixture(
    params=[pytest.param(name, marks=ground.marks) for name, ground in grounds.GROUNDS.items()],
)
def kind(request: pytest.FixtureRequest) -> str:
    """The driver's column in the matrix."""
    name: str = request.param
    return name


@pytest.fixture
def store(kind: str, ground_of: Callable[[str], Path]) -> Iterator[Path]:
    """An empty store on that driver's ground; nothing of it is left afterwards."""
    base = ground_of(kind)
    store = base / f"store-{os.urandom(4).hex()}"
    yield store
    eventually(lambda: not servers(store))
    trees.discard(store, base / "trash")
    assert list((base / "trash").iterdir()) == []


def servers(store: Path) -> list[int]:
    """Processes that serve roots of this store."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().strip() == PROGRAM:
                opened = [str(file.readlink()) for file in (process / "fd").iterdir()]
                found += [int(process.name)] * any(path.startswith(str(store)) for path in opened)
    return found


@pytest.fixture
def driver(kind: str, store: Path) -> Driver:
    """The driver."""
    return grounds.GROUNDS[kind].driver(store)


@pytest.fixture
def chains(driver: Driver) -> list[str]:
    """An image of three layers."""
    return images.build(driver)


@pytest.fixture
def finding(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """What the matrix says beside "yes"."""

    def note(text: str) -> None:
        request.node.user_properties.append(("finding", text))

    return note


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep what each row came to for each driver."""
    outcome: Any = yield
    report = outcome.get_result()
    row = item.get_closest_marker("driver_row")
    column = getattr(item, "callspec", None) and item.callspec.params.get("kind")  # type: ignore[attr-defined]
    if row is None or not column or (report.when == "teardown" and report.passed):
        return
    if report.when == "call" or report.failed:
        told = [text for name, text in item.user_properties if name == "finding"] if report.passed else ["FAILED"]
        cells = _results.setdefault(row.args[0], {}).setdefault(column, [])
        cells += [text for text in told if text not in cells]


def words(found: list[str]) -> str:
    """What a cell says of all tests of its row."""
    if "FAILED" in found:
        return "FAILED"
    return "; ".join(found if found and found[0].startswith("no: ") else ["yes", *found])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for scripts/driver_matrix.py."""
    if _asked and _results:
        said = {row: {column: words(found) for column, found in cells.items()} for row, cells in _results.items()}
        terminalreporter.write_line(PREFIX + json.dumps(said))
