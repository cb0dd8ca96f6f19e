"""A helper program that cannot be started, or does not stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bgworker._host import helper_process
from bgworker._host.helper_process import HelperProcess
from bgworker._loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(())
    yield loop
    loop.close()


def test_failed_starts_wait_longer_and_longer(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long life, too, a start that the kernel refuses is a time at which to try again, never a loop."""
    ends: list[int | None] = []
    helper = HelperProcess(loop, "test", "no.module", (0, 0), lambda: None, lambda message: None, ends.append)
    monkeypatch.setattr(helper_process, "spawn_helper", lambda *_a, **_k: 4711)
    helper.ensure(1000.0)
    helper.exited(0, 5000.0)
    assert helper.next_deadline() == 5000.0

    def refuse(*_arguments: Any, **_keywords: Any) -> int:
        raise OSError(11, "no process left")

    monkeypatch.setattr(helper_process, "spawn_helper", refuse)
    pauses, now = [], 5000.0
    for _ in range(10):
        helper.ensure(now)
        at = helper.next_deadline()
        assert at is not None
        pauses.append(at - now)
        now = at
    assert pauses == sorted(pauses)
    assert pauses[0] >= 0.1
    assert pauses[-1] == 10.0
    assert ends == [0] + [None] * 10


def test_nothing_is_told_to_one_that_has_been_told_to_end(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said after a collector was told to hand over is the next one's, also if the host stays what it was meanwhile."""
    told: list[Any] = []
    helper = HelperProcess(loop, "test", "no.module", (0, 0), lambda: None, lambda message: None, lambda status: None)
    monkeypatch.setattr(helper_process, "spawn_helper", lambda *_a, **_k: 4711)
    helper.ensure(1000.0)
    assert helper.connection is not None
    monkeypatch.setattr(helper.connection, "send", lambda message, _fds: told.append(message))
    assert helper.send({"type": "hand_over"})
    helper.hold(True)
    helper.hold(False)
    assert not helper.send({"type": "log"})
    assert not helper.send_later({"type": "log"})
    assert told == [{"type": "hand_over"}]
    helper.exited(0, 1000.0)
    helper.ensure(2000.0)
    assert helper.send_later({"type": "log"})
    helper.exited(0, 3000.0)
