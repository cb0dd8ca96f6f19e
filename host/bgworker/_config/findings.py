"""The errors of one file: collected with their places, raised all at once.

Holds the one rule of wording here: file, line, table, key, then what is wrong. Values are
shown only through ``shown``, which keeps secrets and terminal escapes out. Used by the
rooms beside it; the error class is for everybody.
"""

from __future__ import annotations

import datetime
import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bgworker._config.lines import Path, SourceLines
from bgworker._config.model import shortened
from bgworker.errors import ConfigurationError

#: Where a table has more keys than an error can name.
SEE_KEYS: Final = "All keys are in docs/operating.md; bgworker schema prints them, too."
_MOST_KEYS: Final = 10
#: Looks like a URL or a connection string; either can hold a password.
_SECRET: Final = re.compile(r"://|password", re.IGNORECASE)


class ConfigurationErrors(ConfigurationError):  # noqa: N818 - plural on purpose, it holds several
    """Everything that is wrong with one file; nothing of it is used.

    Args:
        path: The file.
        errors: One or more, in the order of their lines.
    """

    def __init__(self, path: str, errors: Sequence[ConfigurationError]) -> None:
        self.path = path
        self.errors = list(errors)
        if len(self.errors) == 1:
            only = self.errors[0]
            super().__init__(only.message_primary, only.message_detail, only.message_hint)
        else:
            # Across the control socket an error is three strings: there the detail has one error a line.
            super().__init__(
                f'configuration file "{shortened(path, 200)}" has {len(self.errors)} errors',
                "\n".join(error.message_primary for error in self.errors),
            )

    def __reduce__(self) -> tuple[type[ConfigurationErrors], tuple[str, list[ConfigurationError]]]:
        return type(self), (self.path, self.errors)

    def lines(self) -> list[str]:
        """Return every error as a terminal shows it."""
        return [line for error in self.errors for line in error.lines()]


class Findings:
    """Collects the errors of one file.

    Args:
        path: The file, as the errors are to name it.
        text: Its contents, read again for line numbers when there is an error.
    """

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self._text = text
        #: With the line that each belongs near, for their order.
        self._errors: list[tuple[float, ConfigurationError]] = []
        self._source: SourceLines | None = None

    def line(self, path: Path) -> int | None:
        """Return the line on which a key, table or array of tables starts, if it is known for certain."""
        if self._source is None:
            self._source = SourceLines(self._text)
        line = self._source.of(path)
        return self._source.of((*path, 0)) if line is None else line

    def innermost(self, path: Path, length: int) -> Path:
        """Return the longest part of a path, of at least a length, that has a line of its own; the shortest if none has."""
        while len(path) > length and self.line(path) is None:
            path = path[:-1]
        return path

    def add(self, table: str, path: Path, problem: str, detail: str = "", hint: str = "") -> None:
        """Keep one error.

        Args:
            table: Such as ``[host]``, with the key behind it if the error is about one.
            path: Where the key or table stands, for the line number.
            problem: What was expected and what was found, or what else is wrong.
            detail: Facts, in full sentences.
            hint: Advice, in full sentences.
        """
        line = self.line(path)
        place = shortened(self.path, 200) + (f":{line}" if line is not None else "")
        order = self.line(self.innermost(path, 1)) if line is None else line
        error = ConfigurationError(f"{place}: {table}: {problem}", detail, hint)
        self._errors.append((math.inf if order is None else order, error))

    def add_key_without_meaning(self, table: str, path: Path, known: Sequence[str], elsewhere: str | None = None) -> None:
        """Keep the error of a key that the table does not have."""
        key = str(path[-1])
        near = nearest(key, known)
        is_short = len(known) <= _MOST_KEYS
        self.add(
            table,
            path,
            f'there is no key "{shown_key(key)}"' + (f', the nearest known key is "{near[0]}"' if near else ""),
            f"The keys here are {', '.join(known)}." if is_short else "",
            f"{key} is a key of {elsewhere}." if elsewhere else "" if is_short or near else SEE_KEYS,
        )

    def errors(self) -> list[ConfigurationError]:
        """Return what was collected, from the first line to the last."""
        return [error for _, error in sorted(self._errors, key=lambda placed: placed[0])]

    def raise_if_any(self) -> None:
        """Raise what was collected, from the first line to the last.

        Raises:
            ConfigurationErrors: There is at least one error.
        """
        if self._errors:
            raise ConfigurationErrors(self.path, self.errors())


def nearest(word: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Return the known words that are most like the word, the best first; none if all are far from it."""
    # Compared without case; a word of any length may come in, and comparing takes quadratic time.
    folded = {candidate.casefold(): candidate for candidate in known}
    return [folded[match] for match in difflib.get_close_matches(word[:100].casefold(), folded, n=count)]


def shown_key(key: str) -> str:
    """Return a key that somebody else chose, fit for a message."""
    return "..." if _SECRET.search(key) and not key.isidentifier() else shortened(key)


def shown(value: Any, *, is_secret: bool = False) -> str:
    """Return a found value as an error may show it: its kind, and the value itself if that is short and no secret."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"the integer {value}" if abs(value) < 1 << 64 else "an integer of more than 64 bits"
        case float():
            return f"the number {value}" if math.isfinite(value) else str(value)
        case str():
            return "another string" if is_secret or _SECRET.search(value) else f'the string "{shortened(value)}"'
        case list():
            return "an array" if value else "an empty array"
        case dict():
            return "a table"
        case datetime.date() | datetime.time():
            return "a date or time"
        case _:
            return "another value"
