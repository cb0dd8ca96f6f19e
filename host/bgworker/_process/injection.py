"""Injection points: places at which a test can hold, fail or end a process of ours, so that a race happens every time.

Off unless ``BGWORKER_INJECTION`` names a UNIX socket when the process starts, and then worth one
comparison. With it, a process that comes to a point connects there, says ``POINT PID``, and does
what the line says that comes back: ``go``, ``error ERRNO``, ``exit CODE`` or ``kill``. Until it
comes the process is held. Where nobody listens it goes on. A test decides by pid and by the moment,
and nothing has to be armed beforehand.

It never changes what a process does otherwise, and knows nothing of its callers. The host, the
loader and the workers import it.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import Final

VARIABLE: Final = "BGWORKER_INJECTION"

#: Where the test listens; empty almost always.
_path: Final = os.environ.get(VARIABLE, "")


def point(name: str) -> None:
    """Come to an injection point.

    Args:
        name: ``PROCESS.MOMENT``.

    Raises:
        OSError: A test wants this place to fail.
    """
    if _path:
        _reach(name)


def _reach(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as controller:
        try:
            controller.connect(_path)
            controller.sendall(f"{name} {os.getpid()}\n".encode())
            answer = controller.recv(100).decode().split()
        except OSError:
            return  # nobody listens, or not any more
    match answer:
        case ["error", number]:
            raise OSError(int(number), f"{os.strerror(int(number))} (injected, {errno.errorcode[int(number)]})")
        case ["exit", code]:
            os._exit(int(code))
        case ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
