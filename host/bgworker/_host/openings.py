"""Requests for databases that allow no connections (C18): from worker to database process, and the answers back.

The host only passes on, and remembers who asked: a worker that goes, however it goes, gives its
database back, and what a database process that died has not answered is asked of the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bgworker._control.protocol import Message
from bgworker._host.callers import Caller
from bgworker.errors import HostError, ProtocolError


@dataclass
class _Asked:
    number: int
    #: Of the worker's request; None once it is answered.
    request_id: Any
    question: Message


class Openings:
    """At most one for each worker, from its request to its word, or its end.

    Args:
        send: To the database process; what it does not get while it is down is sent by ``ask_again``.
    """

    def __init__(self, send: Callable[[Message], bool]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._asked: dict[Caller, _Asked] = {}

    @property
    def has_open(self) -> bool:
        """Whether a database may be open for a worker's login at this moment."""
        return any(asked.request_id is None for asked in self._asked.values())

    def carry(self) -> list[tuple[Caller, dict[str, Any]]]:
        """Return who has asked, and what has not been answered; nothing is open."""
        return [(caller, {"request_id": asked.request_id, "question": asked.question}) for caller, asked in self._asked.items()]

    def resume(self, caller: Caller, carried: Mapping[str, Any]) -> None:
        """Take back one of those; the next database process is asked."""
        if carried["request_id"] is not None:
            number = next(self._numbers)
            self._asked[caller] = _Asked(number, carried["request_id"], {**carried["question"], "id": number})

    def ask(self, caller: Caller, request_id: Any, database: str, worker: str) -> None:
        """Pass a worker's request on; it is answered later.

        Raises:
            ProtocolError: It has asked already.
        """
        if caller in self._asked:
            raise ProtocolError("this background worker has asked for a database already")
        number = next(self._numbers)
        question = {"type": "open_database", "id": number, "database": database, "worker": worker}
        self._asked[caller] = _Asked(number, request_id, question)
        self._send(question)

    def answered(self, message: Message) -> None:
        """Pass the database process's answer on; a number that nobody has is that of a worker that has gone."""
        for caller, asked in self._asked.items():
            if asked.number == message["id"] and asked.request_id is not None:
                request_id, asked.request_id = asked.request_id, None
                caller.reply(request_id, {key: message[key] for key in ("error", "sqlstate", "detail", "hint")})
                return

    def over(self, caller: Caller) -> None:
        """Have the worker's database closed again, if it asked for one: it has connected, given up, or gone."""
        asked = self._asked.pop(caller, None)
        if asked is not None:
            self._send({"type": "close_database", "id": asked.number})

    def ask_again(self) -> None:
        """Ask a new database process what the one before it has left unanswered; what that one had open is closed by itself."""
        for asked in self._asked.values():
            if asked.request_id is not None:
                self._send(asked.question)

    def refuse_all(self, why: str) -> None:
        """Answer whoever waits with an error."""
        for caller, asked in self._asked.items():
            if asked.request_id is not None:
                request_id, asked.request_id = asked.request_id, None
                caller.refuse(request_id, HostError(f"could not open database: {why}"))
