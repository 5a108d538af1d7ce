"""Reads what people paste as `.env`: `KEY=value` lines, comments, `export`, quotes that may span lines. Pure."""

from __future__ import annotations

import re

from portal.errors import Invalid

_START = re.compile(r"\s*(?:export\s+)?([^\s=#][^\s=]*)\s*=[ \t]*(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NAMED = {"n": "\n", "t": "\t", "r": "\r"}


def parse_dotenv(text: str) -> dict[str, str]:
    """Variables in order; a repeated one counts last. Raises Invalid with the line's number, never with a value."""
    found: dict[str, str] = {}
    lines = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _START.fullmatch(line)
        if match is None:
            raise Invalid(
                f"Line {at} is not KEY=value.", "Put one variable on each line; lines that begin with # are skipped."
            )
        key, rest = match[1], match[2]
        if rest[:1] in {"'", '"'}:
            value, at = _quoted(rest, lines, at)
        else:
            value = re.sub(r"\s+#.*$", "", rest).strip()
        found[key] = value
    return found


def _quoted(rest: str, lines: list[str], at: int) -> tuple[str, int]:
    quote, begun, body = rest[0], at, rest[1:]
    while (end := _closing(body, quote)) < 0:
        if at >= len(lines):
            raise Invalid(f"The quote that opens on line {begun} is never closed.", f"End the value with {quote}.")
        body += "\n" + lines[at]
        at += 1
    value = body[:end]
    return (value if quote == "'" else _ESCAPE.sub(lambda m: _NAMED.get(m[1], m[1]), value)), at


def _closing(body: str, quote: str) -> int:
    place = 0
    while place < len(body):
        if body[place] == "\\" and quote == '"':
            place += 1
        elif body[place] == quote:
            return place
        place += 1
    return -1
