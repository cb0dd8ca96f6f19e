"""_host/reexec.py: what is left over, and what is told, when the host stays as it is."""

from __future__ import annotations

import errno
import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._host import reexec, requests
from bgworker._loop import Loop
from bgworker.errors import RegistrationError


class Told:
    """A host with a log and nothing else, which notes in what order it is asked for what."""

    def __init__(self) -> None:
        self.loop = Loop(())
        self.entries: list[tuple[str, ...]] = []
        self.asked: list[str] = []
        self.machine = SimpleNamespace(shutdown=None)
        self.service = SimpleNamespace(ready=lambda: None)
        self.database = None
        self.loaders = SimpleNamespace(hold=lambda is_held: None)
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
    execution.rehearsed(1 << 8)
    _level, message, detail, _hint = told.entries[0]
    assert message == "could not execute the host anew: its rehearsal failed: E: no?"
    assert detail == "Traceback:\n  File x\nE: ?[2Jno\nEverything runs on as it was."


def test_collector_that_is_leaving_is_told_nothing(told: Any) -> None:
    """The reason is logged while the collector is held: the next one writes it, and one on its way out would not."""
    execution = reexec.Reexec(told)
    execution._stage = reexec._Stage.PARTING
    execution.cancel("the host is shutting down")
    assert told.asked == ["log", "hold False"]
