"""What people paste as `.env`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.errors import Invalid
from portal.hosting.dotenv import parse_dotenv


def test_comments_exports_quotes_and_blank_lines_are_understood() -> None:
    text = '# comment\n\nexport A=1\nB = two words # why\nC=\'keep # this\'\nD="line\\nbreak \\"quoted\\""\nE=\nF=a=b\n'
    assert parse_dotenv(text) == {
        "A": "1",
        "B": "two words",
        "C": "keep # this",
        "D": 'line\nbreak "quoted"',
        "E": "",
        "F": "a=b",
    }


def test_a_quoted_value_may_span_lines() -> None:
    assert parse_dotenv("KEY='-----BEGIN\nabc\n-----END'\r\nNEXT=1") == {
        "KEY": "-----BEGIN\nabc\n-----END",
        "NEXT": "1",
    }


@pytest.mark.parametrize(
    ("text", "line"), [("A=1\nnonsense", "Line 2"), ("A='open\nB=2", "line 1"), ("=value", "Line 1")]
)
def test_what_cannot_be_read_is_named_by_its_line_and_never_shown(text: str, line: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_dotenv(text)
    assert line in refused.value.message and "nonsense" not in refused.value.message


@given(st.text())
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        found = parse_dotenv(text)
    except Invalid as refused:
        assert refused.message
    else:
        assert all(key and "=" not in key for key in found)
