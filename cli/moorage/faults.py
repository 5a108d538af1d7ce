"""What the command line says no with: one sentence and the way out."""

from __future__ import annotations


class Fault(Exception):
    """Something that cannot be done; `body` is what the portal answered, when it did."""

    def __init__(self, message: str, hint: str = "", *, body: object = None, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.body = body
        self.status = status
