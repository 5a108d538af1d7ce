"""The runtime's root tests run on the host and in a guest with unified cgroups, all but those that say why they cannot:
`@pytest.mark.host_only("reason")`. Guests side by side deal them out (scripts/dealing.py). `not_in_guest_yet.txt` names files and
tests that were not seen to pass in a guest so far; a line goes when its tests have."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from scripts.dealing import COLLECTED, HOST_ONLY, Dealer

HERE = Path(__file__).parent
HERE_NAME = "tests/runtime/root/"
IN_GUEST = bool(os.environ.get("MOORAGE_TEST_VM"))
TIMEOUT_S = 900  # of a test in the guest, which is emulated
WHY = 600  # characters
NOT_YET = tuple((HERE / "not_in_guest_yet.txt").read_text().split("\n")[:-1])
DEALER = pytest.StashKey[Dealer]()


def pytest_configure(config: pytest.Config) -> None:
    """In a guest that shares its work."""
    if folder := os.environ.get("MOORAGE_TEST_SHARE"):
        config.stash[DEALER] = Dealer(Path(folder), int(os.environ["MOORAGE_TEST_GUEST"]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything here needs root and fails without it; a test that stays out of the guest says why."""
    host_only = []
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.root)
        if item.nodeid.removeprefix(HERE_NAME).startswith(NOT_YET):
            item.add_marker(pytest.mark.host_only("it was not seen to pass in a guest yet"))
        if mark := item.get_closest_marker("host_only"):
            if not (mark.args and isinstance(mark.args[0], str) and mark.args[0]):
                raise pytest.UsageError(f"{item.nodeid} is host_only: say why, as in host_only('the guest has no …').")
            host_only.append(f"{item.nodeid}  {mark.args[0]}")
        if IN_GUEST:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S), append=False)
    if dealer := config.stash.get(DEALER, None):
        (dealer.folder / HOST_ONLY).write_text("".join(f"{line}\n" for line in host_only))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down what is to be dealt out."""
    if dealer := session.config.stash.get(DEALER, None):
        (dealer.folder / COLLECTED).write_text("".join(f"{item.nodeid}\n" for item in session.items))
        controllers = Path("/sys/fs/cgroup/cgroup.controllers").read_text().strip()
        dealer.say(f"guest {dealer.guest}: Linux {platform.release()}, unified cgroups: {controllers}")


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """In a guest: run what is dealt to it."""
    dealer = session.config.stash.get(DEALER, None)
    if dealer is None or session.testsfailed:
        return None
    dealt = dealer.deal(session.items)
    item = next(dealt, None)
    while item is not None:
        following = next(dealt, None)  # known before, so that fixtures for both are kept
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        item = following
    return True


class _Outcomes:
    """Writes down how each test went."""

    def __init__(self, dealer: Dealer) -> None:
        self._dealer = dealer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        why = str(crash.message if crash else report.longrepr or "").replace("\n", " ")[:WHY]
        self._dealer.note(report.nodeid, report.outcome, report.duration, last=report.when == "teardown", why=why)


def pytest_sessionstart(session: pytest.Session) -> None:
    """From the first test on."""
    if dealer := session.config.stash.get(DEALER, None):
        session.config.pluginmanager.register(_Outcomes(dealer))
