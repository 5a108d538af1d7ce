"""The table of storage drivers in docs/storage.md is what the suite says: its rows, the drivers there are, and no failure."""

from __future__ import annotations

from runtime.storage.choose import ORDER
from scripts import driver_matrix
from tests.runtime.root.storage import grounds, test_drivers


def rows() -> list[str]:
    """What the suite's tests fill, in their order."""
    found = []
    for test in vars(test_drivers).values():
        marks = getattr(test, "pytestmark", []) if callable(test) else []
        found += [mark.args[0] for mark in marks if mark.name == "driver_row"]
    return found


def test_the_committed_table_has_the_suites_rows_and_every_driver() -> None:
    table = driver_matrix.parsed(driver_matrix.DOCUMENT.read_text())
    assert list(table) == rows()
    assert {tuple(cells) for cells in table.values()} == {ORDER}
    assert set(grounds.GROUNDS) == set(ORDER)


def test_the_committed_table_has_no_failure() -> None:
    for row, cells in driver_matrix.parsed(driver_matrix.DOCUMENT.read_text()).items():
        for driver, words in cells.items():
            assert words and words not in ("FAILED", driver_matrix.ABSENT), f"{row}: {driver}: {words}"


def test_a_table_is_read_as_it_was_written() -> None:
    found = {"a row": {"x": "yes", "y": "no: why"}, "another": {"x": "FAILED", "y": "yes"}}
    output = f"...\n{driver_matrix.PREFIX}" + '{"a row": {"x": "yes"}}' + "\n1 passed\n"
    assert driver_matrix.results(output) == {"a row": {"x": "yes"}}
    document = driver_matrix.written(
        f"before\n{driver_matrix.BEGIN}old\n{driver_matrix.END}after\n", driver_matrix.table(found, ["x", "y"])
    )
    assert driver_matrix.parsed(document) == found
    assert document.startswith("before\n") and document.endswith("after\n")
