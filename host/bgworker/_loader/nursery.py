"""The child's side of a birth: from the clone to the worker runtime, before any code of a plugin runs for it.

What every worker gets: a session of its own, the death signal with the parent looked at
again, its descriptors and no others of ours, default dispositions, signals still blocked.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from bgworker._control.protocol import encode
from bgworker._plugins.manager import PluginHost
from bgworker._process import injection, own_signals, prctl, surroundings
from bgworker.errors import HostError

#: Never blocked: SIGQUIT ends a worker at once (C39); the faults cannot be blocked usefully; STOP and KILL cannot be at all.
UNBLOCKABLE = {
    signal.SIGQUIT, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS,
    signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip
_BLOCKED: Final = frozenset(signal.valid_signals() - UNBLOCKABLE)


@dataclass(frozen=True)
class Cradle:
    """The descriptors and facts that every birth of this loader shares."""

    host_pid: int
    lifeline_fd: int
    slot_table_fd: int
    activity_fd: int
    #: The loader's own descriptors, which no worker may hold.
    private_fds: tuple[int, ...]
    #: Environment variables that hold passwords of the host's, and are none of another user's business.
    secrets: tuple[str, ...] = ()


def block_signals() -> None:
    """Block what a worker starts with blocked; the loader does it once, its clones inherit it."""
    own_signals.set_mask(_BLOCKED)


def begin_life(
    cradle: Cradle,
    fds: Sequence[int],
    plugins: PluginHost | None,
    wanted: Mapping[str, Any],
    foreign_fds: Sequence[int] = (),
    *,
    is_spare: bool = False,
) -> NoReturn:
    """Turn a fresh clone of the loader into a blank worker that waits for its assignment. Never returns.

    Args:
        cradle: What all births share.
        fds: The worker's end of its channel to the host, and the write ends of both pipes to the collector.
        plugins: The loaded plugins for a preloaded worker; None executes a fresh interpreter.
        wanted: The surroundings that the worker asks for, as ``_process.surroundings`` knows them.
        foreign_fds: Descriptors of other workers that the loader holds for births to come.
        is_spare: Born ahead; nobody knows yet which worker it is to be.
    """
    channel_fd, stdout_fd, stderr_fd = fds
    try:
        injection.point("worker.blank")
        block_signals()  # a plugin may have changed the mask at import
        os.setsid()
        prctl.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != cradle.host_pid:
            os._exit(0)  # the host died before the death signal was armed
        own_signals.reset_dispositions()
        os.dup2(stdout_fd, 1)
        os.dup2(stderr_fd, 2)
        for fd in (stdout_fd, stderr_fd, *foreign_fds, *cradle.private_fds):
            os.close(fd)
        try:
            surroundings.enter(wanted, cradle.host_pid, cradle.secrets)
            if plugins is None:
                _execute(cradle, channel_fd, wanted)
        except HostError as error:
            _refuse_life(channel_fd, error)
        from bgworker._worker.main import Boot, run

        run(Boot(channel_fd, cradle.lifeline_fd, cradle.slot_table_fd, cradle.activity_fd, plugins, is_spare))
    finally:
        # Reached by an exception of ours only; the loader's own code must never go on in a second process.
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _execute(cradle: Cradle, channel_fd: int, wanted: Mapping[str, Any]) -> NoReturn:
    if "user" in wanted or "group" in wanted:
        surroundings.check_interpreter(wanted.get("user"))
    options = {
        "--channel": channel_fd,
        "--lifeline": cradle.lifeline_fd,
        "--slot-table": cradle.slot_table_fd,
        "--activity": cradle.activity_fd,
    }
    for fd in options.values():
        os.set_inheritable(fd, True)
    arguments = [text for option, fd in options.items() for text in (option, str(fd))]
    try:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "bgworker._worker", *arguments])
    except OSError as error:
        raise HostError(f'could not execute the interpreter "{sys.executable}": {error.strerror}') from None


def _refuse_life(channel_fd: int, error: HostError) -> NoReturn:
    """Tell the host and the worker's log why there is no worker, and leave with code 1.

    Not before the assignment has come: the host takes no word of a process whose pid it does not know.
    """
    os.write(2, "".join(f"{line}\n" for line in error.lines()).replace("ERROR:", "FATAL:", 1).encode("utf-8", "replace"))
    channel = socket.socket(fileno=channel_fd)
    channel.setblocking(True)
    while data := channel.recv(65_536):
        if b"\n" in data:
            channel.sendall(encode({"type": "start_failed", "error": error.to_dict(), "traceback": ""}))
            os._exit(1)
    os._exit(0)  # the host has no use for this process, or is dead
