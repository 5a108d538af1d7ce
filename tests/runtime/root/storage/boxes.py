"""A container's root as its processes see it: a plan carried out by the runtime's own helper, in a user namespace of its own.

What a test does inside is a function; it runs in a child of the test process that has entered the namespaces.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.kernel import mounts, namespaces, syscalls
from runtime.oci import rootfs
from runtime.storage import ext4
from runtime.storage.driver import RootPlan
from tests.runtime.root.images.mounting import eventually

ID_BASE, ID_COUNT = 231_072, 65_536


@dataclass(frozen=True)
class Box:
    """`pid` holds the namespaces; `loop` is the device of a sized layer."""

    pid: int
    loop: str

    def run[T](self, function: Callable[[], T]) -> T:
        """What the function returns inside, as root there; what it raises is raised here."""
        return _in_child(lambda: self._enter(function))

    def _enter[T](self, function: Callable[[], T]) -> T:
        opened = [os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "user")]
        for fd in opened:  # no /proc is there after the first
            os.setns(fd, 0)
            os.close(fd)
        namespaces.become_root()
        os.umask(0o022)
        return function()


def _in_child[T](function: Callable[[], T]) -> T:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        _answer(writer, function)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        raw = answer.read()
    os.waitpid(pid, 0)
    assert raw, "the process inside was killed"
    result: T
    failure, result = pickle.loads(raw)
    if failure is not None:
        raise failure
    return result


def _answer(writer: int, function: Callable[[], Any]) -> None:
    try:
        try:
            raw = pickle.dumps((None, function()))
        except BaseException as error:  # noqa: BLE001  (it is raised where it was asked for)
            try:
                raw = pickle.dumps((error, None))
                pickle.loads(raw)
            except Exception:  # noqa: BLE001
                raw = pickle.dumps((AssertionError(traceback.format_exc()), None))
        with os.fdopen(writer, "wb") as answer:
            answer.write(raw)
    finally:
        os._exit(0)


@contextmanager
def running(plan: RootPlan) -> Iterator[Box]:
    """The plan's root, as the runtime makes it; mounts, loop device and whatever serves it are gone afterwards."""
    ready, told = os.pipe()
    over, hold = os.pipe()
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            os.close(ready)
            os.close(hold)
            _hold(plan, told, over)
        os._exit(0)
    os.close(told)
    os.close(over)
    try:
        with os.fdopen(ready, "rb") as answer:
            raw = answer.read()
        failure, loop = pickle.loads(raw) if raw else (AssertionError("the holder was killed"), "")
        if failure:
            raise failure
        yield Box(pid, loop)
    finally:
        os.close(hold)
        os.waitpid(pid, 0)
        if plan.image is not None:
            image = Path(plan.store_root, plan.image)
            eventually(lambda: not image.exists() or ext4.find_loop(image) is None)


def _hold(plan: RootPlan, told: int, over: int) -> None:
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        mapping = [(0, ID_BASE, ID_COUNT)]
        userns = namespaces.user_namespace(mapping, mapping)
        os.unshare(syscalls.CLONE_NEWNS)
        mounts.make_private()
        root, loop = rootfs.make_root(plan, userns, ID_BASE)
        os.unshare(syscalls.CLONE_NEWNS)  # pivot_root moves whoever is in the namespace, a server of the root too
        mounts.attach_root(root)
        mounts.enter_root(root)
        os.setns(userns, 0)
        answer: tuple[Exception | None, str] = (None, loop)
    except Exception as error:  # noqa: BLE001  (it is raised in the test)
        answer = (AssertionError(f"{error!r}\n{traceback.format_exc()}"), "")
    os.write(told, pickle.dumps(answer))
    os.close(told)
    os.read(over, 1)
