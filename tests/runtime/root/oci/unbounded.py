"""A launcher whose monitors see an end only when nobody holds the program's pipes any more: what the bounded drain is for."""

from __future__ import annotations

import os

from runtime.oci import launcher
from runtime.oci.session import READ_BYTES, Session

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from tests.runtime.root.oci.unbounded import main; main(int(sys.argv[2]))"
_bounded, _launcher = Session._drain, os.getpid()


def _drain(self: Session) -> None:
    if os.getpid() == _launcher:  # which tries a session of its own, to be warm, and holds all ends of its pipes
        _bounded(self)
        return
    for output in self._outputs:
        if output.fd < 0:
            continue
        os.set_blocking(output.fd, True)
        while chunk := os.read(output.fd, READ_BYTES):
            self._take(output, chunk)
        self._close_output(output)


def main(fd: int) -> None:
    """Be a launcher."""
    Session._drain = _drain  # type: ignore[method-assign]
    launcher.main(fd)
