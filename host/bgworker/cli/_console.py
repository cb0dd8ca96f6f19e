"""What commands print: facts on standard output, ERROR/DETAIL/HINT lines on standard error.

Imported by every verb, the fast path of ``status --json`` included: standard library only.
The command line is the only room that prints. Whatever others wrote is made inert first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bgworker._text import printable
from bgworker.errors import HostError

#: Ctrl-C, as a shell reports it: 128 + SIGINT.
INTERRUPTED: Final = 130
#: The reader of our output has gone, as a shell reports it: 128 + SIGPIPE.
BROKEN_PIPE: Final = 141


def say(text: str = "") -> None:
    """Print facts; line breaks in them are ours and stay."""
    for line in text.split("\n"):
        sys.stdout.write(inert(line) + "\n")


def say_json(value: Any) -> None:
    """Print one JSON value: indented for a person, on one line for a program."""
    import json

    # ASCII alone: a terminal obeys C1 and bidi controls, which JSON would let through.
    sys.stdout.write(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")


def note(level: str, message: str) -> None:
    """Print one line to standard error, as ``LEVEL:  message``."""
    sys.stderr.write(f"{level}:  {inert(message)}\n")


def complain(error: HostError) -> int:
    """Print an error and return the exit code that it stands for."""
    for line in error.lines():
        # A detail may be a traceback: its lines stay lines, everything else becomes inert.
        for part in line.splitlines() or [""]:
            sys.stderr.write(inert(part) + "\n")
    return error.exit_code


def inert(line: str) -> str:
    """Return the line with everything that a terminal would obey replaced; tabs become spaces."""
    return printable(line.expandtabs())


def table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in aligned columns, parted by two spaces; the first row is the heading."""
    rows = [tuple(inert(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def nearest(word: str, known: Mapping[str, Any] | list[str]) -> str | None:
    """Return the known word that was probably meant."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def flush() -> None:
    """Write out what was printed; a reader that has gone is found here, not in the interpreter's last breath."""
    sys.stdout.flush()


def silence_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's own last flush cannot fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
