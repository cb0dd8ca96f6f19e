"""The latch's flag and pipe, step by step."""

from __future__ import annotations

import os
import select

from bgworker._worker.latch import Latch


def is_awake(latch: Latch) -> bool:
    return bool(select.select([latch.read_fd], [], [], 0)[0])


def test_setting_wakes_once(latch: Latch) -> None:
    """C23: set() raises the flag and writes one byte, however often it is called."""
    latch.set()
    latch.set()
    assert latch.is_set
    assert os.read(latch.read_fd, 100) == b"\0"


def test_flag_outlives_the_byte(latch: Latch) -> None:
    """C23: draining the pipe does not clear the latch; only reset() does."""
    latch.set()
    latch.drain()
    assert latch.is_set
    assert not is_awake(latch)
    latch.reset()
    assert not latch.is_set


def test_every_set_after_a_reset_has_a_byte(latch: Latch) -> None:
    """C23: a set between reset and sleep is not lost."""
    for _ in range(3):
        latch.set()
        latch.drain()
        latch.reset()
        latch.set()
        assert is_awake(latch)


def test_waking_does_not_set(latch: Latch) -> None:
    """C23: wake() only makes the sleeper look."""
    latch.wake()
    assert is_awake(latch)
    assert not latch.is_set


def test_full_pipe_is_no_error(latch: Latch) -> None:
    """C23: more wake-ups than the pipe holds neither block nor raise."""
    for _ in range(100_000):
        latch.wake()
    latch.drain()
    latch.set()
    assert is_awake(latch)


def test_draining_an_empty_pipe_is_no_error(latch: Latch) -> None:
    """C23: a wake-up that another has drained already is none."""
    latch.drain()
