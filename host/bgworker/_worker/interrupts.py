"""What signals do in a worker: flags, the latch, and when ``Terminated`` may be raised.

A handler decides next to nothing: it raises a flag, sets the latch and writes a byte into
the latch's pipe. It never talks to the database or the host. What follows is done by
whoever is woken, in ordinary code:

==========================================  ==============================================
SIGTERM arrives while the worker is in      what happens
==========================================  ==============================================
plain code                                  the handler raises Terminated at once
a wait, a request to the host               the wait sees the flag and raises it
a query                                     the query's wait cancels it on the server,
                                            takes the answer, and raises it
``spi.transaction()``, between two calls    the next SPI call or check raises it, and the
                                            transaction rolls back; else its end does,
                                            after the commit
``hold_interrupts()``                       the end of the block raises it
an async function                           the event loop cancels the main task
the exit wrapper                            nothing: the worker is leaving already
==========================================  ==============================================

Two counters tell the handler where it is. ``held`` is the author's: nothing is raised and no
query is cancelled. ``deferred`` is ours: the handler raises nothing, because the code it
interrupts looks at the flag itself. Only the main thread changes either, and Python runs
handlers in the main thread only, so neither needs a lock.

``ending`` stays set once it is set: code that swallows Terminated gets it again at its next
wait, and the exit code is 1 however the function then ends (C22).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple, NoReturn

from bgworker._process import own_signals
from bgworker._worker.latch import Latch

#: Blocked at entry (C21): everything but what ends a process at once (SIGQUIT, as in PostgreSQL's BlockSig),
#: what cannot be blocked, and the faults, whose delivery while blocked is undefined (sigprocmask(2)).
_NEVER_BLOCKED: Final = {
    signal.SIGQUIT, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS,
    signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip
BLOCKED: Final = frozenset(signal.valid_signals() - _NEVER_BLOCKED)
#: Blocked at entry of a worker that runs in a terminal: Ctrl-C and Ctrl-Z must work there before the worker unblocks.
BLOCKED_IN_TERMINAL: Final = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})

#: Added to ``deferred`` when the worker leaves: far above any nesting.
_LEAVING: Final = 1 << 30
#: Seconds after which Terminated is raised again when Python swallowed it: longer than any destructor's last line takes.
_SECOND_ATTEMPT: Final = 0.001


class Ending(NamedTuple):
    """Why the worker is being ended, as its log says it."""

    primary: str
    detail: str = ""
    hint: str = ""
    #: What the host is told as the reason of the exit; empty when the host knows, because it sent the signal.
    for_host: str = ""

    def lines(self) -> tuple[str, str, str]:
        """Return what the log says."""
        return self.primary, self.detail, self.hint


class Terminated(BaseException):
    """Raised in a worker that has been told to end. Let it pass: the exit code is 1 in any case.

    A BaseException, so that ``except Exception`` around a unit of work does not swallow it.
    """

    def __init__(self, ending: Ending | None = None) -> None:
        super().__init__(*([ending.primary] if ending else []))
        self.ending = ending


def ending_by_administrator(name: str) -> Ending:
    """Return the ending that the default SIGTERM handler asks for (C22)."""
    return Ending(f'terminating background worker "{name}" due to administrator command')


class Interrupts:
    """The signal flags of one worker, and the default handlers that raise them.

    Args:
        latch: Set and woken by the handlers.
        is_terminal: Whether Ctrl-C reaches this process and means what it means in a terminal.
    """

    def __init__(self, latch: Latch, *, is_terminal: bool = False) -> None:
        self._latch = latch
        self._is_terminal = is_terminal
        self._blocked = BLOCKED_IN_TERMINAL if is_terminal else BLOCKED
        #: The worker's bgw_name, for the FATAL line; set before any signal is unblocked.
        self.name = ""
        #: Set once, never cleared.
        self.ending: Ending | None = None
        #: Terminated has been raised, so what still runs is the worker's clean-up: its queries are not cancelled any more.
        self.is_delivered = False
        self.is_reload_pending = False
        #: SIGINT came while a query ran; whoever waits for the query takes it.
        self.is_cancel_pending = False
        #: Queries being waited for; more than one only in an async worker.
        self.running_queries = 0
        self.held = 0
        self.deferred = 0
        #: In an async worker nothing is raised out of a handler: the event loop would take it for its own failure.
        self.is_async = False
        self._unraisable_before: Callable[[sys.UnraisableHookArgs], Any] | None = None

    def install(self) -> None:
        """Install the default handlers; the signals are still blocked, so none is lost on the way."""
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(signal.SIGHUP, self._on_reload)
        signal.signal(signal.SIGUSR1, self._on_wake)
        if self._unraisable_before is None:
            self._unraisable_before = sys.unraisablehook
            sys.unraisablehook = self._on_unraisable

    def uninstall(self) -> None:
        """Put the default dispositions back where our handlers still are; for a forked child."""
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            if getattr(signal.getsignal(signum), "__self__", None) is self:
                signal.signal(signum, signal.SIG_DFL)
        if self._unraisable_before is not None and getattr(sys.unraisablehook, "__self__", None) is self:
            sys.unraisablehook = self._unraisable_before

    @property
    def is_due(self) -> bool:
        """Whether Terminated is to be raised at the next opportunity."""
        return self.ending is not None and not self.held

    @property
    def should_cancel_query(self) -> bool:
        """Whether the query that is being waited for is to be cancelled."""
        return not self.held and (self.is_cancel_pending or (self.ending is not None and not self.is_delivered))

    def check(self) -> None:
        """Raise Terminated if it is due (CHECK_FOR_INTERRUPTS)."""
        if self.ending is not None and not self.held:
            self.deliver()

    def deliver(self, cause: BaseException | None = None) -> NoReturn:
        """Raise Terminated."""
        self.is_delivered = True
        raise Terminated(self.ending) from cause

    def end(self, ending: Ending) -> None:
        """Ask for the end of the worker; the first reason stands. Safe in a signal handler."""
        if self.ending is None:
            self.ending = ending
        self._latch.set()
        # Also when the latch was set before: who waits for a reply or a query does not look at the latch's flag.
        self._latch.wake()

    def resume(self, error: BaseException | None) -> None:
        """Raise what came meanwhile, at the end of a block that held it back.

        Args:
            error: What is already leaving the block; the raised Terminated names it as its cause.
        """
        if self.held or self.deferred or self.ending is None:
            return
        if self.is_async:
            self._latch.wake()  # the loop's reader of the pipe cancels the main task
        elif error is None or isinstance(error, Exception):
            self.deliver(error)

    def leave(self) -> None:
        """Raise nothing any more: the worker is on its way out."""
        self.deferred += _LEAVING
        own_signals.block(self._blocked)

    def block(self) -> None:
        """Block what is blocked at entry (BackgroundWorkerBlockSignals)."""
        own_signals.set_mask(self._blocked)

    def unblock(self) -> None:
        """Let every signal through; those that waited arrive before this returns (BackgroundWorkerUnblockSignals)."""
        own_signals.set_mask(())

    def _on_terminate(self, _signum: int, _frame: FrameType | None) -> None:
        self.end(ending_by_administrator(self.name))
        if not (self.held or self.deferred or self.is_async):
            self.deliver()

    def _on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Raise again what Python could not let through.

        A handler may happen to run inside a destructor or a callback of the garbage collector.
        Python prints what is raised there and goes on, and a loop of plain code would never end.
        """
        # A second SIGTERM must not raise in here: it would be swallowed like the first, and no thread started.
        self.deferred += 1
        try:
            if isinstance(unraisable.exc_value, Terminated):
                self.is_delivered = False
                # From a thread, a moment later: raised from here it would end in the same place.
                threading.Thread(target=self._terminate_again, daemon=True).start()
            elif self._unraisable_before is not None:
                self._unraisable_before(unraisable)
        finally:
            self.deferred -= 1

    def _terminate_again(self) -> None:
        time.sleep(_SECOND_ATTEMPT)
        if getattr(signal.getsignal(signal.SIGTERM), "__self__", None) is self:
            os.kill(os.getpid(), signal.SIGTERM)

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self.running_queries:
            self.is_cancel_pending = True
            self._latch.wake()
        elif self._is_terminal:
            self._on_terminate(signum, frame)

    def _on_reload(self, _signum: int, _frame: FrameType | None) -> None:
        self.is_reload_pending = True
        self._latch.set()

    def _on_wake(self, _signum: int, _frame: FrameType | None) -> None:
        self._latch.set()


class _Counted:
    """A block that counts itself in while it runs. In a thread other than the main one it does nothing: no handler runs there."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._is_main = threading.current_thread() is threading.main_thread()

    def _count(self, step: int) -> None:
        raise NotImplementedError

    def __enter__(self) -> None:
        if self._is_main:
            self._count(1)

    def __exit__(self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._is_main:
            self._count(-1)
            self._interrupts.resume(error)


class Held(_Counted):
    """The block of ``hold_interrupts()``; may be nested."""

    def _count(self, step: int) -> None:
        self._interrupts.held += step


class Deferred(_Counted):
    """A block of our own that must not be torn in the middle."""

    def _count(self, step: int) -> None:
        self._interrupts.deferred += step
