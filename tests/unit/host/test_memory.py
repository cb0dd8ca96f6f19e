"""_host/memory.py: who uses more than its max_memory, and when that is looked at."""

from __future__ import annotations

import os

from bgworker._core.reasons import too_big
from bgworker._core.slots import Slot
from bgworker._core.states import SlotState
from bgworker._host.memory import AT_ONCE, LOOK_INTERVAL, MemoryWatch, resident
from bgworker._spec import BackgroundWorker


def a_slot(max_memory: int | None, pid: int | None = None) -> Slot:
    worker = BackgroundWorker(bgw_name="w", max_memory=max_memory)
    return Slot(0, 1, SlotState.STARTED, worker, pid=os.getpid() if pid is None else pid)


def test_nothing_is_looked_at_without_the_key() -> None:
    """Nothing polls: there is no timer until a worker that has the key runs, and none after its end."""
    slot, watched = a_slot(None), a_slot(1 << 40)
    watch = MemoryWatch([slot, watched])
    watch.started(slot, 0.0)
    assert watch.next_deadline() is None
    watch.started(watched, 0.0)
    assert watch.next_deadline() == LOOK_INTERVAL
    assert watch.too_big(LOOK_INTERVAL) == []
    assert watch.next_deadline() == 2 * LOOK_INTERVAL
    watched.state = SlotState.WAITING_RESTART
    assert watch.too_big(2 * LOOK_INTERVAL) == []
    assert watch.next_deadline() is None


def test_who_uses_too_much_is_named_with_figures() -> None:
    """The reason has what it uses and what it may; one without the key may use anything."""
    big, free = a_slot(1 << 20), a_slot(None)
    watch = MemoryWatch([big, free])
    watch.started(big, 0.0)
    assert watch.too_big(1.0) == []
    ((slotno, generation, why, hint),) = watch.too_big(LOOK_INTERVAL)
    assert (slotno, generation, hint) == (0, 1, "")
    assert why.startswith("recycled: it uses ")
    assert why.endswith("M of memory, and its max_memory is 1M")


def test_a_worker_that_is_too_big_at_once() -> None:
    """Soon after its start it is no leak: the reason says so, and the hint what to do."""
    big = a_slot(1 << 20)
    big.started_at = 0.5
    watch = MemoryWatch([big])
    watch.started(big, 0.5)
    ((_, _, why, hint),) = watch.too_big(0.5 + LOOK_INTERVAL)
    assert "M of memory already 2 s after its start, and its max_memory is 1M" in why
    assert hint.startswith("Raise max_memory")
    big.started_at = -AT_ONCE
    ((_, _, why, hint),) = watch.too_big(0.5 + 2 * LOOK_INTERVAL)
    assert "already" not in why
    assert hint == ""


def test_forgotten_unit_is_seen() -> None:
    """A max_memory of 200 is 200 bytes, and the reason says so instead of rounding it to nothing."""
    assert too_big(5 << 20, 200).endswith("its max_memory is 200 bytes")


def test_process_that_has_gone_uses_nothing() -> None:
    """A pid that names nobody is no error: the exit is on its way."""
    assert resident(2**22 + 1) == 0
    assert resident(os.getpid()) > 1 << 20
