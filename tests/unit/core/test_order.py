"""_core/order.py in the machine: who starts after whom, what status says meanwhile, and who is stopped first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bgworker._core.effects import Effect, Signal
from bgworker._core.exits import Exit
from bgworker._core.order import MAX_ENDS, Order
from bgworker._core.states import SIGKILL, SIGQUIT, SIGTERM, Origin, Phase, ShutdownMode, SlotState


def signals(effects: list[Effect]) -> list[tuple[int, int]]:
    return [(effect.slotno, effect.signum) for effect in effects if isinstance(effect, Signal)]


def begin(bench: Any, condition: str) -> tuple[Any, Any]:
    """Return a slot whose worker is being launched, and one that waits for it."""
    first = bench.launched("a", restart=5.0)
    second = bench.register("b", restart=5.0, after=[f"a:{condition}"])
    bench.tick()
    assert second.state is SlotState.NOT_YET_STARTED
    assert second.reason == f"waits for a:{condition}; starts when it is"
    assert bench.machine.next_deadline() == first.kill_at, "nothing is polled"
    return first, second


@pytest.mark.parametrize("condition", ["started", "ready"])
def test_start_when_the_other_runs(bench: Any, condition: str) -> None:
    """A worker waits, visibly, and is launched in the turn in which the other has started."""
    first, second = begin(bench, condition)
    bench.bear(first)
    bench.tick()
    assert second.state is SlotState.NOT_YET_STARTED, "a process is no start"
    bench.tell("started", first)
    assert bench.machine.next_deadline() <= bench.now
    bench.tick()
    assert second.state is SlotState.LAUNCHING


def test_what_becomes_of_the_other_later(bench: Any) -> None:
    """Once started it runs on; a start of its own looks again, at ready only whether the other runs now."""
    first = bench.started("a", restart=5.0)
    ready, started = bench.started("r", restart=0.0, after=["a:ready"]), bench.started("s", restart=0.0, after=["a"])
    bench.exit(first, 1)
    bench.tick()
    assert [ready.state, started.state] == [SlotState.STARTED] * 2
    bench.exit(ready, 1)
    bench.exit(started, 1)
    bench.tick()
    assert (ready.state, ready.reason) == (SlotState.WAITING_RESTART, "exit 1; waits for a:ready; starts when it is")
    assert started.state is SlotState.LAUNCHING
    bench.tick(5.0)
    bench.start_again(first)
    bench.tick()
    assert ready.state is SlotState.LAUNCHING


def test_one_that_is_done(bench: Any) -> None:
    """Finished is an end with success that unregisters; who has ended so has been started and ready, too."""
    first, second = begin(bench, "finished")
    bench.bear(first)
    bench.tell("started", first)
    third = bench.register("c", after=["a"])
    bench.exit(first, 0)
    bench.tick()
    assert [second.state, third.state] == [SlotState.LAUNCHING] * 2
    late = bench.launched("late", after=["a:finished", "a:ready"])
    assert late.state is SlotState.LAUNCHING
    bench.register("a")
    again = bench.register("again", after=["a:finished"])
    bench.tick()
    assert again.state is SlotState.NOT_YET_STARTED, "registered again, it has not finished"


def test_one_that_has_failed_or_was_terminated(bench: Any) -> None:
    """Who can meet nothing any more is waited for, and the reason says what became of it."""
    failed, stopped = bench.started("failed"), bench.started("stopped", restart=1.0)
    slot = bench.register("w", after=["failed:finished", "stopped:finished", "x"])
    assert slot.reason == "waits for failed:finished, stopped:finished, x:started (x is not registered); starts when they are"
    bench.exit(failed, 1, tail="no disk")
    bench.want("terminate", stopped, by_operator=True)
    bench.exit(stopped, 0)
    effects = bench.tick()
    assert slot.reason == (
        "waits for failed:finished (failed is over: exit 1: no disk), "
        "stopped:finished (stopped is over: terminated by an operator (exit 0)), "
        "x:started (x is not registered); starts when they are"
    )
    assert slot.slotno in {effect.slotno for effect in effects if hasattr(effect, "slotno")}, "others see it"
    assert bench.machine.next_deadline() is None


def test_all_of_one_name(bench: Any) -> None:
    """Where several bear the name, all of them are waited for."""
    bench.started("a")
    other = bench.born("a")
    slot = bench.register("b", after=["a"])
    bench.tick()
    assert slot.state is SlotState.NOT_YET_STARTED
    bench.tell("started", other)
    bench.tick()
    assert slot.state is SlotState.LAUNCHING


def test_phase_first(make_bench: Callable[..., Any]) -> None:
    """C07: who waits for the database, too, says that first, and then whom it waits for."""
    bench = make_bench(phase=Phase.STARTING)
    slot = bench.register("b", after=["a"])
    assert slot.reason.startswith("waits for the database")
    bench.call("set_phase", Phase.RECOVERY_FINISHED, "")
    assert slot.reason.startswith("waits for a:started")
    assert bench.tick() == []


def test_amended(bench: Any) -> None:
    """A reload that takes the names away lets it start; one that adds some does not stop it."""
    slot = bench.register("b", after=["a"], restart=1.0)
    bench.tick()
    free = bench.started("c", restart=1.0)
    bench.want("amend", free, bench.register("c2", after=["a"], restart=1.0).worker)
    bench.want("amend", slot, free.worker.__class__(**{**vars(slot.worker), "after": ()}))
    bench.tick()
    assert [slot.state, free.state] == [SlotState.LAUNCHING, SlotState.STARTED]


def chain(bench: Any) -> list[Any]:
    """Return running workers a, b after a, c after b, and one that has nothing to do with them."""
    return [
        bench.started("a", restart=1.0),
        bench.started("b", restart=1.0, after=["a:ready"]),
        bench.started("c", restart=1.0, after=["b"], stop_timeout=2.0),
        bench.started("other", restart=1.0),
    ]


def test_stop_in_reverse(bench: Any) -> None:
    """C39: a fast shutdown tells each worker when those that come after it are gone, and says whom it waits for."""
    a, b, c, other = chain(bench)
    assert signals(bench.call("begin_shutdown", ShutdownMode.FAST)) == [(c.slotno, SIGTERM), (other.slotno, SIGTERM)]
    assert (b.state, b.reason) == (SlotState.STARTED, 'the host shuts down; stopped when "c" is gone')
    assert signals(bench.exit(other, 0)) == []
    assert signals(bench.exit(c, 0)) == [(b.slotno, SIGTERM)]
    assert signals(bench.exit(b, 1)) == [(a.slotno, SIGTERM)]
    bench.exit(a, 0)
    assert bench.machine.is_drained


def test_stop_is_bounded(bench: Any) -> None:
    """C39: one that got SIGKILL at its stop timeout is not waited for, whatever the kernel does with it."""
    a, b, c, _ = chain(bench)
    bench.call("begin_shutdown", ShutdownMode.FAST)
    assert (c.slotno, SIGKILL) in (told := signals(bench.tick(2.0)))
    assert (b.slotno, SIGTERM) in told
    assert a.state is SlotState.STARTED
    assert (a.slotno, SIGTERM) in signals(bench.tick(5.0))


def test_stop_of_one_that_ends_first(bench: Any) -> None:
    """C39: one that is held and ends by itself is forgotten; whom nobody names any more is told."""
    a, b, c, _ = chain(bench)
    bench.call("begin_shutdown", ShutdownMode.FAST)
    assert signals(bench.exit(b, 1)) == [(a.slotno, SIGTERM)]
    assert signals(bench.exit(c, 1)) == []


def test_birth_that_was_called_off_holds_nobody_up(bench: Any) -> None:
    """C39: one that gets SIGKILL at its birth, because the host shuts down meanwhile, is not waited for either."""
    a = bench.started("a", restart=1.0)
    b = bench.launched("b", restart=1.0, after=["a"])
    assert signals(bench.call("begin_shutdown", ShutdownMode.FAST)) == []
    assert signals(bench.tell("born", b, 4711)) == [(b.slotno, SIGKILL), (a.slotno, SIGTERM)]


def test_immediate_knows_no_order(bench: Any) -> None:
    """C39: an immediate shutdown tells everybody at once, those too whom a fast one held."""
    a, b, c, other = chain(bench)
    bench.call("begin_shutdown", ShutdownMode.FAST)
    told = signals(bench.call("begin_shutdown", ShutdownMode.IMMEDIATE))
    assert told == [(slot.slotno, SIGQUIT) for slot in (a, b, c, other)]


def test_smart_ends_in_order(bench: Any) -> None:
    """C39: a smart shutdown that waits for nobody any more goes on as a fast one, in order."""
    a, b, *_ = chain(bench)
    once = bench.started("once", after=["b"])
    assert signals(bench.call("begin_shutdown", ShutdownMode.SMART)) == []
    told = signals(bench.exit(once, 0))
    assert {a.slotno, b.slotno}.isdisjoint(slotno for slotno, _ in told)
    assert len(told) == 2


def test_finished_holds_nobody_up(bench: Any) -> None:
    """C39: who waited for the other's end does not need it at its own."""
    first = bench.started("a")
    bench.exit(first, 0)
    second = bench.started("b", after=["a:finished"])
    again = bench.started("a")
    told = signals(bench.call("begin_shutdown", ShutdownMode.FAST))
    assert sorted(told) == sorted([(second.slotno, SIGTERM), (again.slotno, SIGTERM)])


