"""On which line of a TOML text a key or a table stands. Pure.

tomli gives values without places, so this walks over the statements again, once there is an
error to place. It reads structure only (headers, keys, and where a value ends), for text
that tomli has accepted, whole or up to an error. In doubt it knows no line: a wrong line
number is worse than none.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

#: Keys from the top; an integer is a place in an array of tables, counted from 0.
Path = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_KEY_PART: Final = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|"((?:\\.|[^"\\\n])*)"|'([^'\n]*)')[ \t]*""")
#: One piece of a value. A multi-line string may end in up to two quotes of its own, hence {3,5}.
_PIECE: Final = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*|[\[{]|[\]}]|\n|[^"'#\[\]{}\n]+''', re.DOTALL
)


class Repeated(NamedTuple):
    """A key or table that stands in the text twice."""

    path: Path
    first_line: int
    second_line: int
    is_table: bool


class SourceLines:
    """The lines of every key and header of one text.

    Args:
        text: TOML; what follows a statement that cannot be read is ignored.
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._lines: dict[Path, int] = {}
        #: How many tables each array has so far; ``[worker.x]`` belongs to the last one.
        self._arrays: dict[Path, int] = {}
        #: The last key or table that had been there before: what a parser stopped at.
        self.repeated: Repeated | None = None
        self._walk()

    def of(self, path: Path) -> int | None:
        """Return the line of a key or a table's header, counted from 1; None when the text has no line of its own for it."""
        return self._lines.get(path)

    def _walk(self) -> None:
        text = self._text
        table: Path = ()
        position = line = 0
        while True:
            start = _end(_BLANK, text, position)
            line += text.count("\n", position, start)
            position = start
            if position >= len(text):
                return
            if text[position] == "[":
                brackets = 2 if text.startswith("[[", position) else 1
                keys, position = self._key(position + brackets)
                if not keys or not text.startswith("]" * brackets, position):
                    return
                position += brackets
                table = self._enter(keys) if brackets == 2 else self._resolve(keys)
                self._record(table, line + 1, is_table=True)
            else:
                keys, position = self._key(position)
                if not keys or not text.startswith("=", position):
                    return
                self._record(table + keys, line + 1, is_table=False)
                end = _end_of_value(text, position + 1)
                line += text.count("\n", position, end)
                position = end

    def _key(self, position: int) -> tuple[tuple[str, ...], int]:
        """Read a dotted key; without one the tuple is empty."""
        parts: list[str] = []
        while (match := _KEY_PART.match(self._text, position)) is not None:
            bare, basic, literal = match.groups()
            # NUL cannot stand in a TOML key, so an escape that is not worked out here matches nothing.
            parts.append(bare or literal or ("\0" if basic and "\\" in basic else basic) or "")
            position = match.end()
            if not self._text.startswith(".", position):
                return tuple(parts), position
            position += 1
        return (), position

    def _resolve(self, keys: tuple[str, ...]) -> Path:
        path: Path = ()
        for key in keys:
            path = (*path, key)
            if path in self._arrays:
                path = (*path, self._arrays[path] - 1)
        return path

    def _enter(self, keys: tuple[str, ...]) -> Path:
        array = (*self._resolve(keys[:-1]), keys[-1])
        self._arrays[array] = self._arrays.get(array, 0) + 1
        return (*array, self._arrays[array] - 1)

    def _record(self, path: Path, line: int, *, is_table: bool) -> None:
        first = self._lines.setdefault(path, line)
        self.repeated = None if first == line else Repeated(path, first, line, is_table)


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _end_of_value(text: str, position: int) -> int:
    """Return where the line ends on which the value ends."""
    depth = 0
    while (match := _PIECE.match(text, position)) is not None:
        piece = match.group()
        if piece == "\n" and depth == 0:
            return position
        depth += (piece in ("[", "{")) - (piece in ("]", "}"))
        position = match.end()
    return len(text)
