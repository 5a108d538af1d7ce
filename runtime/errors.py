"""The one base error of the runtime: a sentence for the person, and the way out."""


class RuntimeFault(Exception):
    """Something the runtime refuses or could not do. `message` is a sentence with the figure, `hint` the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()
