"""The embedded server's log: ``log/postgresql.log``, its stderr.

A file and not a pipe through us: the server outlives this process, and a pipe that nobody
reads would stop it.
"""

from __future__ import annotations

import os
import re
from typing import Final

from bgworker._database.conninfo import one_line
from bgworker._database.places import own_directory

LOG_DIRECTORY: Final = "log"
LOG_NAME: Final = "postgresql.log"
#: A larger file is put aside at the server's next start; one old file is kept.
MAX_BYTES: Final = 16 << 20
_TAIL_BYTES: Final = 16_384
_SEVERITY: Final = re.compile(r"^.*?\b(LOG|WARNING|ERROR|FATAL|PANIC|DETAIL|HINT):\s+(.*)$")
_CONFIGURATION: Final = re.compile(r'configuration file ".*" contains errors')
#: A line of a client's connection, by our log_line_prefix: what ended that says nothing about the server's end.
_OF_A_CLIENT: Final = re.compile(r"^[^]]*\[\d+\] \S+@\S+ ")


def open_log(data_directory: str) -> int:
    """Open the log for appending, as this process's own file, and return its descriptor.

    Raises:
        OSError: It is a symbolic link, or cannot be written.
        PlaceRefused: Its directory is not ours.
    """
    directory = os.path.join(data_directory, LOG_DIRECTORY)
    if not os.path.isdir(directory):
        own_directory(directory, os.geteuid(), os.getegid())
    path = os.path.join(directory, LOG_NAME)
    try:
        if os.lstat(path).st_size > MAX_BYTES:
            os.replace(path, f"{path}.1")
    except FileNotFoundError:
        pass
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def position(fd: int) -> int:
    """Return where the log ends now."""
    return os.fstat(fd).st_size


def last_words(fd: int, start: int) -> str:
    """Return what the log says, since ``start``, about why the server ended; "" if it says nothing of it."""
    end = os.fstat(fd).st_size
    start = max(start, end - _TAIL_BYTES)
    return why(os.pread(fd, max(0, end - start), start).decode("utf-8", "replace"))


def why(text: str) -> str:
    """Pick the cause out of log lines: the last FATAL or PANIC with its detail, else the last line."""
    lines = [line for line in text.splitlines() if line.strip() and _OF_A_CLIENT.match(line) is None]
    for number in range(len(lines) - 1, -1, -1):
        found = _SEVERITY.match(lines[number])
        if found is None or found[1] not in ("FATAL", "PANIC"):
            continue
        parts = [found[2]]
        if _CONFIGURATION.match(found[2]):
            # What is wrong in the file stands in the line before: a LOG line, perhaps with its own hint.
            before = [said[2] for line in lines[:number] if (said := _SEVERITY.match(line)) and said[1] == "LOG"]
            parts = [*before[-1:], *parts]
        if number + 1 < len(lines) and (more := _SEVERITY.match(lines[number + 1])) and more[1] == "DETAIL":
            parts.append(more[2])
        return one_line("\n".join(parts))
    if lines and (found := _SEVERITY.match(lines[-1])) is None:
        return one_line(lines[-1])  # not PostgreSQL's form: the dynamic loader, a shell, the kernel
    return ""
