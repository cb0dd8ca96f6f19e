"""What a wait waits for: the events, the timeout, and when it is refused."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest

from bgworker import worker
from bgworker._worker.latch_loop import seconds
from bgworker._worker.refusals import UsageError
from bgworker._worker.runtime import Runtime
from bgworker._worker.wait import DEFAULT_EVENTS, deadline_of, effective_events


def test_bits_are_postgresqls() -> None:
    """C23: the bits have the values of waiteventset.h."""
    assert [
        worker.WL_LATCH_SET,
        worker.WL_SOCKET_READABLE,
        worker.WL_SOCKET_WRITEABLE,
        worker.WL_TIMEOUT,
        worker.WL_POSTMASTER_DEATH,
        worker.WL_EXIT_ON_PM_DEATH,
    ] == [1, 2, 4, 8, 16, 32]


def test_defaults() -> None:
    """C23, C24: latch, timeout and exit on host death; a socket alone is waited for to become readable."""
    assert effective_events(None, None) == DEFAULT_EVENTS == 1 | 8 | 32
    assert effective_events(None, 5) == DEFAULT_EVENTS | worker.WL_SOCKET_READABLE


@pytest.mark.parametrize(("events", "socket"), [(worker.WL_SOCKET_READABLE, None), (worker.WL_LATCH_SET, 5), (1 << 6, None)])
def test_events_that_mean_nothing(events: int, socket: int | None) -> None:
    """C23: socket events without a socket, a socket without events, and unknown bits are refused."""
    with pytest.raises(UsageError):
        effective_events(events, socket)


@pytest.mark.parametrize(("events", "timeout"), [(DEFAULT_EVENTS, None), (DEFAULT_EVENTS, math.inf), (worker.WL_LATCH_SET, 5.0)])
def test_waits_without_end(events: int, timeout: float | None) -> None:
    """C23: no timeout, an infinite one, and one that WL_TIMEOUT does not ask for are all for ever."""
    assert deadline_of(events, timeout) is None


def test_past_timeouts_are_now() -> None:
    """C23: a remaining time that has become negative is a wait of no length, no error."""
    deadline = deadline_of(DEFAULT_EVENTS, -5)
    assert deadline is not None
    assert deadline <= time.monotonic()


def test_timeout_may_be_a_function() -> None:
    """C25: a function is asked before each wait, so a reload can change the naptime."""
    naps = iter([1.0, None])
    assert [seconds(lambda: next(naps)), seconds(lambda: next(naps)), seconds(3)] == [1.0, None, 3]


def test_first_pass_runs_at_once(make: Callable[..., Runtime]) -> None:
    """C23: the loop's first pass does not wait; the latch is reset before each pass, and each later one tells why it runs."""
    runtime = make()
    loop = iter(worker.latch_loop(timeout=3600))
    worker.set_latch()
    assert next(loop) == 0
    assert not runtime.latch.is_set
    worker.set_latch()
    assert next(loop) == worker.WL_LATCH_SET
    assert not runtime.latch.is_set


def test_loop_ends_with_terminated_each_time(make: Callable[..., Runtime]) -> None:
    """C22: a loop that goes on after Terminated gets it again, and never silently stops."""
    runtime = make()
    loop = iter(worker.latch_loop(timeout=0))
    next(loop)
    runtime.interrupts.deferred = 1
    runtime.interrupts._on_terminate(15, None)
    runtime.interrupts.deferred = 0
    for _ in range(2):
        with pytest.raises(worker.Terminated):
            next(loop)


def test_faces_outside_of_a_worker_say_so() -> None:
    """C12: every face names what is wrong in a process that is no worker."""
    for call in (worker.my_bgworker_entry, worker.wait_latch, worker.set_latch, worker.settings, worker.check_for_interrupts):
        with pytest.raises(UsageError, match="this process is not a background worker"):
            call()
