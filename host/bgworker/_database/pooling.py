"""Whether a server's address leads to a transaction pooler: the questions to ask, and what the answers mean.

Pure; ``inspection`` asks without blocking, the commands' ``listen`` asks with psycopg. A
pooler makes up the key that lets a client cancel its queries, so the pid in that key is not
the one of the session in the server. Session poolers do so as well; but a transaction
pooler takes the session away after each transaction, and gives it to whoever asks next.
Nothing is left behind by these questions: no setting, no lock, no prepared statement.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

#: To ask in a transaction of its own.
BACKEND_PID: Final = "pg_catalog.pg_backend_pid()"
#: More rounds make a pooler whose other clients take the session in between less likely to be missed.
_ROUNDS: Final = 3

#: Which of two connections to ask for its session's pid: the first or the second.
Question = int
FIRST: Final = 0
SECOND: Final = 1


def is_transaction_pooler(key_pid: int) -> Generator[Question, int, bool]:
    """Yield who is to be asked for ``BACKEND_PID``, take the answer, and return the verdict.

    The second connection is needed only behind a pooler; it must be open together with the first.

    Args:
        key_pid: The pid in the first connection's cancel key (libpq: PQbackendPID).
    """
    first = yield FIRST
    if first == key_pid:
        return False
    for _ in range(_ROUNDS):
        # In a server, or behind a session pooler, two open connections never have the same session ...
        if (second := (yield SECOND)) == first:
            return True
        # ... and none of them gets another.
        if (yield FIRST) != first:
            return True
        # The next round begins with the second, too: strictly in turn, to whom two sessions are given in turn, each of
        # the two would seem to keep its own.
        if (yield SECOND) != second:
            return True
    return False
