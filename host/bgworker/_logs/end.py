"""Why the last host ended, as far as its log tells.

Standard library only, as ``status`` of a host that is down pays for it. Only host.log is read, backwards, and of it
only the lines that the host writes at its start and at its end; and host.lock, where a host says at its start where its
log goes. What stands in host.log is an earlier host's if the last one wrote none.
"""

from __future__ import annotations

import json
import os
from typing import Final

from bgworker._collector.names import HOST_LOG, LOG_DIRECTORY
from bgworker._logs.lines import as_plain, parse
from bgworker._logs.opening import open_file
from bgworker.errors import HostError

#: How the host says why it shuts down.
_BECAUSE: Final = "shutting down because "
_START: Final = "LOG:  starting bgworker "
_DONE: Final = "LOG:  host is shut down"
_ESSENTIAL: Final = "essential background worker "
#: What is read, from the end on: a log may be long, and the lines of a shutdown are the last.
_READ_BYTES: Final = 256 << 10
#: What the last host says of itself, and how much of it is read.
_LOCK: Final = "host.lock"
_LOCK_BYTES: Final = 4096
_NO_FILE: Final = "logged to standard error and to no file: why it ended stands where that went"


def last_end(data_directory: str) -> str:
    """Return how the last host ended, as the rest of a sentence that begins with "It"; empty without a log.

    Of a host that wrote no file it is said where its log went.
    """
    if has_no_file(data_directory):
        return _NO_FILE
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


def has_no_file(data_directory: str) -> bool:
    """Whether the last host logged to standard error alone; False if that is not known."""
    try:
        file = open_file(os.path.join(data_directory, _LOCK))
        if file is None:
            return False
        with file:
            facts = json.loads(file.read(_LOCK_BYTES))
    except (HostError, OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.get("log") == "stderr"


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
