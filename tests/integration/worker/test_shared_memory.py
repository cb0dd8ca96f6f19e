"""Shared memory as a worker sees it: one initialiser, locks that a dying holder gives back, and the waits for them (C31)."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.worker.driving import Life, PlayedHost

from bgworker._control.protocol import encode
from bgworker._host.segments import Segments
from bgworker.errors import SharedMemoryError

FATAL = 'FATAL:  terminating background worker "tested" due to administrator command\n'


class Sharing:
    """A host that hands out segments."""

    def __init__(self, host: PlayedHost, segments: Segments) -> None:
        self.host = host
        self.segments = segments

    def serve(self, life: Life) -> None:
        """Answer the next request, which must be for a segment."""
        request = life.receive("request attach_segment")
        assert request.get("method") == "attach_segment", request
        try:
            segment, size, fd = self.segments.open(**request["params"])
        except SharedMemoryError as error:
            life.send({"id": request["id"], "error": error.to_dict()})
            return
        result = {"name": segment.name, "size": size, "generation": segment.generation}
        socket.send_fds(life.channel, [encode({"id": request["id"], "result": result, "fds": 1})], [fd])
        os.close(fd)

    def start(self, function: str, arg: Any = None, **keys: Any) -> Life:
        """Start a worker, and give it the segment that it asks for first."""
        life = self.host.start(function, arg, library="shmfunctions", **keys)
        self.serve(life)
        return life

    def memory(self) -> bytes:
        """Return what stands in the segment."""
        _segment, size, fd = self.segments.open("memory", None)
        try:
            return os.pread(fd, size, 4096)
        finally:
            os.close(fd)

    def write(self, offset: int, value: int) -> None:
        """Change one byte of the segment."""
        _segment, _size, fd = self.segments.open("memory", None)
        os.pwrite(fd, bytes([value]), 4096 + offset)
        os.close(fd)


@pytest.fixture
def sharing(host: PlayedHost) -> Iterator[Sharing]:
    segments = Segments(1 << 20)
    yield Sharing(host, segments)
    segments.close()


@pytest.mark.parametrize("executed", [False, True])
def test_first_one_initialises(sharing: Sharing, executed: bool) -> None:
    """C31: the first one to attach initialises, every other one finds it done; nothing is handed down to programs."""
    first = sharing.start("attach", executed=executed)
    assert first.wait() == 0
    assert first.read("out").splitlines() == [
        "initialise 00000000",
        "<Segment 'memory' of 100 bytes> memory 100 1 100 01020304",
        "True",
        'SharedMemoryError: shared memory segment "memory" has another size: 100 bytes, not 101',
        "UsageError: shared_memory() needs a name and a whole number of bytes",
        "[]",
    ]
    assert sharing.memory()[99] == 9
    second = sharing.start("attach", executed=executed)
    assert second.wait() == 0
    assert second.read("out").splitlines()[0] == "<Segment 'memory' of 100 bytes> memory 100 1 100 01020304"
    assert sharing.start("attach_only").read("out") == "01020304\n"


def test_attaching_to_nothing_is_an_error(sharing: Sharing) -> None:
    """C31: without a size there must be something to attach to."""
    assert sharing.start("attach_only").read("out") == ('SharedMemoryError: shared memory segment "memory" does not exist\n')


@pytest.mark.parametrize("how", ["kill", "raise", "exit"])
def test_initialiser_that_ends_half_way_is_followed_by_the_next(sharing: Sharing, how: str) -> None:
    """C31: whoever waits meanwhile sees nothing half-made: it clears the memory and initialises itself."""
    first = sharing.start("initialise_and", "sleep" if how == "kill" else how)
    first.read_until("initialise 00000000")
    second = sharing.start("attach_anew")
    if how == "kill":
        second.wait_for_activity(wait_event="SharedMemoryLock")
        assert "initialise" not in second.read("out", wait=False)
        first.signal(signal.SIGKILL)
    assert first.wait() == (-signal.SIGKILL if how == "kill" else 1)
    assert second.wait() == 0
    assert second.read("out").splitlines() == ["comes", "initialise 00000000", "found 0 01020304"]


def test_attaching_to_what_nobody_has_finished_is_an_error(sharing: Sharing) -> None:
    """C31: who brings neither a size nor an initialiser cannot make up for one that ended half-way."""
    assert sharing.start("initialise_and", "raise").wait() == 1
    assert sharing.start("attach_only").read("out") == ('SharedMemoryError: shared memory segment "memory" is not initialised\n')


@pytest.mark.parametrize("how", ["kill", "leave"])
def test_dying_holder_gives_the_lock_back(sharing: Sharing, how: str) -> None:
    """C31: a lock is free again when its holder is killed, or exits inside of the block."""
    holder = sharing.start("hold", how)
    holder.read_until("inside")
    other = sharing.start("want")
    other.wait_for_activity(wait_event="SharedMemoryLock")
    other.wait_until_asleep()
    if how == "kill":
        holder.signal(signal.SIGKILL)
    else:
        holder.signal(signal.SIGUSR1)
        holder.wait_until_asleep()
        holder.signal(signal.SIGUSR1)
    assert other.wait() == 0
    assert other.read("out").splitlines() == ["wants", "got it", "got it"]


@pytest.mark.parametrize("function", ["want", "want_in_loop"])
def test_wait_for_a_lock_is_bounded(sharing: Sharing, function: str) -> None:
    """C31: a timeout ends the wait, and leaves nothing behind that would take the lock later."""
    holder = sharing.start("hold")
    holder.read_until("inside")
    other = sharing.start(function, 0.05)
    assert other.wait() == 0
    line = 'WaitTimeout: timed out waiting for lock "x" of shared memory segment "memory"'
    assert other.read("out").splitlines() == ["wants", *[line] * (2 if function == "want" else 1)]


@pytest.mark.parametrize("function", ["want", "want_in_loop"])
def test_sigterm_ends_the_wait_for_a_lock(sharing: Sharing, function: str) -> None:
    """C22: a worker that waits for a lock, its signals unblocked, ends at SIGTERM."""
    holder = sharing.start("hold")
    holder.read_until("inside")
    other = sharing.start(function)
    other.read_until("wants")
    other.wait_until_asleep()
    other.signal(signal.SIGTERM)
    assert other.wait() == 1
    assert other.read("out") == "wants\n"
    assert other.read("err") == FATAL


def test_sigterm_inside_is_raised_at_the_end_of_the_block(sharing: Sharing) -> None:
    """C22: what is being written under a lock is finished: SIGTERM raises nothing before the end of the block."""
    life = sharing.start("hold_and_write")
    life.read_until("inside")
    life.signal(signal.SIGTERM)
    life.wait_until_asleep()
    sharing.write(0, 1)
    assert life.wait() == 1
    assert sharing.memory()[:2] == b"\1\1"
    assert life.read("out") == "inside\n"
    assert life.read("err") == FATAL


def test_deadlock_is_found(sharing: Sharing) -> None:
    """C31: of two workers that wait for each other's locks one gets an error, and with it the other one its lock."""
    lives = [sharing.start("cross", ["x", "y"]), sharing.start("cross", ["y", "x"])]
    for life in lives:
        life.read_until("first")
    for life in lives:
        life.signal(signal.SIGUSR1)
    assert sorted(life.read("out") for life in lives) == ["first\nDeadlockDetected: deadlock detected\n", "first\nboth\n"]


