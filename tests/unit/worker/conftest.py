"""A runtime without processes: what the rules of this room need, and nothing that sleeps."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bgworker._spec import BackgroundWorker, BgWorkerFlags
from bgworker._worker import runtime as runtimes
from bgworker._worker.assignment import Assignment, make_runtime
from bgworker._worker.channel import Channel
from bgworker._worker.interrupts import Interrupts
from bgworker._worker.latch import Latch
from bgworker._worker.runtime import DatabaseFacts, Runtime
from bgworker._worker.slot_view import SlotView
from bgworker.errors import HostNotRunning


@pytest.fixture
def latch() -> Iterator[Latch]:
    made = Latch()
    yield made
    made.close()


@pytest.fixture
def interrupts(latch: Latch) -> Interrupts:
    made = Interrupts(latch)
    made.name = "tested"
    return made


@pytest.fixture
def make(latch: Latch, interrupts: Interrupts) -> Iterator[Callable[..., Runtime]]:
    """Make the process's runtime out of a few facts."""

    def make(*, flags: int = 3, conninfo: str | None = "host=nowhere", role: str | None = None, **keys: Any) -> Runtime:
        worker = BackgroundWorker(
            **{
                "bgw_name": "tested",
                "bgw_library_name": "lib",
                "bgw_function_name": "main",
                "bgw_flags": BgWorkerFlags(flags),
                **keys,
            }
        )
        database = DatabaseFacts("external", conninfo, role) if conninfo is not None else None
        channel = Channel(-1, -1, latch, interrupts, SlotView(-1), absence=HostNotRunning("no host here"))
        runtime = make_runtime(Assignment(worker, database=database), latch, interrupts, channel)
        runtimes.install(runtime)
        return runtime

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield make
    runtimes.install(None)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
