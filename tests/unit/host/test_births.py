"""Births: answers and exits matched, in whatever order they arrive."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bgworker._control.protocol import Message
from bgworker._host.births import Births, Life, WorkerProcess
from bgworker._loop import Loop
from bgworker._spec import BackgroundWorker

LIFE = Life(0, 1, 1)
WORKER = BackgroundWorker(bgw_name="w")


class Loader:
    """Takes every request, and notes what becomes of it."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.born: list[WorkerProcess] = []
        self.failed: list[tuple[Life, str]] = []
        self.loop = Loop(())
        self.births = Births(
            self.loop, self._send, self.born.append, lambda life, reason: self.failed.append((life, reason)), lambda p, m: None
        )

    def _send(self, message: Message, fds: list[int]) -> bool:
        assert len(fds) == 3
        self.requests.append(message["birth"])
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
    assert set(os.listdir("/proc/self/fd")) <= before
    loader.loop.close()


def test_exit_that_arrives_before_the_birth_fails_it(loader: Loader) -> None:
    """A child that is reaped before the loader has named it has failed to be born."""
    loader.births.request(LIFE, "preloaded", WORKER)
    assert loader.births.exited(4711, 9) is None
    loader.births.born(1, 4711)
    assert loader.born == []
    assert [life for life, _reason in loader.failed] == [LIFE]


def test_old_exit_of_the_same_pid_is_another_process(loader: Loader) -> None:
    """A stray's exit from before the request says nothing about the process that got its pid later."""
    loader.births.request(LIFE, "preloaded", WORKER)
    loader.births.exited(4711, 0)
    later = Life(1, 1, 1)
    loader.births.request(later, "preloaded", WORKER)
    loader.births.born(2, 4711)
    assert [process.life for process in loader.born] == [later]
    assert loader.failed == []


def test_exits_of_strays_are_not_kept(loader: Loader) -> None:
    """Once every birth is answered nothing is left to be matched, however many strays were reaped meanwhile."""
    loader.births.request(LIFE, "preloaded", WORKER)
    for pid in range(10_000, 20_000):
        loader.births.exited(pid, 0)
    loader.births.failed(1, "no process left")
    loader.births.request(LIFE, "preloaded", WORKER)
    loader.births.exited(4711, 9)
    loader.births.born(2, 4711)
    assert len(loader.failed) == 2
    assert loader.born == []
