"""Unanswered waits: found by slot, deadline and owner; nothing is left of those that have ended."""

from __future__ import annotations

import pytest

from bgworker._core.slots import Slot
from bgworker._core.states import SlotState
from bgworker._host.waits import Wait, Waits
from bgworker.errors import HostError


class Owner:
    """Somebody who waits."""

    def __init__(self) -> None:
        self.replies: list[dict[str, object]] = []
        self.refusals: list[HostError] = []

    def wait(self, waits: Waits, deadline: float | None = None, slotno: int = 0) -> None:
        """Ask for one wait."""
        waits.add(Wait(self, slotno, 1, "shutdown", deadline, self.replies.append, self.refusals.append, "it"))


def test_waits_of_one_who_has_gone_are_forgotten() -> None:
    """A connection that closes takes its waits along, those with a far deadline too."""
    waits = Waits()
    for _ in range(20_000):
        owner = Owner()
        owner.wait(waits, deadline=1e9)
        owner.wait(waits)
        assert waits.count_of(owner) == 2
        waits.discard_owner(owner)
        assert waits.count_of(owner) == 0
    assert waits.next_deadline() is None
    assert len(waits._deadlines) < 5000
    assert not waits._by_slot


def test_each_wait_ends_once() -> None:
    """A wait is answered by its slot or by its deadline, never by both."""
    waits, owner, slot = Waits(), Owner(), Slot(0, generation=1, state=SlotState.FREE)
    owner.wait(waits, deadline=5.0)
    owner.wait(waits, deadline=1.0)
    assert waits.next_deadline() == 1.0
    waits.expire(2.0)
    assert len(owner.refusals) == 1
    waits.slot_changed(slot, lambda slotno, generation: "done")
    waits.expire(10.0)
    assert [reply["reason"] for reply in owner.replies] == ["done"]
    assert len(owner.refusals) == 1
    assert waits.next_deadline() is None


@pytest.mark.parametrize("deadlines", [[3.0, 1.0, 2.0], [None, 2.0, None], [None]])
def test_nearest_deadline(deadlines: list[float | None]) -> None:
    """The host is woken for the earliest deadline, or for none."""
    waits = Waits()
    for deadline in deadlines:
        Owner().wait(waits, deadline)
    assert waits.next_deadline() == min((d for d in deadlines if d is not None), default=None)
