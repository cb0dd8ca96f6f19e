"""Bytes into lines."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgworker._collector.lines import CONTINUED_AFTER, CONTINUED_BEFORE, LINE_LIMIT, LineSplitter, clean, clean_text
from bgworker._text import is_inert


def split(*chunks: bytes) -> bytes:
    splitter = LineSplitter()
    return b"".join(splitter.feed(chunk) for chunk in chunks) + splitter.finish()


def joined(lines: bytes) -> bytes:
    """Undo the cutting of long lines."""
    return lines.replace(CONTINUED_AFTER + b"\n" + CONTINUED_BEFORE, b"")


def test_only_complete_lines_are_given_out() -> None:
    """A line without newline waits for the rest of it."""
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntw") == b"one\n"
    assert splitter.feed(b"o") == b""
    assert splitter.feed(b"\nthree\n\n") == b"two\nthree\n\n"
    assert splitter.finish() == b""


def test_last_line_without_newline_gets_one() -> None:
    """The end of the stream ends its last line."""
    assert split(b"one\ntwo") == b"one\ntwo\n"


def test_longest_line_is_kept_whole() -> None:
    """A line of exactly the limit is not cut."""
    line = b"x" * LINE_LIMIT
    assert split(line + b"\n") == line + b"\n"
    assert split(line) == line + b"\n"
    assert split(b"a\n" + line + b"\nb\n") == b"a\n" + line + b"\nb\n"


def test_long_line_is_cut_into_marked_pieces() -> None:
    """A line longer than the limit becomes pieces that say that they go on and that they are the continuation."""
    line = b"x" * (2 * LINE_LIMIT + 5)
    piece = b"x" * LINE_LIMIT
    expected = piece + b" [continued]\n[continued] " + piece + b" [continued]\n[continued] xxxxx\n"
    assert split(line + b"\n") == expected
    assert split(line) == expected
    assert split(b"before\n" + line + b"\nafter\n") == b"before\n" + expected + b"after\n"


def test_endless_line_is_not_collected() -> None:
    """A worker that never writes a newline cannot fill our memory."""
    splitter = LineSplitter()
    given_out = sum(len(splitter.feed(b"x" * 65_536)) for _ in range(64))
    assert given_out > 64 * 65_536 - LINE_LIMIT


def test_characters_are_not_cut() -> None:
    """A piece ends between characters, and a line that is no UTF-8 is cut all the same."""
    line = ("x" + "€" * LINE_LIMIT).encode()
    for piece in split(line + b"\n").split(b"\n"):
        piece.decode()
    assert joined(split(line + b"\n")) == line + b"\n"
    assert joined(split(b"\x80" * (3 * LINE_LIMIT))) == b"\x80" * (3 * LINE_LIMIT) + b"\n"


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 2 * LINE_LIMIT).map(lambda n: b"y" * n), st.just(b"\n")), max_size=30)
)
def test_no_byte_is_lost(chunks: list[bytes]) -> None:
    """However the bytes arrive, all of them come out, in order, in lines that keep to the limit."""
    data = b"".join(chunks)
    lines = split(*chunks)
    assert joined(lines) == (data if data.endswith(b"\n") or not data else data + b"\n")
    longest = LINE_LIMIT + len(CONTINUED_AFTER) + len(CONTINUED_BEFORE)
    assert all(len(line) <= longest for line in lines.split(b"\n"))


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        (b"plain\ttext\n", b"plain\ttext\n"),
        (b"\x1b[31mred\x1b[0m\n", b"\\x1b[31mred\\x1b[0m\n"),
        (b"\x1b]52;c;aGk=\x07\n", b"\\x1b]52;c;aGk=\\x07\n"),
        (b"crlf\r\n", b"crlf\n"),
        (b"10%\r20%\n", b"10%\\x0d20%\n"),
        (b"nul\0del\x7f\n", b"nul\\x00del\\x7f\n"),
        ("naïve €\n".encode(), "naïve €\n".encode()),
        ("c1\x9b31m nel\x85\n".encode(), b"c1\\x9b31m nel\\x85\n"),
        ("é\u202egnp.exe\u2066\u200f\u2028\n".encode(), "é\\u202egnp.exe\\u2066\\u200f\\u2028\n".encode()),
        (b"latin1 \xe9 and \xff\xfe\n", b"latin1 \\xe9 and \\xff\\xfe\n"),
        (b"surrogate \xed\xa0\x80\n", b"surrogate \\xed\\xa0\\x80\n"),
        (b"[/bold] \\x1b stays\n", b"[/bold] \\x1b stays\n"),
    ],
)
def test_control_characters_are_escaped(raw: bytes, safe: bytes) -> None:
    """What a terminal would obey is written down instead; the rest stays as it is."""
    assert clean(raw) == safe


def test_clean_agrees_with_the_rule_for_names() -> None:
    """Every character that a worker's name must not have is escaped, every other is kept."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if not 0xD800 <= code < 0xE000 and character not in "\t\n":
            assert (clean(character.encode()) == character.encode()) == is_inert(character), hex(code)


@given(st.binary(max_size=300))
def test_anything_becomes_harmless(raw: bytes) -> None:
    """Whatever a worker writes, the file gets valid UTF-8 without a control character, and as many lines."""
    text = clean(raw).decode()
    assert all(is_inert(character) or character in "\t\n" for character in text)
    assert text.count("\n") == raw.count(b"\n")
    assert clean(clean(raw)) == clean(raw)


def test_text_stays_one_line() -> None:
    """A text of the host's or of a registration cannot begin a line of its own."""
    assert clean_text("a\nb\ud800\x1b é\tc") == "a\\x0ab\\ud800\\x1b é\tc"


@given(st.lists(st.binary(max_size=40) | st.just(b"x" * (LINE_LIMIT - 3)) | st.just(b"\n"), max_size=8), st.integers(0, 8))
def test_another_splitter_goes_on_in_the_middle(chunks: list[bytes], at: int) -> None:
    """What one splitter has begun another one finishes, as if it had been one: no line is torn, and no cut forgotten."""
    first, second = LineSplitter(), LineSplitter()
    found = b"".join(first.feed(chunk) for chunk in chunks[:at])
    second.resume(*first.state())
    found += b"".join(second.feed(chunk) for chunk in chunks[at:]) + second.finish()
    assert found == split(*chunks)
