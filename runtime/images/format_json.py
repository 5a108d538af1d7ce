"""JSON documents of images, read with bounds: every field's type is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from runtime.images.format_digest import MAX_DOCUMENT_BYTES, ImageFault, shown

MAX_ITEMS = 10_000
MAX_TEXT = 1 << 20


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def parse(data: bytes, what: str) -> Any:
    """Decode JSON of at most 4 MiB; raises ImageFault naming `what`."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ImageFault(f"{what} is {shown(len(data))} long; {shown(MAX_DOCUMENT_BYTES)} is the limit.")
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ImageFault(f"{what} is not JSON ({str(error)[:100]}).", "Build or save the image again.") from error


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """Decode a JSON object."""
    return expect_object(parse(data, what), what)


def expect_object(value: Any, what: str) -> dict[str, Any]:
    """`value` when it is an object of at most 10,000 keys."""
    if not isinstance(value, dict) or len(value) > MAX_ITEMS:
        raise ImageFault(f"{what} is not a JSON object, or has more than {MAX_ITEMS} keys.")
    return value


def expect_list(value: Any, what: str) -> list[Any]:
    """`value` when it is a list of at most 10,000 items; None counts as empty, as Go writes it."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise ImageFault(f"{what} is not a JSON list, or has more than {MAX_ITEMS} items.")
    return value


def text_of(value: Any, what: str) -> str:
    """A string without NUL (None: "")."""
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value or len(value) > MAX_TEXT:
        raise ImageFault(f"{what} is not a string, holds a NUL, or is longer than {MAX_TEXT} characters.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ImageFault(f"{what} is not valid Unicode.") from error
    return value


def texts_of(value: Any, what: str) -> tuple[str, ...]:
    """A list of strings (None: empty)."""
    return tuple(text_of(item, what) for item in expect_list(value, what))


def mapping_of(value: Any, what: str) -> Mapping[str, str]:
    """An object of strings (None: empty)."""
    items = {} if value is None else expect_object(value, what)
    return {text_of(key, what): text_of(item, what) for key, item in items.items()}


def keys_of(value: Any, what: str) -> tuple[str, ...]:
    """The keys of an object used as a set (ExposedPorts, Volumes)."""
    return tuple(text_of(key, what) for key in ({} if value is None else expect_object(value, what)))


def number_of(value: Any, what: str, *, limit: int) -> int:
    """A whole number from 0 to `limit` (None: 0)."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise ImageFault(f"{what} is {str(value)[:40]}, not a whole number from 0 to {limit}.")
    return value
