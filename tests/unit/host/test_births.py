"""Births: answers and exits matched, in whatever order they arrive."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from bgworker._config.descriptors import MAX_IN_FLIGHT
from bgworker._control.protocol import Message, encode
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
        self.heard: list[str] = []
        #: The child's end of the last channel, as the clone has it.
        self.child: socket.socket | None = None
        self.loop = Loop(())
        self.births = Births(
            self.loop,
            self._send,
            self.born.append,
            lambda life, reason: self.failed.append((life, reason)),
            lambda process, message: self.heard.append(message["type"]),
        )

    def _send(self, message: Message, fds: list[int]) -> bool:
        assert len(fds) == 3
        self.requests.append(message["birth"])
        if self.child is not None:
            self.child.close()
        self.child = socket.socket(fileno=os.dup(fds[0]))
        return True

    def child_says(self, *kinds: str) -> None:
        """Send as the worker of the last birth, whose process then executes something or ends."""
        assert self.child is not None
        self.child.sendall(b"".join(encode({"type": kind}) for kind in kinds))
        self.child.close()


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
    if loader.child is not None:
        loader.child.close()
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


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (["executing"], ["started"]),
        (["executing", "start_failed"], ["start_failed"]),
        (["start_failed"], ["start_failed"]),
        (["started"], ["started"]),
        ([], []),
    ],
)
@pytest.mark.parametrize("is_reaped_first", [False, True])
def test_end_of_the_channel_is_the_start_of_a_program(
    loader: Loader, said: list[str], heard: list[str], is_reaped_first: bool
) -> None:
    """A channel that ends after "executing" was closed by the execution: the program runs, or has run already."""
    loader.births.request(LIFE, "preloaded", WORKER)
    loader.births.born(1, 4711)
    loader.child_says(*said)
    if is_reaped_first:
        loader.births.exited(4711, 0)
    else:
        (process,) = loader.born
        assert process.connection is not None
        while process.connection.is_open:
            loader.loop.turn(time.monotonic() + 10)
    assert loader.heard == heard


def test_only_so_many_are_born_at_a_time(loader: Loader) -> None:
    """The rest waits in order for an answer, or for the next loader; one that is given up meanwhile is never asked for."""
    births = loader.births
    births.loader_is_ready()
    lives = [Life(number, 1, 1) for number in range(MAX_IN_FLIGHT + 4)]
    for life in lives:
        births.request(life, "preloaded", WORKER)
    assert len(loader.requests) == MAX_IN_FLIGHT
    births.abandon(lives[MAX_IN_FLIGHT + 1])
    assert loader.failed == [(lives[MAX_IN_FLIGHT + 1], "not wanted any more")]
    births.answered({"type": "birth_failed", "birth": 1, "error": "no process left"})
    births.answered({"type": "birth_failed", "birth": 2, "error": "no process left"})
    assert len(loader.requests) == MAX_IN_FLIGHT + 2
    births.loader_is_gone()
    loader.requests.clear()
    births.loader_is_ready()
    assert len(loader.requests) == MAX_IN_FLIGHT
    # Births are numbered as they are asked for: the oldest life has the first of the new numbers.
    for number in list(loader.requests):
        births.answered({"type": "birth_failed", "birth": number, "error": "no process left"})
    births.answered({"type": "birth_failed", "birth": loader.requests[-1], "error": "no process left"})
    assert [life for life, _reason in loader.failed[3:]] == [life for life in lives[2:] if life != lives[MAX_IN_FLIGHT + 1]]
