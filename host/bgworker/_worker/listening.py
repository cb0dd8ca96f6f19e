"""LISTEN in a worker: refused by the server's command tag and undone (C27).

The cursor sees the tags of whatever it sends - one statement or several, prepared, in a
pipeline, for many parameters, for COPY - and notes a LISTEN on the connection; the wait that
drives the statement then sends UNLISTEN and raises. A LISTEN inside a DO block or a function has
no tag: it is found by its first notification, which ends the worker.

Imported by ``database`` and ``watched`` alone, which import psycopg.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import psycopg

from bgworker._worker.interrupts import Ending
from bgworker._worker.refusals import UsageError

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

_LISTEN_HINT: Final = "Name the channel in the registration's wake_on: its notifications then set the worker's latch."


def refused_listen() -> UsageError:
    """Return the error of a worker that LISTENs."""
    return UsageError(
        "a background worker cannot LISTEN on its own connection",
        "Nothing would wake it when a notification arrives. The command has been undone.",
        _LISTEN_HINT,
    )


def ending_of_listener(name: str, channel: str) -> Ending:
    """Return why a worker ends whose LISTEN nobody saw until a notification came."""
    return Ending(
        f'terminating background worker "{name}" because it listens on channel "{channel}"',
        "A notification arrived on the worker's own connection, where nothing wakes the worker for it.",
        _LISTEN_HINT,
        for_host=f'it listens on channel "{channel}" itself; name it in wake_on',
    )


class RefusesListen:
    """Mixed into psycopg's cursors, before them: looks at the tag of every result."""

    __slots__ = ()

    _conn: Any

    def _check_results(self, results: list[PGresult]) -> None:
        self._look_at(results)
        super()._check_results(results)  # type: ignore[misc]

    def _check_copy_result(self, result: PGresult) -> None:
        self._look_at([result])
        super()._check_copy_result(result)  # type: ignore[misc]

    def _stream_fetchone_gen(self, first: bool) -> PQGen[PGresult | None]:
        try:
            result: PGresult | None = yield from super()._stream_fetchone_gen(first)  # type: ignore[misc]
        except psycopg.ProgrammingError:
            # A statement without rows; psycopg keeps its tag to itself, and to undo a LISTEN that was none does no harm.
            self._conn.note_listen(is_certain=False)
            raise
        return result

    def _look_at(self, results: Iterable[PGresult]) -> None:
        for result in results:  # nearly always one: a generator would cost more than the look
            if result.command_status == b"LISTEN":
                self._conn.note_listen(is_certain=True)


def refusing(factory: type) -> type:
    """Return the class of cursors, one that an author has chosen included, made to refuse LISTEN."""
    if issubclass(factory, RefusesListen):
        return factory
    return type(factory.__name__, (RefusesListen, factory), {"__slots__": ()})
