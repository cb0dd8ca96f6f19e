"""Where the database of a host is, for the verbs that talk to it: ``psql``, ``pg``, ``notify``, ``listen``.

An embedded server is known to its running host alone. An external one is known to workers.toml,
password included, and can be reached while the host is down. The url never gets into a message.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bgworker.cli._invocation import Invocation
from bgworker.errors import ConfigurationError, HostError, HostNotRunning

if TYPE_CHECKING:
    import psycopg


def database_url(invocation: Invocation, *, is_direct: bool = False) -> str:
    """Return the url of the host's database, with its password if workers.toml has one.

    Args:
        invocation: Names the host.
        is_direct: Whether a pooler must be passed by, which LISTEN needs.

    Raises:
        HostNotRunning: Only a running host knows.
        ConfigurationError: There is no database.
        HostError: The embedded server does not run yet, or no more.
    """
    try:
        with invocation.connect() as client:
            database: dict[str, Any] | None = client.status()["host"].get("database")
    except HostNotRunning:
        url = _configured_url(invocation, is_direct)
        if url is None:
            raise
        return url
    if database is None:
        raise ConfigurationError(
            "this host has no database",
            "Its workers.toml has no [database] table.",
            'Add [database] with url = "embedded" or a postgresql:// URL, then start the host again.',
        )
    if database.get("kind") != "embedded":
        # The host tells nobody the password; whoever may read workers.toml has it.
        return _configured_url(invocation, is_direct) or str(database["url"])
    if not database.get("url"):
        detail = str(database.get("detail") or "it is starting")
        raise HostError("the embedded database does not run yet", f"{detail[:1].upper()}{detail[1:]}.")
    return str(database["url"])


def _configured_url(invocation: Invocation, is_direct: bool) -> str | None:
    """Return the url of workers.toml; None if it has none of its own."""
    database = invocation.configuration().database
    if database is None or database.url == "embedded":
        return None
    return str((is_direct and database.direct_url) or database.url)


def environment_of(url: str) -> dict[str, str]:
    """Return this process's environment with the url in libpq's variables, for a program of PostgreSQL.

    Arguments can be read by every user of the machine, the environment only by this one. And an
    option of the program changes one thing then: with -d it is another database of the same server.

    Raises:
        HostError: psycopg is missing.
        ConfigurationError: It cannot be read, or holds a secret for which there is no variable.
    """
    from bgworker._database.conninfo import SECRETS, parse

    try:
        from psycopg import pq
    except ImportError as error:
        raise _without_psycopg(error) from None
    # What libpq cannot read it would quote, password and all.
    parse(url)
    # As it is written: a service file is the program's own to read.
    options = [option for option in pq.Conninfo.parse(url.encode()) if option.val is not None]
    if others := sorted(SECRETS & {option.keyword.decode() for option in options if not option.envvar}):
        raise ConfigurationError(
            f"PostgreSQL's programs cannot be given {' and '.join(others)} of the database url",
            "It would stand in their arguments, which every user of the machine can read.",
            "Put it in a service file (~/.pg_service.conf), and service=NAME in the url.",
        )
    told = {option.envvar.decode(): option.val.decode() for option in options if option.envvar and option.val is not None}
    return {**os.environ, **told}


def open_connection(url: str) -> psycopg.Connection[Any]:
    """Return an autocommit connection, with the keepalives and timeouts that the host's own connections have.

    Raises:
        ConfigurationError: The url cannot be read.
        HostError: psycopg is missing, or the server refuses.
    """
    from bgworker._database.conninfo import keyword_string, parse, with_defaults

    try:
        import psycopg
    except ImportError as error:
        raise _without_psycopg(error) from None
    # Read by us, because libpq quotes what it cannot read, and that may be a piece of the password.
    conninfo = keyword_string(with_defaults(parse(url)))
    try:
        # A prepared statement would outlive its transaction, and behind a pooler that is all we have.
        return psycopg.connect(conninfo, autocommit=True, application_name="bgworker command line", prepare_threshold=None)
    except psycopg.Error as error:
        raise refused("could not connect to the database", error) from None


def leads_to_transaction_pooler(url: str, connection: psycopg.Connection[Any]) -> bool:
    """Whether a connection, which was made with this url, may get another session of the server for each transaction.

    Raises:
        HostError: The server refuses a second connection, or its answer.
    """
    import psycopg

    from bgworker._database.pooling import BACKEND_PID, FIRST, is_transaction_pooler

    second: psycopg.Connection[Any] | None = None
    questions = is_transaction_pooler(connection.pgconn.backend_pid)
    turn = next(questions)
    try:
        while True:
            if turn != FIRST and second is None:
                second = open_connection(url)
            asked = connection if turn == FIRST or second is None else second
            row = asked.execute(f"SELECT {BACKEND_PID}").fetchone()
            turn = questions.send(int(row[0]) if row else 0)
    except StopIteration as verdict:
        return bool(verdict.value)
    except psycopg.Error as error:
        raise refused("could not ask the database for its session", error) from None
    finally:
        if second is not None:
            second.close()


def _without_psycopg(error: ImportError) -> HostError:
    return HostError(
        "the database cannot be reached without psycopg",
        f"{type(error).__name__}: {error}.",
        'Install it with: pip install "bgworker[postgres]"',
    )


def refused(what: str, error: Exception) -> HostError:
    """Return an error of psycopg as one of ours: the server's own words, on one line."""
    diagnostic = getattr(error, "diag", None)
    message = getattr(diagnostic, "message_primary", None) or " ".join(str(error).split()) or type(error).__name__
    detail, hint = getattr(diagnostic, "message_detail", None) or "", getattr(diagnostic, "message_hint", None) or ""
    return HostError(f"{what}: {message.rstrip('.')}", detail, hint)
