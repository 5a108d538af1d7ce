"""Keys that let go of a terminal while its program runs on. Pure."""

from __future__ import annotations

from runtime.engine.errors import Invalid

DEFAULT = "ctrl-p,ctrl-q"
_BESIDE_LETTERS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}
MOST = 16


def parse_keys(text: str) -> bytes:
    """Docker's words for keys, `ctrl-p,ctrl-q` or `a,b`, as the bytes a terminal sends; "" is the default. Raises Invalid."""
    found = bytearray()
    for key in (text or DEFAULT).split(","):
        code = _code(key)
        if code < 0 or len(found) == MOST:
            raise Invalid(
                f"Invalid detach keys ({text[:64]}) provided.",
                f"Give up to {MOST} of: one letter, or ctrl- and one of a-z @ [ \\ ] ^ _, with commas between.",
            )
        found.append(code)
    return bytes(found)


def _code(key: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    if key == "DEL":
        return 127
    name = key.removeprefix("ctrl-") if key.startswith("ctrl-") else ""
    if len(name) == 1 and "a" <= name <= "z":
        return ord(name) - ord("a") + 1
    return _BESIDE_LETTERS.get(name, -1)


class Keys:
    """Looks for a sequence in what is typed. What may be its beginning is held back until the next key decides."""

    def __init__(self, wanted: bytes) -> None:
        self._wanted = wanted
        self._held = 0
        self.seen = False

    def take(self, data: bytes) -> bytes:
        """What of the keys is for the program; `seen` is true once the sequence was typed, and the rest is dropped."""
        out = bytearray()
        for key in data:
            if key != self._wanted[self._held]:
                out += self._wanted[: self._held]
                self._held = 0
            if key != self._wanted[self._held]:
                out.append(key)
                continue
            self._held += 1
            if self._held == len(self._wanted):
                self.seen = True
                break
        return bytes(out)
