"""Reads an ``env_file``: lines of NAME=value, and what is wrong with one said by its line, never by its content.

Called in the process that is being born, as the user that the worker runs as, and by
``bgworker check``. Nothing is expanded and nothing executed: it is no shell script.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from bgworker._surroundings import name_problem
from bgworker._text import printable
from bgworker.errors import HostError

#: Larger ones are a slip: execve(2) takes no more for arguments and environment together by default.
MAX_BYTES: Final = 1 << 20


def read(path: str) -> dict[str, str]:
    """Return the variables of a file; of a name that comes twice the last one.

    Raises:
        HostError: It cannot be read, or a line of it says nothing.
    """
    try:
        data = _content(path)
    except OSError as error:
        raise HostError(f'could not read env_file "{printable(path)}": {error.strerror}') from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(path, data[: error.start].count(b"\n") + 1, "it is not valid UTF-8") from None
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not separator or name_problem(name) is not None:
            raise _wrong(path, number, "expected NAME=value")
        if "\0" in value:
            raise _wrong(path, number, "it has a zero byte")
        if value[:1] in ("'", '"'):
            if len(value) < 2 or value[-1] != value[0]:
                raise _wrong(path, number, "a quotation mark is not closed on it")
            value = value[1:-1]
        variables[name] = value
    return variables


def _content(path: str) -> bytes:
    # Nobody may keep a birth waiting: opening a FIFO would.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is no regular file")
        if found.st_size > MAX_BYTES:
            raise OSError(0, f"it is longer than {MAX_BYTES} bytes")
        with open(fd, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(fd)


def _wrong(path: str, number: int, problem: str) -> HostError:
    return HostError(
        f'env_file "{printable(path)}" is wrong at line {number}: {problem}',
        "A line is NAME=value, empty, or a comment that begins with #. What stands on it is not shown: it may be a secret.",
    )
