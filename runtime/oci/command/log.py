"""What goes wrong, in runc's forms: a sentence on stderr, and in the file that the caller reads it from."""

from __future__ import annotations

import json
import os
import sys
import time

from runtime.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Log:
    """`path` "" is no file; with `debug` more is written."""

    path: str = ""
    json: bool = False
    debug: bool = False

    def failure(self, text: str) -> None:
        """The last word of a command that failed."""
        self._write("error", text)
        print(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """Something that does not stop the command."""
        self._write("warning", text)
        if not self.path:
            print(f"warning: {text}", file=sys.stderr)

    def say(self, text: str) -> None:
        """For whoever asked for more."""
        if self.debug:
            self._write("debug", text)

    def _write(self, level: str, text: str) -> None:
        if not self.path:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = {"level": level, "msg": text, "time": stamp}
        line = json.dumps(entry) if self.json else f'time="{stamp}" level={level} msg={json.dumps(text)}'
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)
