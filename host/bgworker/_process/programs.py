"""Finds the program that a ``command`` names, as execvp(3) does, and says in words why there is none.

Asked in the process that is to become it, and by ``bgworker check``.
"""

from __future__ import annotations

import os

from bgworker._text import printable
from bgworker.errors import HostError


def find(name: str, path: str, directory: str = "") -> str:
    """Return the file to execute.

    Args:
        name: A program on PATH, or a path.
        path: The PATH of the worker's environment.
        directory: What relative paths are relative to; empty for the working directory.

    Raises:
        HostError: There is none, or it may not be executed.
    """
    shown = printable(name)
    if "/" in name:
        file = os.path.join(directory, name)
        if not os.path.exists(file):
            # Also where a directory above it is closed to this user.
            raise HostError(f'there is no program "{shown}"', f'It was looked for at "{printable(os.path.abspath(file))}".')
        if not _is_executable(file):
            raise HostError(f'program "{shown}" cannot be executed', "It is no file, or this user has no right to execute it.")
        return file
    for entry in path.split(os.pathsep):
        file = os.path.join(directory, entry, name)
        if _is_executable(file):
            return file
    raise HostError(
        f'there is no program "{shown}" on PATH',
        f"PATH is {printable(path)[:500]}.",
        "Write its whole path, or set PATH in environment.",
    )


def _is_executable(file: str) -> bool:
    return os.path.isfile(file) and os.access(file, os.X_OK)
