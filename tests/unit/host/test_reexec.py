"""_host/reexec.py: what is left over, and what is told, when the host stays as it is."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._host import reexec, requests
from bgworker._loop import Loop
from bgworker.errors import HostError, RegistrationError


class Asker:
    """Somebody who asks for an execution, and what they read."""

    connection = SimpleNamespace(is_open=False)

    def __init__(self) -> None:
        self.refusals: list[str] = []

    def refuse(self, _request_id: Any, error: HostError) -> None:
        """Keep the reason."""
        self.refusals.append(error.message_primary)


class Told:
    """A host with a log and nothing else, which notes in what order it is asked for what."""

    def __init__(self) -> None:
        self.loop = Loop(())
        self.entries: list[tuple[str, ...]] = []
        self.asked: list[str] = []
        self.machine = SimpleNamespace(shutdown=None)
        self.service = SimpleNamespace(ready=lambda: None)
        self.database = None
        self.is_loaded = True
        self.loaders = SimpleNamespace(hold=lambda is_held: None, candidate=None)
        self.output = SimpleNamespace(collector=SimpleNamespace(hold=lambda is_held: self.asked.append(f"hold {is_held}")))

    def log(self, *entry: str) -> None:
        """Keep an entry."""
        self.asked.append("log")
        self.entries.append(entry)


@pytest.mark.parametrize("method", [requests.reexec, requests.stop])
def test_no_worker_ends_or_executes_its_host(method: Any) -> None:
    """Whatever its rights: the launcher has those of the host's user, and runs what plugins say."""
    with pytest.raises(RegistrationError, match="a background worker cannot"):
        method(None, SimpleNamespace(worker=object()), 1, {})


@pytest.fixture
def told() -> Any:
    told = Told()
    yield told
    told.loop.close()


def test_rehearsal_that_cannot_be_started_leaves_nothing_open(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has no descriptor left for the rehearsal's output keeps none of those that it had made for it."""

    def pipe() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(reexec.document, "carry", lambda host, baggage: {})
    monkeypatch.setattr(os, "pipe", pipe)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Too many open files"):
        reexec.Reexec(told)._rehearse()
    assert os.listdir("/proc/self/fd") == before


def test_traceback_of_a_rehearsal_keeps_its_lines(told: Any) -> None:
    """What a rehearsal says of its failure stands in the log line by line, and what a terminal would obey does not."""
    execution = reexec.Reexec(told)
    execution._output_fd, write_fd = os.pipe()
    os.write(write_fd, json.dumps({"error": "E: no\n", "detail": "Traceback:\n  File x\nE: \x1b[2Jno\n"}).encode())
    os.close(write_fd)
    execution.rehearsed(17, 1 << 8)
    _level, message, detail, _hint = told.entries[0]
    assert message == "could not execute the host anew: its rehearsal failed: E: no?"
    assert detail == "Traceback:\n  File x\nE: ?[2Jno\nEverything runs on as it was."


def test_collector_that_is_leaving_is_told_nothing(told: Any) -> None:
    """The reason is logged while the collector is held: the next one writes it, and one on its way out would not."""
    execution = reexec.Reexec(told)
    execution._stage = reexec._Stage.PARTING
    execution.cancel("the host is shutting down")
    assert told.asked == ["log", "hold False"]


def raising(error: BaseException) -> Callable[..., Any]:
    """Return a function that fails."""

    def fail(*_arguments: Any, **_named: Any) -> Any:
        raise error

    return fail


def full() -> OSError:
    """Return what the kernel says when there is no room for the state."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("place", "error", "reason"),
    [
        ("document.carry", MemoryError(), "there is no memory left"),
        ("document.carry", OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files"),
        ("document.carry", RecursionError("too deep"), "RecursionError('too deep')"),
        ("os.memfd_create", OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "Too many open files in system"),
        ("json.dumps", MemoryError(), "there is no memory left"),
        ("json.dumps", full(), "No space left on device"),
        ("fcntl.fcntl", OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "Cannot allocate memory"),
    ],
)
@pytest.mark.parametrize("is_last_step", [False, True])
def test_state_that_cannot_be_written_costs_the_execution_alone(
    told: Any, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException, reason: str, is_last_step: bool
) -> None:
    """Whatever is used up while the state is gathered or written: whoever asked is refused with that, and nothing is left over."""
    monkeypatch.setattr(reexec.document, "carry", lambda host, baggage: {})
    monkeypatch.setattr(f"bgworker._host.reexec.{place}", raising(error))
    execution, asker = reexec.Reexec(told), Asker()
    before, mask = os.listdir("/proc/self/fd"), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if is_last_step:
        execution._stage = reexec._Stage.PARTING
        execution._asked.append((asker, 1))  # type: ignore[arg-type]
        execution._execute()
        assert told.asked[-1] == "hold False", "the helpers are taken back"
    else:
        execution.begin(asker, 1)  # type: ignore[arg-type]
    assert asker.refusals == [f"could not execute the host anew: its state could not be written: {reason}"]
    assert not execution.is_running
    assert os.listdir("/proc/self/fd") == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_rehearsal_that_was_given_up_is_known_until_it_is_reaped(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks again before a killed rehearsal is reaped gets one of their own, and no exit is taken for anybody else's."""
    started = iter((101, 102))
    killed: list[int] = []
    monkeypatch.setattr(reexec.document, "carry", lambda host, baggage: {})
    monkeypatch.setattr(reexec, "_spawn_rehearsal", lambda state_fd, output_fd: next(started))
    monkeypatch.setattr(reexec.reap, "signal_child", lambda pid, signum: killed.append(pid))
    told.loaders.is_busy = False
    execution, asker = reexec.Reexec(told), Asker()
    execution.begin(asker, 1)  # type: ignore[arg-type]
    assert execution.pids == {101}
    execution.tick(execution.next_deadline() or 0.0)
    assert asker.refusals == ["could not execute the host anew: its rehearsal did not end within 30 seconds"]
    assert (killed, execution.is_running) == ([101], False)
    execution.begin(asker, 2)  # type: ignore[arg-type]
    assert execution.pids == {101, 102}
    monkeypatch.setattr(execution, "_output", b'{"version": "9"}')
    execution.rehearsed(102, 0)
    execution.tick(0.0)
    assert execution._stage is reexec._Stage.WAITING, "the next program would not know whose exit comes"
    execution.rehearsed(101, 9)
    assert execution.pids == frozenset()
    assert execution.is_running
    assert execution._what_is_busy() == ""


def test_signal_waits_for_a_reload(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGUSR2 while a loader is read is said once, and is taken when that is over, also if a shutdown has ended it."""
    begun: list[str] = []
    told.loaders.candidate = object()
    execution = reexec.Reexec(told)
    monkeypatch.setattr(execution, "_rehearse", lambda: begun.append("rehearsal"))
    for _ in range(2):
        execution.begin_by_signal()
    execution.tick(0.0)
    assert begun == []
    assert [entry[0] for entry in told.entries] == ["LOG"]
    told.loaders.candidate = None
    execution.tick(0.0)
    execution.tick(0.0)
    assert begun == ["rehearsal"]
    told.loaders.candidate = object()
    execution.begin_by_signal()
    told.loaders.candidate, told.machine.shutdown = None, "fast"
    execution.tick(0.0)
    assert told.entries[-1][1] == "could not execute the host anew: it is shutting down"
    assert begun == ["rehearsal"]
