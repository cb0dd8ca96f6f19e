"""The bounded list of notifications."""

from __future__ import annotations

from bgworker._worker.notifications import MAX_PENDING, Notification, Pending


def test_taken_once_and_in_order() -> None:
    """C27: what arrived is readable once, in order, a gap in its place."""
    pending = Pending()
    pending.add("orders", "1")
    pending.add_gap(["orders"])
    pending.add("stock", "2")
    assert pending.take() == [Notification("orders", "1"), Notification("orders", "", True), Notification("stock", "2")]
    assert pending.take() == []


def test_repeated_gaps_are_one() -> None:
    """C27: a connection that breaks again and again leaves one note for each channel."""
    pending = Pending()
    for _ in range(100):
        pending.add_gap(["a", "b"])
    assert pending.take() == [Notification("a", "", True), Notification("b", "", True)]


def test_too_many_become_a_gap() -> None:
    """C27: a worker that never asks does not grow; what did not fit is owned up to."""
    pending = Pending()
    for number in range(MAX_PENDING + 50):
        pending.add("orders", str(number))
    taken = pending.take()
    assert len(taken) == MAX_PENDING + 1
    assert taken[-1] == Notification("orders", "", may_have_missed=True)
    assert taken[-2].payload == str(MAX_PENDING - 1)
    pending.add("orders", "after")
    assert pending.take() == [Notification("orders", "after")]
