"""Names and text of any bytes, on any terminal and in JSON."""

import io
import json
import math

import pytest

from vrex.text import escape_on, from_json, from_toml, is_utf8, printable, to_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("映画 é", "映画 é"),
        ("caf\udce9.mp4", r"caf\xe9.mp4"),
        ("\udce6\udc98\udca0", "映"),
        ("\ud800x", r"\ud800x"),
        ("a\udc80\ud800b", r"a\x80\ud800b"),
    ],
)
def test_every_text_becomes_utf8(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert is_utf8(text) == (text == shown)
    printable(text).encode()


def test_json_holds_nothing_that_a_strict_reader_refuses() -> None:
    value = {"caf\udce9": ["\ud800", ("é", 1.5, math.nan)], "x": -math.inf, "n": None, "t": True}
    content = to_json(value, indent=1)
    assert content.isascii()
    assert json.loads(content) == {"caf\\xe9": ["\\ud800", ["é", 1.5, None]], "x": None, "n": None, "t": True}


def test_a_terminal_of_any_encoding_takes_every_name() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    escape_on(stream)
    print("映 caf\udce9", file=stream, flush=True)
    assert raw.getvalue() == b"\\u6620 caf\\xe9\n"


DEEP, LONG = "[" * 100_000, "1" * 5_000


@pytest.mark.parametrize(
    ("value", "says"), [(DEEP, "nested too deeply"), (LONG, "Exceeds the limit"), ("{", "Exp|Inv|Unc")]
)
def test_a_document_that_cant_be_read_is_a_value_error(value: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_json(value)
    with pytest.raises(ValueError, match=says):
        from_toml(f"key = {value}")
