"""The loop: any deadline can be waited for, and work that was put off is done in the next turn."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from bgworker._loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = signal.getsignal(signal.SIGUSR2)
    loop = Loop((signal.SIGUSR2,))
    yield loop
    loop.close()
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("seconds", [3e6, 1e18, 1e300])
def test_far_deadlines(loop: Loop, seconds: float) -> None:
    """A deadline beyond what the kernel's timers hold is no error."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert loop.turn(time.monotonic() + seconds) == {signal.SIGUSR2}


def test_work_put_off_is_done_in_the_next_turn(loop: Loop) -> None:
    """The next turn does not wait; what puts itself off again waits for the turn after."""
    done: list[int] = []

    def work() -> None:
        done.append(1)
        if len(done) < 3:
            loop.soon(work)

    loop.soon(work)
    for turns in (1, 2, 3):
        loop.turn(None)
        assert len(done) == turns
