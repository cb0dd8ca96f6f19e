"""Who asked for an exit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._core import reasons
from bgworker._host.askers import Askers
from bgworker._host.births import Life

KEY = (3, 2)


def client(uid: int = 1000, pid: int = 42) -> Any:
    return SimpleNamespace(worker=None, uid=uid, pid=pid)


def test_an_operator_is_named() -> None:
    """A client's request is told with its user and process, once."""
    askers = Askers()
    askers.note(KEY, client())
    assert askers.of(KEY, reasons.BY_OPERATOR) == {"who": "operator", "uid": 1000, "pid": 42, "what": "terminated by an operator"}
    assert askers.of(KEY, reasons.BY_OPERATOR) == {"who": "operator", "what": "terminated by an operator"}


def test_who_scales_is_named() -> None:
    """An instance that was scaled away names the operator that wanted fewer."""
    askers = Askers()
    askers.note(KEY, client())
    assert askers.of(KEY, reasons.BY_SCALE) == {"who": "operator", "uid": 1000, "pid": 42, "what": "scaled away"}


def test_a_worker_is_named() -> None:
    """A worker that terminates another is told by its slot and generation."""
    askers = Askers()
    askers.note(KEY, SimpleNamespace(worker=SimpleNamespace(life=Life(1, 7, 2)), uid=-1, pid=43))  # type: ignore[arg-type]
    assert askers.of(KEY, reasons.BY_HANDLE) == {"who": "worker", "worker": "1.7", "pid": 43, "what": reasons.BY_HANDLE}


@pytest.mark.parametrize(
    ("asked", "who"),
    [
        (reasons.BY_SHUTDOWN, "shutdown"),
        (reasons.BY_REPLACEMENT, "reload"),
        (reasons.phase_lost(reasons.Phase.CONSISTENT), "database"),
        (reasons.reinitialised("x", "signal 9"), "crash"),
        ("something new", "host"),
    ],
)
def test_rules_of_the_host(asked: str, who: str) -> None:
    """What the host did by its own rules is told as such, though somebody had asked for something before."""
    askers = Askers()
    askers.note(KEY, client())
    assert askers.of(KEY, asked) == {"who": who, "what": asked}


def test_a_shutdown_that_a_client_asked_for() -> None:
    """The client that stopped the host is told with every worker's exit."""
    askers = Askers()
    askers.note_shutdown(client(uid=0, pid=9))
    told = {"who": "shutdown", "uid": 0, "pid": 9, "what": reasons.BY_SHUTDOWN}
    assert askers.of(KEY, reasons.BY_SHUTDOWN) == askers.of((1, 1), reasons.BY_SHUTDOWN) == told


def test_nobody_asked() -> None:
    """A request that did not end the process is not what a later exit is put down to."""
    askers = Askers()
    askers.note(KEY, client())
    assert askers.of(KEY, "") is None
    askers.note_reload(KEY)
    assert askers.of(KEY, reasons.BY_HANDLE) == {"who": "reload", "what": reasons.BY_HANDLE}
