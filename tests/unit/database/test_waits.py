"""The selector and its timers."""

from __future__ import annotations

import os

from bgworker._database.waits import READ, Waits


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_timers_fire_in_order_and_once() -> None:
    """Due timers fire by deadline, equal ones as they were made; a callback may set another."""
    clock = Clock()
    waits = Waits(clock)
    calls: list[str] = []
    waits.call_after(2.0, lambda: calls.append("late"))
    waits.call_after(1.0, lambda: calls.append("early"))

    def second() -> None:
        calls.append("second")
        waits.call_after(0.5, lambda: calls.append("follow-up"))

    waits.call_after(1.0, second)
    clock.now += 1.0
    waits.turn()
    assert calls == ["early", "second"]
    clock.now += 5.0
    waits.turn()
    assert calls == ["early", "second", "follow-up", "late"]
    assert waits.next_deadline() is None
    waits.close()


def test_cancelled_timer_wakes_nobody() -> None:
    """After a cancel there is no deadline left to wake up for."""
    waits = Waits(Clock())
    timer = waits.call_after(1.0, lambda: None)
    timer.cancel()
    timer.cancel()
    assert waits.next_deadline() is None
    waits.close()


def test_watch_replaces_and_forget_is_idempotent() -> None:
    """A second watch of a descriptor replaces the first; forgetting twice, or after a close, is fine."""
    waits = Waits(Clock())
    read_fd, write_fd = os.pipe()
    calls: list[str] = []
    waits.watch(read_fd, READ, lambda _events: calls.append("first"))
    waits.watch(read_fd, READ, lambda _events: calls.append("second"))
    os.write(write_fd, b"x")
    waits.call_after(0.0, lambda: None)
    waits.turn()
    assert calls == ["second"]
    os.close(read_fd)
    waits.forget(read_fd)
    waits.forget(read_fd)
    os.close(write_fd)
    waits.close()


def test_descriptor_forgotten_by_an_earlier_callback_is_not_served() -> None:
    """Of two ready descriptors, each forgets the other: only one is served."""
    waits = Waits(Clock())
    pipes = [os.pipe(), os.pipe()]
    served: list[int] = []

    def serve(number: int) -> None:
        served.append(number)
        waits.forget(pipes[1 - number][0])

    for number, (read_fd, write_fd) in enumerate(pipes):
        os.write(write_fd, b"x")
        waits.watch(read_fd, READ, lambda _events, number=number: serve(number))  # type: ignore[misc]
    waits.turn()
    assert len(served) == 1
    for pair in pipes:
        for fd in pair:
            os.close(fd)
    waits.close()


def test_run_returns_after_end() -> None:
    """``end`` from a callback lets ``run`` return."""
    waits = Waits(Clock())
    waits.call_after(0.0, waits.end)
    waits.run()
    waits.close()
