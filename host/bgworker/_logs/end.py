"""Why the last host ended, as far as its log tells.

Standard library only, as ``status`` of a host that is down pays for it. Only host.log is read, backwards, and of it
only the lines that the host writes at its start and at its end.
"""

from __future__ import annotations

import os
from typing import Final

from bgworker._collector.names import HOST_LOG, LOG_DIRECTORY
from bgworker._logs.lines import as_plain, parse
from bgworker._logs.opening import open_file

#: How the host says why it shuts down.
_BECAUSE: Final = "shutting down because "
_START: Final = "LOG:  starting bgworker "
_DONE: Final = "LOG:  host is shut down"
_ESSENTIAL: Final = "essential background worker "
#: What is read, from the end on: a log may be long, and the lines of a shutdown are the last.
_READ_BYTES: Final = 256 << 10


def last_end(data_directory: str) -> str:
    """Return how the last host ended, as the rest of a sentence that begins with "It"; empty without a log."""
    said = _last_life(os.path.join(data_directory, *LOG_DIRECTORY, HOST_LOG))
    if not said:
        return ""
    if fatal := next((line for line in said if line.startswith("FATAL:")), ""):
        return f"ended with an error: {fatal.removeprefix('FATAL:').strip()}"
    why = next((line.partition(_BECAUSE)[2] for line in said if line.startswith(f"LOG:  {_BECAUSE}")), "")
    because = f" because {why}" if why else ""
    if any(line.startswith(_DONE) for line in said):
        return f"was shut down{because}{' (exit code 7)' if why.startswith(_ESSENTIAL) else ''}"
    if because:
        return f"began to shut down{because}, and was killed before that was done"
    return "was killed or has crashed: its log ends without a shutdown"


def _last_life(path: str) -> list[str]:
    """Return what the last host has written, as level and message, as far back as is looked."""
    file = open_file(path)
    if file is None:
        return []
    with file:
        start = max(0, file.seek(0, os.SEEK_END) - _READ_BYTES)
        file.seek(start)
        lines = file.read(_READ_BYTES).decode("utf-8", "replace").split("\n")
    said: list[str] = []
    for text in reversed(lines[1:] if start else lines):
        if (line := parse(text)) is None or line.slot is not None:
            continue
        said.append(as_plain(text).split("\n")[0].partition("] ")[2])
        if said[-1].startswith(_START):
            break
    return said[::-1]
