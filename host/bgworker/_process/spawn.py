"""How the host starts one of its fixed programs: posix_spawn, a clean environment, named descriptors only.

Only the host imports this room.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

#: What a service manager tells its own child and nobody further (sd_notify(3), sd_listen_fds(3)).
_NOT_INHERITED: Final = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES"}
)


def inherited_environment() -> dict[str, str]:
    """Return the environment that every process of ours gets (design section 8, point 9)."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


def spawn_helper(module: str, channel: socket.socket, lifeline_fd: int, lock_fd: int, output_fds: Sequence[int] = ()) -> int:
    """Execute ``python -m module`` as a helper and return its pid.

    Args:
        module: The program, e.g. ``bgworker._loader``.
        channel: The helper's end of its channel; the caller closes its own copy afterwards.
        lifeline_fd: Read end of the lifeline.
        lock_fd: The lock that lives as long as any process of this host.
        output_fds: Descriptors that become stdout and stderr; the host's own without them.

    Raises:
        OSError: The kernel refused; it can work later.
    """
    arguments = [
        sys.executable,
        # -P: a module in the current directory must not shadow ours.
        *("-P", "-m", module),
        *("--channel", str(channel.fileno()), "--lifeline", str(lifeline_fd), "--lock", str(lock_fd)),
    ]
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(output_fds, (1, 2), strict=False)]
    with _inheritable(channel.fileno(), lifeline_fd, lock_fd):
        return os.posix_spawn(
            sys.executable,
            arguments,
            inherited_environment(),
            file_actions=actions,
            setsigmask=(),
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )


@contextmanager
def _inheritable(*fds: int) -> Iterator[None]:
    # One thread: nothing else can be executed in between and take them along.
    with ExitStack() as stack:
        for fd in fds:
            os.set_inheritable(fd, True)
            stack.callback(os.set_inheritable, fd, False)
        yield