def test_all_instances(bench: Any) -> None:
    """The name without the number means all instances: each has started, and none has failed when all are over."""
    first, second = (bench.born(f"web-{n}", restart=1.0) for n in (1, 2))
    for number, slot in enumerate((first, second), 1):
        bench.want("amend", slot, replace(slot.worker, instance=number))
    started = bench.register("s", after=["web"])
    finished = bench.register("f", after=["web:finished", "web-2:ready"])
    bench.tell("started", first)
    bench.tick()
    assert started.reason == "waits for web:started; starts when it is"
    assert finished.reason == "waits for web:finished, web-2:ready; starts when they are"
    bench.tell("started", second)
    bench.tick()
    assert started.state is SlotState.LAUNCHING
    assert finished.reason == "waits for web:finished; starts when it is"
    bench.exit(first, 0)
    bench.exit(second, 0)
    bench.tick()
    assert finished.state is SlotState.LAUNCHING


def test_ends_are_bounded(bench: Any, make_worker: Callable[..., Any]) -> None:
    """Names that were used once do not pile up; one that somebody waits for is kept."""
    slot = bench.register("w", after=["kept:finished"])
    order = Order(bench.machine.slots)
    order.note(slot)
    done = Exit(0, None, 0.0, "exit 0", False, False, is_success=True)
    for name in ("kept", *map(str, range(3 * MAX_ENDS))):
        order.ended(make_worker(name), done, "exit 0")
    assert order.standing("kept").met
    assert not order.standing("0").met
    assert order.standing(str(3 * MAX_ENDS - 1)).met
    assert len(order._ends) <= MAX_ENDS + 1


def test_names_begin_anew_with_a_registration(bench: Any, make_worker: Callable[..., Any]) -> None:
    """That an instance of an earlier registration has failed says nothing of the later ones."""
    last = bench.register("z", after=["a:finished"])
    for code in (1, 0):
        instances = [replace(make_worker(f"a-{number}"), instance=number) for number in (1, 2)]
        slots = [bench.machine.register(worker, Origin.STATIC, bench.now)[0] for worker in instances]
        bench.tick()
        assert last.state is SlotState.NOT_YET_STARTED
        for slot in slots:
            bench.bear(slot)
            bench.tell("started", slot)
            bench.exit(slot, code)
    bench.tick()
    assert last.state is SlotState.LAUNCHING
