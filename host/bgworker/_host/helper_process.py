"""One helper program of the host: started, watched, replaced when it dies.

Level-triggered: ``ensure`` is called each turn and starts the program when it should run and
does not; a failed start is a time at which to try again, never a loop. What a helper says
is looked at before it is believed: plugins are imported in the loader, and may do anything
to its descriptors.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from bgworker._control.connection import Connection
from bgworker._control.protocol import MAX_REPLY_BYTES, Message
from bgworker._host.messages import problem_of
from bgworker._loop import Loop
from bgworker._process import reap
from bgworker._process.spawn import spawn_helper

#: Pause before a helper is started again, in seconds: none after a life of some length, then doubling.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
_HEALTHY_LIFE: Final = 5.0


class HelperProcess:
    """The loader, the database process or the collector.

    Args:
        loop: The host's loop.
        name: As log lines name it.
        module: The program.
        fds: Read end of the lifeline, and the lock inherited by everything of ours.
        on_start: Called after each start, to configure the new process.
        on_message: Called with each of its messages.
        on_exit: Called once it is reaped, with the wait status, or None when it could not be started.
        output_fds: Its stdout and stderr; the host's own without them.
        on_nonsense: Called with what is wrong with a message, after which the program is replaced.
        owns_session: What is in its session goes with it. Not so the loader's: a worker that it has
            just cloned is in there until its own setsid(), and may have its assignment already.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        module: str,
        fds: tuple[int, int],
        on_start: Callable[[], None],
        on_message: Callable[[Message], None],
        on_exit: Callable[[int | None], None],
        output_fds: Sequence[int] = (),
        on_nonsense: Callable[[str], None] = lambda problem: None,
        *,
        owns_session: bool = True,
    ) -> None:
        self._loop = loop
        self.name = name
        self._module = module
        self._fds = fds
        self._on_start = on_start
        self._on_message = on_message
        self._on_exit = on_exit
        self._output_fds = output_fds
        self._on_nonsense = on_nonsense
        self._owns_session = owns_session
        self.pid: int | None = None
        self.connection: Connection | None = None
        self.is_wanted = True
        #: It is being ended, or not started, for a while: the host is about to execute itself anew. It is told nothing more,
        #: so that what it would not come to read is kept for the next one.
        self.is_held = False
        #: It runs and has been told to end: it is told nothing more even if the next one may be started again meanwhile.
        self.is_parting = False
        self._started_at = 0.0
        self._pause = 0.0
        #: Monotonic time of the next try to start it; None while it runs.
        self.start_at: float | None = 0.0

    def ensure(self, now: float) -> None:
        """Start the program if it should run, does not, and its pause is over."""
        if not self.is_wanted or self.is_held or self.pid is not None or self.start_at is None or now < self.start_at:
            return
        try:
            ours, theirs = socket.socketpair()
        except OSError:  # no descriptor left
            self._could_not_start(now)
            return
        try:
            self.connection = Connection(
                self._loop, ours, self._take, self._connection_lost, limit=MAX_REPLY_BYTES, on_malformed=self._is_nonsense
            )
            self.pid = spawn_helper(self._module, theirs, *self._fds, output_fds=self._output_fds)
        except OSError:
            self._drop_connection()
            ours.close()
            self._could_not_start(now)
            return
        finally:
            theirs.close()
        self._started_at = now
        self.start_at = None
        self._on_start()

    def _take(self, message: Message) -> None:
        problem = problem_of(message)
        if problem is None:
            self._on_message(message)
        else:
            self._is_nonsense(problem)

    def _is_nonsense(self, problem: str) -> None:
        self._on_nonsense(problem)
        self.kill()

    def _could_not_start(self, now: float) -> None:
        self._schedule(now)
        self._on_exit(None)

    def send(self, message: Message, fds: Sequence[int] = ()) -> bool:
        """Send to the program if it runs; return whether it does."""
        if (connection := self._listener()) is None:
            return False
        connection.send(message, fds)
        return True

    def send_later(self, message: Message, fds: Sequence[int] = ()) -> bool:
        """Send when the host's turn is done; return whether the program runs."""
        if (connection := self._listener()) is None:
            return False
        connection.send_later(message, fds)
        return True

    def _listener(self) -> Connection | None:
        """Return the connection to a program that is to stay."""
        is_listening = self.connection is not None and self.connection.is_open and not self.is_held and not self.is_parting
        return self.connection if is_listening else None

    def end_session(self) -> None:
        """End what the program has left in its session; before it is reaped, while its pid still guards the number."""
        if self.pid is not None and self._owns_session:
            reap.signal_session(self.pid)

    def exited(self, status: int, now: float) -> None:
        """Take note that the program has been reaped."""
        self.pid = None
        if self.connection is not None:
            self.connection.drain()
        self._drop_connection()
        if now - self._started_at >= _HEALTHY_LIFE:
            self._pause = 0.0
        self._schedule(now)
        self._on_exit(status)
        self.is_parting = False

    def _drop_connection(self) -> None:
        if self.connection is not None:
            self.connection.close("the process has exited")
            self.connection = None

    def _schedule(self, now: float) -> None:
        self.start_at = now + self._pause
        self._pause = min(max(_FIRST_PAUSE, self._pause * 2), _LONGEST_PAUSE)

    def _connection_lost(self, _reason: str) -> None:
        # Without its channel it is of no use: its exit, which follows, starts the next one.
        if self.pid is not None:
            self.kill()

    def next_deadline(self) -> float | None:
        """Return when ``ensure`` has something to do."""
        return self.start_at if self.pid is None and self.is_wanted and not self.is_held else None

    def kill(self) -> None:
        """End the program at once."""
        if self.pid is not None and self._owns_session:
            reap.signal_session(self.pid, signal.SIGKILL)
        elif self.pid is not None:
            reap.signal_child(self.pid, signal.SIGKILL)

    def abort(self) -> None:
        """End the program at once, and let nothing that is still on its way reach it."""
        self.kill()
        self._drop_connection()

    def hold(self, is_held: bool) -> None:
        """Keep the program from being started again once it has ended, and let it be started again."""
        self.is_held = is_held
        self.is_parting = self.pid is not None and (is_held or self.is_parting)
        if not is_held and self.pid is None:
            self.restart_at_once()

    def restart_at_once(self) -> None:
        """Forget the pause: the next start is wanted now."""
        self._pause = 0.0
        if self.pid is None:
            self.start_at = time.monotonic()
