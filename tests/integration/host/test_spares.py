"""Spare workers and births, with children that are as real as the loader is not: taken, dead, claimed at birth, outdated."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from bgworker._control.protocol import Message
from bgworker._host.births import Births, Life, WorkerProcess
from bgworker._loop import Loop
from bgworker._spec import BackgroundWorker

LIFE = Life(0, 1, 1)
WORKER = BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f")


class Loader:
    """Takes every request, and notes what becomes of it."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.kinds: list[str] = []
        self.born: list[WorkerProcess] = []
        self.failed: list[tuple[Life, str]] = []
        self.loop = Loop(())
        self.births = Births(
            self.loop, self._send, self.born.append, lambda life, reason: self.failed.append((life, reason)), lambda p, m: None
        )

    def _send(self, message: Message, fds: list[int]) -> bool:
        assert len(fds) == 3
        self.requests.append(message["birth"])
        self.kinds.append(message["kind"])
        return True


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader()
    before = set(os.listdir("/proc/self/fd"))
    yield loader
    for process in loader.born:
        if process.connection is not None:
            process.connection.close()
        process.close_log_fds()
    loader.births.loader_is_gone()
    for pid in loader.births.spares.pids():
        os.waitpid(pid, 0)
    assert set(os.listdir("/proc/self/fd")) <= before
    loader.loop.close()


def a_child() -> int:
    """Return a process that sleeps until it is killed."""
    return os.posix_spawn("/bin/sleep", ["sleep", "60"], {})


@pytest.fixture
def spare(loader: Loader) -> int:
    """One spare that is wanted and born."""
    loader.births.spares.want(1)
    loader.births.loader_is_ready()
    loader.births.ensure_spares(LATER)
    assert loader.kinds == ["spare"]
    pid = a_child()
    loader.births.born(1, pid)
    return pid


#: A monotonic instant at which everything is due.
LATER = float("inf")


def test_spare_is_assigned_without_the_loader(loader: Loader, spare: int) -> None:
    """A launch that finds a spare asks nothing of the loader; the spare is missing only then, and due in a moment."""
    assert loader.births.spares_due_at() is None
    loader.births.request(LIFE, "preloaded", WORKER)
    assert [(process.pid, process.life) for process in loader.born] == [(spare, LIFE)]
    assert loader.births.by_pid[spare] is loader.born[0]
    due_at = loader.births.spares_due_at()
    assert due_at is not None
    assert due_at > time.monotonic() - 1.0
    assert loader.kinds == ["spare"]
    end(spare)


def test_spare_is_not_for_workers_that_are_executed(loader: Loader, spare: int) -> None:
    """A worker whose library is not in memory gets a birth of its own."""
    loader.births.request(LIFE, "exec", WORKER)
    assert (loader.kinds, loader.born) == (["spare", "exec"], [])
    loader.births.failed(2, "no process left")


def test_dead_spare_is_not_assigned(loader: Loader, spare: int) -> None:
    """A spare that is dead and not yet reaped is passed over; its end is nobody's."""
    os.kill(spare, signal.SIGKILL)
    os.waitid(os.P_PID, spare, os.WEXITED | os.WNOWAIT)
    loader.births.request(LIFE, "preloaded", WORKER)
    assert (loader.kinds, loader.born) == (["spare", "preloaded"], [])
    assert spare in loader.births.spares
    os.waitpid(spare, 0)
    loader.births.spares.ended(spare, time.monotonic())
    loader.births.failed(2, "no process left")
    due_at = loader.births.spares_due_at()
    assert due_at is not None
    assert due_at > time.monotonic() + 0.5, "what kills spares must not turn into a loop"


def test_launch_takes_a_spare_that_is_being_born(loader: Loader) -> None:
    """A launch does not queue behind the spares that the loader was just asked for: it takes one of them."""
    loader.births.spares.want(1)
    loader.births.loader_is_ready()
    loader.births.ensure_spares(LATER)
    loader.births.request(LIFE, "preloaded", WORKER)
    assert loader.kinds == ["spare"]
    pid = a_child()
    loader.births.born(1, pid)
    assert [(process.pid, process.life) for process in loader.born] == [(pid, LIFE)]
    end(pid)


def test_spare_that_is_never_born_costs_its_launch_nothing(loader: Loader) -> None:
    """A launch whose spare ended at its birth is asked for again, as a birth of its own."""
    loader.births.spares.want(1)
    loader.births.loader_is_ready()
    loader.births.ensure_spares(LATER)
    loader.births.request(LIFE, "preloaded", WORKER)
    loader.births.exited(4711, 9)
    loader.births.born(1, 4711)
    assert (loader.kinds, loader.born, loader.failed) == (["spare", "preloaded"], [], [])
    loader.births.exited(4712, 9)
    loader.births.born(2, 4712)
    assert len(loader.failed) == 1, "the second time it is a failed start"


def test_no_spares_while_births_are_in_flight(loader: Loader) -> None:
    """Spares are made when nothing else is."""
    loader.births.spares.want(2)
    loader.births.loader_is_ready()
    loader.births.request(LIFE, "exec", WORKER)
    assert loader.births.spares_due_at() is None
    loader.births.ensure_spares(LATER)
    assert loader.kinds == ["exec"]
    loader.births.failed(1, "no process left")
    loader.births.ensure_spares(LATER)
    assert loader.kinds == ["exec", "spare", "spare"]


def test_spares_go_with_their_loader(loader: Loader, spare: int) -> None:
    """The code of a loader that is replaced must not start once more."""
    loader.births.loader_is_gone()
    assert os.waitpid(spare, 0)[1] == signal.SIGKILL
    loader.births.request(LIFE, "preloaded", WORKER)
    assert loader.born == []
    loader.births.spares.ended(spare, time.monotonic())
    assert loader.births.spares_due_at() is None, "without a loader there is nothing to do"


def end(pid: int) -> None:
    """End a child."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