def test_host_death_ends_the_wait_for_a_lock(sharing: Sharing) -> None:
    """C24: a worker that waits for a lock does not outlive the host."""
    holder = sharing.start("hold")
    holder.read_until("inside")
    other = sharing.start("want")
    other.wait_for_activity(wait_event="SharedMemoryLock")
    other.die_as_host()
    assert other.wait() == 1
    assert "unexpected host exit" in other.read("err")


def test_lock_belongs_to_one_process_and_its_main_thread(sharing: Sharing) -> None:
    """C31: a lock cannot be taken twice, nor in a thread, nor in a forked child; a child's end gives none of them up."""
    life = sharing.start("misuse")
    assert life.read_until("still inside").splitlines() == [
        'UsageError: lock "x" of shared memory segment "memory" is held already',
        "UsageError: segment.lock() can be used in the worker's main thread only",
        "UsageError: this process is not a background worker",
        "UsageError: this process is not a background worker",
        "still inside",
    ]
    other = sharing.start("want", 0.0)
    assert other.wait() == 0
    assert "got it" not in other.read("out")


def test_locks_exclude_each_other(sharing: Sharing) -> None:
    """C31: no increment is lost among processes, nor among the tasks of async ones."""
    lives = [sharing.start("count", 500) for _ in range(3)]
    for _ in range(2):
        lives.append(sharing.start("count_in_tasks", [5, 40]))
        sharing.serve(lives[-1])  # three tasks ask before the first one is answered
        sharing.serve(lives[-1])
    for life in lives:
        assert life.read("out") == "done\n", life.read("err")
        assert life.wait() == 0
    assert struct.unpack_from("<Q", sharing.memory()) == (3 * 500 + 2 * 5 * 40,)


def test_blocking_faces_refuse_an_event_loop(sharing: Sharing) -> None:
    """C21: in an async worker the blocking faces name their twins."""
    life = sharing.start("blocking_in_loop")
    assert life.wait() == 0
    assert life.read("out").splitlines() == [
        "UsageError: shared_memory() would block the event loop",
        "initialise 00000000",
        "UsageError: with segment.lock() would block the event loop",
    ]
