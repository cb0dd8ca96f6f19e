"""Bytes into lines: cutting a pipe's stream at its newlines, and making text harmless.

Pure, and the hottest code of the collector: a whole buffer is handled by a few bytes
operations, single lines are looked at only where something is unusual. The reading side
imports ``clean_text`` too.
"""

from __future__ import annotations

import re
from typing import Final

#: Longest line in bytes; a longer one is cut into pieces, so that one worker cannot fill our memory.
LINE_LIMIT: Final = 16_384
#: At the end of a piece that another one follows, and at the beginning of that other one.
CONTINUED_AFTER: Final = b" [continued]"
CONTINUED_BEFORE: Final = b"[continued] "

#: What a terminal obeys or is reordered by: C0 without tab and newline, DEL, C1, the bidi controls,
#: line and paragraph separators. The same set as _text.is_inert refuses; a test holds them together.
_UNSAFE_CODES: Final = (
    *(code for code in range(0x20) if code not in (0x09, 0x0A)),
    *range(0x7F, 0xA0),
    *(0x061C, 0x200E, 0x200F),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_SAFE_ASCII: Final = bytes(code for code in range(0x80) if code not in _UNSAFE_CODES)
_UNSAFE: Final = re.compile("[" + "".join(map(chr, _UNSAFE_CODES)) + "]")
_ESCAPES: Final = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSAFE_CODES}
_ONE_LINE_ESCAPES: Final = {**_ESCAPES, 0x0A: "\\x0a"}


def clean(block: bytes) -> bytes:
    r"""Return the lines with everything a terminal would obey written as ``\x1b``; tabs and newlines stay.

    A carriage return before a newline is dropped. Bytes that are not UTF-8 are written as ``\xNN`` too.
    """
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    # What is unsafe is replaced kind by kind: a few passes in C over the whole buffer, where str.translate() takes
    # each character in its hands and is seven times slower on coloured log lines.
    if block.isascii():
        for code in set(block.translate(None, _SAFE_ASCII)):
            block = block.replace(bytes((code,)), _ESCAPES[code].encode())
        return block
    text = block.decode("utf-8", "backslashreplace")
    for character in set(_UNSAFE.findall(text)):
        text = text.replace(character, _ESCAPES[ord(character)])
    return text.encode()


def clean_text(text: str) -> str:
    r"""Return the text as one harmless line: like ``clean``, newlines and lone surrogates escaped as well."""
    if text.isprintable():
        return text
    return text.translate(_ONE_LINE_ESCAPES).encode("utf-8", "backslashreplace").decode()


class LineSplitter:
    """Cuts the bytes of one pipe into lines, and lines that are too long into pieces."""

    __slots__ = ("_is_continued", "_rest")

    def __init__(self) -> None:
        #: The beginning of the line that has no newline yet; at most LINE_LIMIT bytes.
        self._rest = b""
        #: Whether earlier pieces of that line were given away already.
        self._is_continued = False

    def state(self) -> tuple[bytes, bool]:
        """Return the beginning of a line that has no newline yet, and whether earlier pieces of it were given away."""
        return self._rest, self._is_continued

    def resume(self, rest: bytes, is_continued: bool) -> None:
        """Go on in the middle of a line, where another splitter has stopped."""
        self._rest, self._is_continued = rest, is_continued

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return the lines they complete, each with its newline, or nothing."""
        if self._rest:
            data = self._rest + data
        end = data.rfind(b"\n") + 1
        complete, rest = data[:end], data[end:]
        if complete and (self._is_continued or _has_long_line(complete)):
            complete = self._cut(complete)
        if len(rest) > LINE_LIMIT:
            *pieces, rest = _pieces(rest)
            complete += b"".join(self._mark(piece, is_last=False) for piece in pieces)
        self._rest = rest
        return complete

    def finish(self) -> bytes:
        """Return the last line, which will not get a newline any more; nothing if there is none."""
        rest, self._rest = self._rest, b""
        return self._mark(rest, is_last=True) if rest else b""

    def _cut(self, complete: bytes) -> bytes:
        marked: list[bytes] = []
        for line in complete[:-1].split(b"\n"):
            *pieces, last = _pieces(line)
            marked += [self._mark(piece, is_last=False) for piece in pieces]
            marked.append(self._mark(last, is_last=True))
        return b"".join(marked)

    def _mark(self, piece: bytes, *, is_last: bool) -> bytes:
        before = CONTINUED_BEFORE if self._is_continued else b""
        self._is_continued = not is_last
        return before + piece + (b"\n" if is_last else CONTINUED_AFTER + b"\n")


def _has_long_line(complete: bytes) -> bool:
    """Whether a line exceeds the limit: leaps from newline to newline, as far as a line may reach."""
    start, end = 0, len(complete)
    while end - start > LINE_LIMIT + 1:
        newline = complete.rfind(b"\n", start, start + LINE_LIMIT + 1)
        if newline < 0:
            return True
        start = newline + 1
    return False


def _pieces(line: bytes) -> list[bytes]:
    """Return the line in pieces of at most LINE_LIMIT bytes; never cuts inside a character."""
    pieces: list[bytes] = []
    start = 0
    while len(line) - start > LINE_LIMIT:
        end = start + LINE_LIMIT
        # A UTF-8 character has at most three continuation bytes; what has more is not UTF-8 and may be cut anywhere.
        for back in range(4):
            if line[end - back] & 0xC0 != 0x80:
                end -= back
                break
        pieces.append(line[start:end])
        start = end
    pieces.append(line[start:])
    return pieces
