"""The runtime's own log lines: on standard error, where the collector takes them for the worker's.

A leaf. Must work when standard error is closed, replaced or full: then the line goes to
descriptor 2, and what cannot be written is dropped.
"""

from __future__ import annotations

import os
import sys


def say(level: str, message: str, detail: str = "", hint: str = "") -> None:
    """Write one finding of the runtime: ``LEVEL:  message`` and its DETAIL and HINT lines."""
    lines = [f"{level}:  {message}"]
    if detail:
        lines.append(f"DETAIL:  {detail}")
    if hint:
        lines.append(f"HINT:  {hint}")
    write("".join(f"{line}\n" for line in lines))


def write(text: str) -> None:
    """Write text to standard error, by whatever way is left."""
    try:
        # Through the stream: what the worker has written before must come before.
        sys.stderr.write(text)
        sys.stderr.flush()
    # The stream may be anything an author has put there, None included.
    except Exception:
        try:
            os.write(2, text.encode("utf-8", "backslashreplace"))
        except OSError:
            pass
