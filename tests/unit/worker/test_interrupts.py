"""Where Terminated is raised, and where it is held back: the table of the module, cell by cell."""

# ruff: noqa: PT012 - which statement of a block raises is what these tests are about

from __future__ import annotations

import signal
import threading

import pytest

from bgworker._worker.interrupts import BLOCKED, Deferred, Ending, Held, Interrupts, Terminated
from bgworker._worker.latch import Latch


def sigterm(interrupts: Interrupts) -> None:
    interrupts._on_terminate(signal.SIGTERM, None)


def test_plain_code_is_left_at_once(interrupts: Interrupts, latch: Latch) -> None:
    """C22: in plain code the handler raises, and the latch is set besides."""
    with pytest.raises(Terminated, match='terminating background worker "tested" due to administrator command'):
        sigterm(interrupts)
    assert latch.is_set


def test_our_own_code_is_not_torn(interrupts: Interrupts) -> None:
    """C22: inside a deferred block nothing is raised before its end."""
    reached = False
    with pytest.raises(Terminated), Deferred(interrupts):
        sigterm(interrupts)
        reached = True
    assert reached


def test_deferred_block_still_checks(interrupts: Interrupts) -> None:
    """C22: a check inside spi.transaction() raises; only the handler does not."""
    with pytest.raises(Terminated), Deferred(interrupts):
        sigterm(interrupts)
        interrupts.check()
        pytest.fail("not reached")


def test_held_block_raises_at_its_end_only(interrupts: Interrupts) -> None:
    """C22: inside hold_interrupts() neither handler nor check raises; nested blocks raise at the outermost end."""
    reached = []
    with pytest.raises(Terminated), Held(interrupts):
        with Held(interrupts):
            sigterm(interrupts)
            interrupts.check()
            assert not interrupts.is_due
            assert not interrupts.should_cancel_query
            reached.append("inner")
        reached.append("outer")
    assert reached == ["inner", "outer"]


def test_held_inside_deferred_raises_at_the_deferred_end(interrupts: Interrupts) -> None:
    """C22: the end of hold_interrupts() inside spi.transaction() does not tear the transaction."""
    reached = False
    with pytest.raises(Terminated), Deferred(interrupts):
        with Held(interrupts):
            sigterm(interrupts)
        reached = True
    assert reached


def test_error_that_leaves_a_block_is_the_cause(interrupts: Interrupts) -> None:
    """C32: when a block fails and SIGTERM came meanwhile, Terminated carries the failure."""
    with pytest.raises(Terminated) as caught, Held(interrupts):
        sigterm(interrupts)
        raise ValueError("inside")
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Terminated()])
def test_other_exits_pass_unchanged(interrupts: Interrupts, error: BaseException) -> None:
    """C22: what ends the worker anyway is not replaced."""
    with pytest.raises(type(error)) as caught, Held(interrupts):
        sigterm(interrupts)
        raise error
    assert caught.value is error


def test_checks_raise_again_and_again(interrupts: Interrupts) -> None:
    """C22: code that swallows Terminated gets it at its next check."""
    for _ in range(2):
        with pytest.raises(Terminated):
            interrupts.check() if interrupts.ending else sigterm(interrupts)


def test_first_reason_stands(interrupts: Interrupts) -> None:
    """C27: SIGTERM to a worker that is being ended for another reason does not hide that reason."""
    interrupts.end(Ending("because it listens"))
    with pytest.raises(Terminated, match="because it listens"):
        sigterm(interrupts)


def test_query_is_cancelled_until_terminated_was_raised(interrupts: Interrupts) -> None:
    """C22: a running query is cancelled for SIGTERM, the clean-up after Terminated is not."""
    interrupts.deferred = 1
    sigterm(interrupts)
    assert interrupts.should_cancel_query
    with pytest.raises(Terminated):
        interrupts.check()
    assert not interrupts.should_cancel_query


@pytest.mark.parametrize(("running", "pending"), [(0, False), (1, True)])
def test_sigint_concerns_running_queries_only(interrupts: Interrupts, running: int, pending: bool) -> None:
    """C22: SIGINT asks for a cancellation while a query runs, and is ignored otherwise."""
    interrupts.running_queries = running
    interrupts._on_interrupt(signal.SIGINT, None)
    assert interrupts.is_cancel_pending is pending
    assert interrupts.ending is None


def test_sigint_in_a_terminal_ends_the_worker(latch: Latch) -> None:
    """C22: in a terminal Ctrl-C means SIGTERM, unless a query runs."""
    interrupts = Interrupts(latch, is_terminal=True)
    interrupts.running_queries = 1
    interrupts._on_interrupt(signal.SIGINT, None)
    interrupts.running_queries = 0
    with pytest.raises(Terminated):
        interrupts._on_interrupt(signal.SIGINT, None)


def test_sighup_and_sigusr1(interrupts: Interrupts, latch: Latch) -> None:
    """C25: SIGHUP raises the reload flag and sets the latch; SIGUSR1 sets the latch."""
    interrupts._on_wake(signal.SIGUSR1, None)
    assert latch.is_set
    assert not interrupts.is_reload_pending
    latch.reset()
    interrupts._on_reload(signal.SIGHUP, None)
    assert latch.is_set
    assert interrupts.is_reload_pending


def test_async_worker_is_woken_not_torn(interrupts: Interrupts, latch: Latch) -> None:
    """C22: in an async worker no handler and no end of a block raises; the loop's reader of the pipe is woken."""
    interrupts.is_async = True
    with Held(interrupts):
        sigterm(interrupts)
        latch.drain()
    latch.drain()
    assert interrupts.is_due


def test_blocks_in_other_threads_hold_nothing(interrupts: Interrupts) -> None:
    """C22: a thread's hold_interrupts() does not keep the main thread from being terminated."""
    held = []

    def work() -> None:
        with Held(interrupts):
            held.append(interrupts.held)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert held == [0]


def test_what_is_never_blocked() -> None:
    """C21: SIGQUIT and the faults stay unblocked; SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGCHLD are blocked at entry."""
    assert not {signal.SIGQUIT, signal.SIGSEGV, signal.SIGABRT} & BLOCKED
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGALRM} <= BLOCKED
