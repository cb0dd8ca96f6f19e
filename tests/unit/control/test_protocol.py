"""Messages and lines, whatever arrives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgworker._control.protocol import MAX_DEPTH, Decoder, decode, encode
from bgworker.errors import ProtocolError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=5))
def test_round_trip(message: dict[str, Any]) -> None:
    """Every JSON object goes over the wire as one line and comes back the same."""
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == message


@given(st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b""))), st.data())
def test_lines(lines: list[bytes], data: st.DataObject) -> None:
    """Lines come out as they went in, however they are cut into blocks."""
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = Decoder()
    out: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        out += decoder.feed(stream[start:end])
    assert out == lines


@given(st.binary(max_size=200))
def test_any_bytes(line: bytes) -> None:
    """Whatever a line holds, the outcome is an object or a ProtocolError."""
    try:
        message = decode(line)
    except ProtocolError:
        return
    assert isinstance(message, dict)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"1",
        b"\xff",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1,"a":2}',
        b'{"a":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_refused(line: bytes) -> None:
    """What JSON's grammar or ours does not allow is refused, deep nesting and huge numbers included."""
    with pytest.raises(ProtocolError):
        decode(line)


def test_brackets_in_strings_do_not_nest() -> None:
    """Text full of brackets is text."""
    assert decode(encode({"a": '\\"[{' * 100})) == {"a": '\\"[{' * 100}


def test_line_limit() -> None:
    """A line beyond the limit is refused as soon as it is known to be longer, finished or not."""
    decoder = Decoder(limit=10)
    assert decoder.feed(b"x" * 10) == []
    assert decoder.feed(b"\n") == [b"x" * 10]
    with pytest.raises(ProtocolError, match="longer than 10"):
        decoder.feed(b"x" * 11)
    with pytest.raises(ProtocolError, match="longer than 10"):
        Decoder(limit=10).feed(b"x" * 11 + b"\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes"])
def test_what_cannot_be_said(value: object) -> None:
    """What JSON has no word for is refused at the sender."""
    with pytest.raises(ProtocolError):
        encode({"a": value})


def test_lone_surrogate() -> None:
    """Half a character, as file names have it, goes as a question mark: the line stays UTF-8."""
    assert decode(encode({"a": "\udc80"})[:-1]) == {"a": "?"}
