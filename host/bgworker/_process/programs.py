"""Finds the program that a ``command`` names, as execvp(3) does, and says in words why there is none.

Asked in the process that is to become it, and by ``bgworker check``: what can be reached and
executed is asked of the kernel, as the user that this process is. Imports nothing when it is
asked, for that user may not be able to read our files.
"""

from __future__ import annotations

import os
import pwd
import stat

from bgworker._process import reach
from bgworker._text import printable
from bgworker.errors import HostError

#: Directories of PATH that one error names.
_MOST_CLOSED = 5


def find(name: str, path: str, directory: str = "") -> str:
    """Return the file to execute.

    Args:
        name: A program on PATH, or a path.
        path: The PATH of the worker's environment.
        directory: What relative paths are relative to; empty for the working directory.

    Raises:
        HostError: There is none, or it cannot be reached, or it may not be executed.
    """
    shown = printable(name)
    if "/" in name:
        file = os.path.join(directory, name)
        if (problem := _problem_of(file, shown)) is not None:
            raise problem
        return file
    refusals: list[HostError] = []
    closed: list[str] = []
    for entry in path.split(os.pathsep):
        file = os.path.join(directory, entry, name)
        if (problem := _problem_of(file, printable(file))) is None:
            return file
        try:
            if not stat.S_ISDIR(os.stat(file).st_mode):  # execvp(3) goes on as well
                refusals.append(problem)
        except PermissionError:
            closed.append(printable(entry))
        except OSError:
            pass
    if refusals:
        raise refusals[0]
    raise HostError(
        f'there is no program "{shown}" on PATH',
        f"PATH is {printable(path)[:500]}." + _of_closed(closed),
        "Write its whole path, or set PATH in environment.",
    )


def _of_closed(entries: list[str]) -> str:
    """Return the sentence on directories of PATH that nobody could look into."""
    named = ", ".join(f'"{entry}"' for entry in entries[:_MOST_CLOSED])
    return f' User "{_own_name()}" cannot look into {named}.' if entries else ""


def _problem_of(file: str, shown: str) -> HostError | None:
    """Return why this process cannot execute a file, if so."""
    whole = os.path.abspath(file)
    try:
        status = os.stat(file)
    except PermissionError:
        return HostError(
            f'program "{shown}" cannot be reached by user "{_own_name()}": "{printable(_closed_above(whole))}" is closed to it',
            message_hint="Let that user enter the directory, or put the program where it may.",
        )
    except (OSError, ValueError):
        return HostError(f'there is no program "{shown}"', f'It was looked for at "{printable(whole)}".')
    if not stat.S_ISREG(status.st_mode):
        return HostError(f'program "{shown}" is no file', "It is a directory." if stat.S_ISDIR(status.st_mode) else "")
    if os.access(file, os.X_OK):
        return None
    mode = stat.S_IMODE(status.st_mode)
    if not mode & 0o111:
        return HostError(f'program "{shown}" is not executable', f"Its mode is {mode:04o}.", "Make it executable: chmod +x")
    primary = f'program "{shown}" cannot be executed by user "{_own_name()}"'
    if os.statvfs(file).f_flag & os.ST_NOEXEC:
        return HostError(primary, "Its file system is mounted noexec.", "Put the program elsewhere.")
    return HostError(primary, f'Its mode is {mode:04o}, and it belongs to user "{_name_of(status.st_uid)}".')


def _closed_above(whole: str) -> str:
    """Return the topmost directory that is closed to this user, on the way to a file, or to where a symlink on that way leads."""
    for way in (whole, os.path.realpath(whole)):
        if (closed := reach.first_closed(way)) not in ("", way):
            return closed
    return os.path.dirname(whole)


def _own_name() -> str:
    return _name_of(os.geteuid())


def _name_of(uid: int) -> str:
    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)
