"""Whether a user that a worker is to run as reaches what it starts with: tried by a process that becomes this user.

Modes and owners alone do not tell (access control lists, mounts), so ``bgworker check`` asks the kernel as the
worker would. The process that asks executes nothing and ends at once. Used by ``check`` alone.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Final

from bgworker._process import env_file, programs, surroundings
from bgworker._spec import BackgroundWorker
from bgworker.errors import HostError, error_from_dict

#: What is entered. Limits are not tried: those of whoever checks need not be those of whoever starts the host.
_TRIED: Final = frozenset({"user", "group", "working_directory"})
#: Seconds after which the kernel ends a try that hangs: on a network file system, or a lock that a plugin's thread holds.
_TIMEOUT: Final = 10


def problem_of(worker: BackgroundWorker) -> HostError | None:
    """Return why the worker would fail to start as its user and group, as far as files decide that; None if nothing does.

    Call it for a user and group that exist and are not those of this process, which may become them.
    """

    def attempt() -> None:
        wanted = {key: value for key, value in worker.surroundings().items() if key in _TRIED}
        surroundings.enter(wanted, parent)
        variables = dict(os.environ) | (env_file.read(worker.env_file) if worker.env_file is not None else {})
        if worker.command is None:
            surroundings.check_interpreter(worker.user)
        else:
            programs.find(worker.command[0], (variables | dict(worker.environment or {})).get("PATH", os.defpath))

    parent = os.getpid()
    return _apart(attempt)


def _apart(attempt: Callable[[], None]) -> HostError | None:
    """Return the error that the attempt raises in a process of its own; None too if that process comes to no result."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_TIMEOUT)
            attempt()
        except HostError as error:
            os.write(write_fd, json.dumps(error.to_dict()).encode())
        finally:
            os._exit(0)  # whatever happened must not go on in a second process
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return error_from_dict(json.loads(text)) if text else None
