"""A bench for the slot machine: a clock that only the test moves, and short words for what a host would report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker._core.effects import Effect, Log
from bgworker._core.slots import Slot, SlotMachine
from bgworker._core.states import Origin, Phase, SlotState
from bgworker._spec import BGW_NEVER_RESTART, BackgroundWorker, sanity_check


def a_worker(name: str = "w", *, restart: float = BGW_NEVER_RESTART, **keys: Any) -> BackgroundWorker:
    """Return a registration as the host hands it to the machine."""
    keys = {"bgw_library_name": "lib", "bgw_function_name": "main", **keys}
    return sanity_check(BackgroundWorker(bgw_name=name, bgw_restart_time=restart, **keys), is_dynamic=True)


class Bench:
    """One machine, its clock, and everything it ever asked for."""

    def __init__(self, slots: int = 8, phase: Phase = Phase.RECOVERY_FINISHED, **options: float) -> None:
        self.machine = SlotMachine(slots, **options)
        self.now = 1000.0
        self.effects: list[Effect] = []
        self._last_pid = 100
        self.machine.set_phase(phase, "", self.now)

    def call(self, method: str, *args: Any, **keywords: Any) -> list[Effect]:
        """Call a method that takes ``now`` last, and keep its effects."""
        effects: list[Effect] = getattr(self.machine, method)(*args, self.now, **keywords)
        self.effects += effects
        return effects

    def tell(self, method: str, slot: Slot, *args: Any, **keywords: Any) -> list[Effect]:
        """Call a method about the current launch of a slot."""
        return self.call(method, slot.slotno, slot.generation, slot.attempt, *args, **keywords)

    def want(self, method: str, slot: Slot, *args: Any, **keywords: Any) -> list[Effect]:
        """Call a method about the registration in a slot."""
        return self.call(method, slot.slotno, slot.generation, *args, **keywords)

    def register(self, name: str = "w", *, origin: Origin = Origin.DYNAMIC, **keys: Any) -> Slot:
        """Register a worker; the keys are those of ``a_worker``."""
        slot, effects = self.machine.register(a_worker(name, **keys), origin, self.now)
        self.effects += effects
        return slot

    def tick(self, seconds: float = 0.0) -> list[Effect]:
        """Let time pass, then take a turn."""
        self.now += seconds
        return self.call("tick")

    def launched(self, name: str = "w", **keys: Any) -> Slot:
        """Return a slot in LAUNCHING, its pid unknown."""
        slot = self.register(name, **keys)
        self.tick()
        assert slot.state is SlotState.LAUNCHING
        return slot

    def born(self, name: str = "w", **keys: Any) -> Slot:
        """Return a slot in LAUNCHING, its pid known."""
        slot = self.launched(name, **keys)
        self.bear(slot)
        return slot

    def bear(self, slot: Slot) -> int:
        """Answer the slot's Launch with a new pid."""
        self._last_pid += 1
        self.tell("born", slot, self._last_pid)
        return self._last_pid

    def started(self, name: str = "w", **keys: Any) -> Slot:
        """Return a slot in STARTED."""
        slot = self.born(name, **keys)
        self.tell("started", slot)
        assert slot.state is SlotState.STARTED
        return slot

    def start_again(self, slot: Slot) -> None:
        """Bring a slot whose launch is due to STARTED."""
        self.tick()
        self.bear(slot)
        self.tell("started", slot)
        assert slot.state is SlotState.STARTED

    def exit(self, slot: Slot, code: int = 0, *, signal: int = 0, tail: str = "") -> list[Effect]:
        """Report the end of the slot's process."""
        status = signal or code << 8
        effects = self.machine.exited(slot.slotno, slot.generation, slot.attempt, status, self.now, tail)
        self.effects += effects
        return effects


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    return Bench


@pytest.fixture
def make_worker() -> Callable[..., BackgroundWorker]:
    return a_worker


def _only(effects: list[Effect], kind: type[Any]) -> Any:
    found = [effect for effect in effects if type(effect) is kind]
    assert len(found) == 1, f"expected one {kind.__name__} in {effects}"
    return found[0]


@pytest.fixture
def only() -> Callable[[list[Effect], type[Any]], Any]:
    """Return the one effect of a kind; more or none fail the test."""
    return _only


def _kinds(effects: list[Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects if not isinstance(effect, Log)]


@pytest.fixture
def kinds() -> Callable[[list[Effect]], list[str]]:
    """Return the effects' names, log lines left out."""
    return _kinds
