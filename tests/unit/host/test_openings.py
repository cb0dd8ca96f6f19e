"""Requests for closed databases on their way through the host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._control.protocol import Message
from bgworker._core.states import SlotState
from bgworker._host import requests, rights
from bgworker._host.openings import Openings
from bgworker._spec import BGWORKER_SHMEM_ACCESS, DATABASE_WORKER_FLAGS, BackgroundWorker
from bgworker.errors import HostError, ProtocolError

ANSWER = {"error": "", "sqlstate": "", "detail": "", "hint": ""}


class Caller:
    """One end of a channel."""

    def __init__(self, worker: Any = None) -> None:
        self.worker = worker
        self.grants = rights.OWNER if worker is None else rights.WORKER
        self.answers: list[tuple[Any, Any]] = []

    def reply(self, request_id: Any, result: Any) -> None:
        """Keep the answer."""
        self.answers.append((request_id, result))

    def refuse(self, request_id: Any, error: HostError) -> None:
        """Keep the refusal."""
        self.answers.append((request_id, error.message_primary))


def make(sent: list[Message]) -> Any:
    """Return Openings that talk to nobody; of any type, because the callers are stand-ins."""
    return Openings(lambda message: sent.append(message) is None)


def test_answer_reaches_who_asked() -> None:
    """C18: each answer goes to its own request, once; a worker's word and its end close what it asked for, once."""
    sent: list[Message] = []
    openings, first, second = make(sent), Caller(), Caller()
    openings.ask(first, 11, "shut", "a")
    openings.ask(second, 22, "shut", "b")
    assert [(message["type"], message["id"], message["worker"]) for message in sent] == [
        ("open_database", 1, "a"),
        ("open_database", 2, "b"),
    ]
    for _ in range(2):
        openings.answered({"type": "database_opened", "id": 2, **ANSWER})
    openings.answered({"type": "database_opened", "id": 9, **ANSWER})
    assert (first.answers, second.answers) == ([], [(22, ANSWER)])
    sent.clear()
    for _ in range(2):
        openings.over(second)
    assert sent == [{"type": "close_database", "id": 2}]


def test_one_for_each_worker() -> None:
    """C18: a second request of the same worker is refused until it has said that the first is over."""
    openings, caller = make([]), Caller()
    openings.ask(caller, 1, "shut", "a")
    with pytest.raises(ProtocolError):
        openings.ask(caller, 2, "shut", "a")
    openings.over(caller)
    openings.ask(caller, 3, "shut", "a")


def test_next_database_process_is_asked_again() -> None:
    """C18: what a database process that died has not answered is asked of the next one; what it has answered is not."""
    sent: list[Message] = []
    openings, first, second = make(sent), Caller(), Caller()
    openings.ask(first, 1, "shut", "a")
    openings.ask(second, 2, "other", "b")
    openings.answered({"type": "database_opened", "id": 1, **ANSWER})
    sent.clear()
    openings.ask_again()
    assert [message["database"] for message in sent] == ["other"]
    openings.refuse_all("the host is shutting down")
    openings.refuse_all("the host is shutting down")
    assert second.answers == [(2, "could not open database: the host is shutting down")]


@pytest.mark.parametrize(
    ("worker", "flags", "database"),
    [("worker", BGWORKER_SHMEM_ACCESS, True), ("worker", DATABASE_WORKER_FLAGS, False)],
)
def test_only_database_workers_may_ask(worker: Any, flags: int, database: bool) -> None:
    """C18: a worker that may not connect is refused; clients of the socket have no right to the method at all."""
    registered = BackgroundWorker(bgw_name="a", bgw_flags=flags, bgw_library_name="l", bgw_function_name="f")
    slots = [SimpleNamespace(state=SlotState.STARTED, worker=registered)]
    sent: list[Message] = []
    host: Any = SimpleNamespace(
        machine=SimpleNamespace(slots=slots), database=SimpleNamespace(openings=make(sent)) if database else None
    )
    client: Any = Caller()
    requests.serve(host, client, {"id": 1, "method": "open_database", "params": {"database": "shut"}})
    assert client.answers == [(1, 'permission denied for "open_database": only background workers may ask for it')]
    caller: Any = Caller(SimpleNamespace(life=SimpleNamespace(slotno=0)) if worker else None)
    requests.serve(host, caller, {"id": 1, "method": "open_database", "params": {"database": "shut"}})
    assert caller.answers == [(1, "only background workers with a database connection may ask for this")]
    assert sent == []
    requests.serve(host, caller, {"id": 2, "method": "close_database", "params": {}})
    assert caller.answers[1:] == [(2, {})]


def test_next_host_asks_for_what_was_not_answered() -> None:
    """What waits for its answer when the host executes itself anew is asked again; what is open holds that up."""
    openings, waiting, connecting = make([]), Caller(), Caller()
    openings.ask(connecting, 1, "shut", "a")
    assert not openings.has_open
    openings.answered({"type": "database_opened", "id": 1, **ANSWER})
    assert openings.has_open
    openings.over(connecting)
    openings.ask(waiting, 7, "shut", "b")
    sent: list[Message] = []
    again = make(sent)
    for caller, carried in openings.carry():
        again.resume(caller, carried)
    again.ask_again()
    assert [(message["database"], message["worker"]) for message in sent] == [("shut", "b")]
    again.answered({"type": "database_opened", "id": sent[0]["id"], **ANSWER})
    assert waiting.answers == [(7, ANSWER)]
