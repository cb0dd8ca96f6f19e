"""The reason of an exit out of the last lines of stderr."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bgworker._collector.tail import REASON_LENGTH, reason_of

CHAINED = """
try:
    {}["k"]
except KeyError as e:
    raise ConnectionError("connection refused\\nis the server running?") from e
"""
GROUP = """
def f():
    raise TypeError("inner one")
try:
    f()
except TypeError as e:
    raise ExceptionGroup("several", [ValueError("first"), e])
"""
NOTES = """
e = ValueError("told")
e.add_note("a note")
raise e
"""


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (b"", ""),
        (b"\n  \n", ""),
        (b"one\ntwo\n\n", "two"),
        (b"one\nno newline", "no newline"),
        (b"ERROR:  could not connect\nHINT:  Is it up?\n", "could not connect"),
        (b"ERROR:  first\nFATAL:  terminating\n", "terminating"),
        (b"WARNING:  ERROR:  is not at the start\n", "WARNING:  ERROR:  is not at the start"),
        (
            b"Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n  File x\n",
            "Fatal Python error: Segmentation fault",
        ),
        (b"ERROR:  an old story\n" + b"fine\n" * 60 + b"bye\n", "bye"),
        (b"\x1b[31mred\x1b[0m \xff\n", "\\x1b[31mred\\x1b[0m \\xff"),
        (b"Traceback (most recent call last):\n  File x\nKeyError: 'a'\n\nFATAL:  later\n", "later"),
    ],
)
def test_reason(errors: bytes, reason: str) -> None:
    """The last error counts, else the last line that is not empty."""
    assert reason_of(errors) == reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (CHAINED, "ConnectionError: connection refused"),
        (GROUP, "TypeError: inner one"),
        (NOTES, "ValueError: told"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("x = (", "SyntaxError: '(' was never closed"),
    ],
)
def test_exception_of_a_traceback(program: str, reason: str) -> None:
    """Of a traceback the exception's own line counts: of a chain the last one, of a group the last part."""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert reason_of(run.stderr) == reason


def test_long_reason_is_cut() -> None:
    """A reason fits into a status line."""
    reason = reason_of(b"ERROR:  " + b"x" * 1000 + b"\n")
    assert len(reason) == REASON_LENGTH
    assert reason.endswith("x...")


def test_traceback_without_its_beginning() -> None:
    """When only the end of a long traceback was kept, its last line is the reason."""
    assert reason_of(b'm", line 3, in f\n    f()\nRecursionError: maximum recursion depth exceeded\n').startswith("RecursionError")
