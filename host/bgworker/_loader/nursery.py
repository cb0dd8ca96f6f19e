"""The child's side of a birth: from the clone to the worker runtime, before any code of a plugin runs for it.

What every worker gets: a session of its own, the death signal with the parent looked at
again, its descriptors and no others of ours, default dispositions, signals still blocked.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from bgworker._plugins.manager import PluginHost
from bgworker._process import prctl

#: Never blocked: SIGQUIT ends a worker at once (C39); the faults cannot be blocked usefully; STOP and KILL cannot be at all.
UNBLOCKABLE = {
    signal.SIGQUIT, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS,
    signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip


@dataclass(frozen=True)
class Cradle:
    """The descriptors and facts that every birth of this loader shares."""

    host_pid: int
    lifeline_fd: int
    slot_table_fd: int
    activity_fd: int
    #: The loader's own descriptors, which no worker may hold.
    private_fds: tuple[int, ...]


def block_signals() -> None:
    """Block what a worker starts with blocked; the loader does it once, its clones inherit it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - UNBLOCKABLE)


def begin_life(
    cradle: Cradle, channel_fd: int, stdout_fd: int, stderr_fd: int, plugins: PluginHost | None, foreign_fds: Sequence[int] = ()
) -> NoReturn:
    """Turn a fresh clone of the loader into a blank worker that waits for its assignment. Never returns.

    Args:
        cradle: What all births share.
        channel_fd: The worker's end of its channel to the host.
        stdout_fd: Write end of the pipe to the collector.
        stderr_fd: Write end of the other pipe to the collector.
        plugins: The loaded plugins for a preloaded worker; None executes a fresh interpreter.
        foreign_fds: Descriptors of other workers that the loader holds for births to come.
    """
    try:
        block_signals()  # a plugin may have changed the mask at import
        os.setsid()
        prctl.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != cradle.host_pid:
            os._exit(0)  # the host died before the death signal was armed
        signal.set_wakeup_fd(-1)
        for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(signum) is not signal.SIG_DFL and signum < 32:
                signal.signal(signum, signal.SIG_DFL)
        # Python ignores SIGPIPE in every interpreter: a broken pipe is an error there, not a death.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        os.dup2(stdout_fd, 1)
        os.dup2(stderr_fd, 2)
        for fd in (stdout_fd, stderr_fd, *foreign_fds, *cradle.private_fds):
            os.close(fd)
        prctl.raise_oom_score()
        if plugins is None:
            _execute(cradle, channel_fd)
        from bgworker._worker.main import Boot, run

        run(Boot(channel_fd, cradle.lifeline_fd, cradle.slot_table_fd, cradle.activity_fd, plugins))
    finally:
        # Reached by an exception of ours only; the loader's own code must never go on in a second process.
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _execute(cradle: Cradle, channel_fd: int) -> NoReturn:
    options = {
        "--channel": channel_fd,
        "--lifeline": cradle.lifeline_fd,
        "--slot-table": cradle.slot_table_fd,
        "--activity": cradle.activity_fd,
    }
    for fd in options.values():
        os.set_inheritable(fd, True)
    arguments = [text for option, fd in options.items() for text in (option, str(fd))]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "bgworker._worker", *arguments])
