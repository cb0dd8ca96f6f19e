"""``command``, a worker that is any program: what the key may hold, and which others have no meaning beside it.

Pure. ``_spec`` asks; what executes the program is ``_worker.command``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from bgworker._surroundings import Problem
from bgworker._text import is_all_inert

if TYPE_CHECKING:
    from bgworker._spec import BackgroundWorker

#: What a registration with a command names as its function, so that everything else finds one there.
LIBRARY: Final = "bgworker"
FUNCTION: Final = "command_main"
#: Longest command as JSON, in bytes: a registration must fit one protocol line (64 KiB) with room to spare.
MAX_COMMAND_BYTES: Final = 8192


def expected(value: Any) -> str | None:
    """Return what a JSON value of the key must be, if it is of a wrong type."""
    if value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return None
    return "a list of strings, a program and its arguments"


def find_problem(worker: BackgroundWorker) -> Problem | None:
    """Return the first thing that is wrong with a worker that has a command."""
    command = worker.command or ()
    if not command or not command[0].strip():
        return Problem("command names no program", hint='Write the program and its arguments: ["/usr/bin/redis-server", "x.conf"].')
    if not is_all_inert(command[0]):
        return Problem("command has control characters in the program's name")
    if any("\0" in word or any("\ud800" <= c <= "\udfff" for c in word) for word in command):
        return Problem("command has an argument that no program can be given")
    if (size := len(json.dumps(command, ensure_ascii=False).encode())) > MAX_COMMAND_BYTES:
        return Problem(
            "command is too long",
            f"It is {size} bytes as JSON; at most {MAX_COMMAND_BYTES} are allowed.",
            "Put it into a script, and name that.",
        )
    return _conflict(worker)


def _conflict(worker: BackgroundWorker) -> Problem | None:
    function = (worker.bgw_library_name, worker.bgw_function_name)
    if function not in (("", ""), (LIBRARY, FUNCTION)):
        key = "bgw_library_name" if worker.bgw_library_name else "bgw_function_name"
        return Problem(
            f"{key} cannot be combined with command",
            "A worker is a function or a program.",
            "Leave out command, or bgw_library_name and bgw_function_name.",
        )
    if worker.is_database_worker:
        return Problem(
            "bgw_flags cannot have BGWORKER_BACKEND_DATABASE_CONNECTION beside command",
            "That connection is opened by our functions, in Python; a program opens its own.",
            "Leave the flag out, and give the program the URL in environment or env_file.",
        )
    if worker.singleton:
        return Problem(
            "singleton cannot be combined with command, which has no connection",
            "The lock that makes it the only one is held by the connection of a database worker.",
            "Leave singleton out.",
        )
    if worker.wake_on:
        return Problem(
            "wake_on cannot be combined with command, which has no latch",
            "A notification sets the latch of a function in Python.",
            "Leave wake_on out, and let the program LISTEN.",
        )
    if worker.bgw_main_arg is not None:
        return Problem(
            "bgw_main_arg cannot be combined with command, which has its own arguments",
            "It is what a function is called with.",
            "Write what the program is given in command.",
        )
    if worker.watchdog is not None:
        return Problem(
            "watchdog cannot be combined with command, which tells of no progress",
            "It looks at the latch and the calls of a function in Python.",
            "Leave watchdog out.",
        )
    return None
