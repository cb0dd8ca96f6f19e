"""What stands at the end of a connection string: the server's version, and whether a transaction pooler stands before it.

Looked at by ``route`` each time the server has come (back), over connections of its own that
are closed at once. Never tries again by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from bgworker._database.conninfo import Parameters, without_secrets
from bgworker._database.pooling import BACKEND_PID, FIRST, SECOND, Question, is_transaction_pooler
from bgworker._database.session import Outcome, Session
from bgworker._database.waits import Waits

#: The version is asked in SQL: what a pooler announces in a server's place may be its own.
_QUESTION: Final = (
    f"SELECT {BACKEND_PID}, pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('server_version')"
).encode()


@dataclass(frozen=True)
class Finding:
    """What an inspection found."""

    #: As PostgreSQL counts: 180004, and 90624 before version 10.
    version_number: int
    #: As it is written, such as "15.10 (Debian 15.10-0+deb12u1)".
    version: str
    #: Each transaction may run in another session of the server.
    is_pooled: bool


class Inspection:
    """Looks once.

    Args:
        waits: The process's selector.
        parameters: Where to look.
        done: Called once with the finding, or with None and the reason.
    """

    def __init__(self, waits: Waits, parameters: Parameters, done: Callable[[Finding | None, str], None]) -> None:
        self._parameters = {**parameters, "application_name": "bgworker inspection", "client_encoding": "UTF8"}
        self._done = done
        self._sessions = Session(waits, self), Session(waits, self)
        #: Which of them connects, or is asked.
        self._turn: Question = FIRST
        self._questions: Generator[Question, int, bool] | None = None
        self._version_number = 0
        self._version = ""

    def begin(self) -> None:
        """Connect and ask."""
        self._sessions[FIRST].connect(self._parameters)

    def end(self) -> None:
        """Close what is open and say nothing more."""
        for session in self._sessions:
            session.close()

    # --- the sessions' news (SessionOwner) ---

    def session_ready(self) -> None:
        """Ask the one that has just connected."""
        if self._questions is None:
            self._questions = is_transaction_pooler(self._sessions[FIRST].key_pid)
            next(self._questions)  # asks the first for its pid
        self._sessions[self._turn].query(_QUESTION, self._answered)

    def session_lost(self, reason: str) -> None:
        """Give up."""
        self.end()
        self._done(None, without_secrets(reason, self._parameters))

    def session_notified(self, channel: str, payload: str) -> None:
        """Cannot happen: nothing LISTENs here. What a stranger's LISTEN left in a pooled session is not ours to hear."""

    # --- questions and answers ---

    def _answered(self, outcome: Outcome) -> None:
        assert self._questions is not None
        try:
            pid, number, version = outcome.rows[0]
            answer, self._version_number, self._version = int(pid or ""), int(number or ""), version or ""
        except (IndexError, ValueError):
            self.session_lost(outcome.error or "it does not answer as PostgreSQL does")
            return
        try:
            self._turn = self._questions.send(answer)
        except StopIteration as verdict:
            self.end()
            self._done(Finding(self._version_number, self._version, verdict.value), "")
            return
        if self._sessions[self._turn].is_connected:
            self.session_ready()
        else:
            assert self._turn == SECOND
            self._sessions[SECOND].connect(self._parameters)
