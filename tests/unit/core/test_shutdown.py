"""_core/shutdown.py by itself: the mode, whom it waits for, and how it goes through a document."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bgworker._core.agenda import Agenda
from bgworker._core.codec import UnreadableError
from bgworker._core.conditions import Conditions
from bgworker._core.effects import Log, Publish, Signal
from bgworker._core.order import Order
from bgworker._core.record import Slot
from bgworker._core.roster import Roster
from bgworker._core.shutdown import Shutdown
from bgworker._core.states import ShutdownMode, SlotState
from bgworker._core.wishes import Wishes
from bgworker._spec import BackgroundWorker

MakeWorker = Callable[..., BackgroundWorker]


def a_shutdown(*workers: BackgroundWorker) -> tuple[Shutdown, list[Slot]]:
    """Return a shutdown that has not begun, and the slots of workers that run."""
    slots = [Slot(n, 1, SlotState.STARTED, worker, pid=100 + n, attempt=1, started_at=1.0) for n, worker in enumerate(workers)]
    order = Order(slots)
    for slot in slots:
        order.note(slot)
    roster = Roster(slots, order, Agenda(slots, Conditions(order)))
    return Shutdown(roster, order, Wishes(roster, 5.0)), slots


def test_mode_only_gets_stricter(make_worker: MakeWorker) -> None:
    """C39: a mode that is not stricter than the one in force changes nothing."""
    for mode in ShutdownMode:
        for later in ShutdownMode:
            # A handle that lives keeps the smart one from going on as a fast one by itself.
            shutdown, _slots = a_shutdown(make_worker(restart=1.0))
            shutdown.set_live_handles(1, 1.0)
            shutdown.begin(mode, 2.0)
            effects = shutdown.begin(later, 2.0)
            assert bool(effects) is (later > mode)
            assert shutdown.mode is max(mode, later)


def test_smart_one_goes_on_when_the_last_handle_is_gone(make_worker: MakeWorker) -> None:
    """C39: smart says whom it waits for, spares who runs meanwhile, and then tells everybody."""
    shutdown, _slots = a_shutdown(make_worker(restart=1.0))
    assert shutdown.set_live_handles(2, 1.0) == []
    (log,) = shutdown.begin(ShutdownMode.SMART, 1.0)
    assert log == Log("LOG", "received smart shutdown request", "It waits for 2 live handles of connections.")
    assert shutdown.set_live_handles(1, 2.0) == []
    effects = shutdown.set_live_handles(0, 3.0)
    assert shutdown.mode is ShutdownMode.FAST
    assert [effect.pid for effect in effects if isinstance(effect, Signal)] == [100]
    assert shutdown.set_live_handles(0, 4.0) == []


def test_held_ones_go_through_a_document(make_worker: MakeWorker) -> None:
    """Whom a fast shutdown has not told is told by the next host, when those that came after are gone."""
    workers = make_worker("a", restart=1.0), make_worker("b", restart=1.0, after=["a"])
    shutdown, slots = a_shutdown(*workers)
    shutdown.begin(ShutdownMode.FAST, 1.0)
    assert [slot.state for slot in slots] == [SlotState.STARTED, SlotState.TERMINATING]
    assert slots[0].reason == 'the host shuts down; stopped when "b" is gone'
    carried = json.loads(json.dumps(shutdown.carry()))

    shutdown, slots = a_shutdown(*workers)
    shutdown.resume(carried)
    assert shutdown.carry() == carried
    assert shutdown.stop_held(2.0) == [], "b is still there, and that is what a says"
    slots[1].state, slots[1].kill_at = SlotState.TERMINATING, None
    published, signal = shutdown.stop_held(3.0)
    assert (published, signal.pid) == (Publish(0), 100)
    with pytest.raises(UnreadableError):
        shutdown.resume({**carried, "held": [["a"]]})
