"""What the host makes of its signals (design section 8, point 3). Imported by the composition root alone."""

from __future__ import annotations

import os
import select
import signal
import stat
from typing import TYPE_CHECKING, Final

from bgworker._core.states import ShutdownMode

if TYPE_CHECKING:
    from bgworker._host.host import Host

#: Those with a handler in the host. SIGCHLD is ``children``'s; SIGUSR1 does nothing, but must not end it.
HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2)


def take(host: Host, signals: set[int]) -> None:
    """Do what the strongest of the signals that have come asks for."""
    if signal.SIGQUIT in signals:
        host.begin_shutdown(ShutdownMode.IMMEDIATE, "shutting down because of SIGQUIT")
    elif signals & {signal.SIGTERM, signal.SIGINT}:
        name = "SIGTERM" if signal.SIGTERM in signals else "SIGINT"
        if host.machine.shutdown is not None and host.machine.shutdown >= ShutdownMode.FAST:
            host.begin_shutdown(ShutdownMode.IMMEDIATE, f"shutting down at once because of another {name}")
        else:
            host.begin_shutdown(ShutdownMode.FAST, f"shutting down because of {name}")
    elif signal.SIGHUP in signals:
        if any(_is_dead_terminal(fd) for fd in (0, 1, 2)):
            host.begin_shutdown(ShutdownMode.FAST, "shutting down because the terminal is gone")
        elif host.reexec.is_running:
            host.reexec.put_off(signal.SIGHUP)
        else:
            host.reload()
    if signal.SIGUSR2 in signals:
        # A reload that came with it goes first, whichever was sent first: of two signals the kernel tells no order.
        host.reexec.begin_by_signal()


def _is_dead_terminal(fd: int) -> bool:
    """Whether the descriptor is a terminal that has hung up. It answers isatty() with no; a pipe hangs up without harm."""
    poll = select.poll()
    poll.register(fd, 0)
    try:
        return stat.S_ISCHR(os.fstat(fd).st_mode) and any(events & select.POLLHUP for _fd, events in poll.poll(0))
    except OSError:
        return False
