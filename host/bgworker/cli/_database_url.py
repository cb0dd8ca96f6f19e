"""Where the database of a host is, for the verbs that talk to it: ``psql``, ``notify``, ``listen``.

An embedded server is known to its running host alone. An external one is known to workers.toml,
password included, and can be reached while the host is down. The url never gets into a message.
"""

from __future__ import annotations

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
        raise HostError("the embedded database does not run yet", f"{database.get('detail') or 'It is starting'}.".capitalize())
    return str(database["url"])


def _configured_url(invocation: Invocation, is_direct: bool) -> str | None:
    """Return the url of workers.toml; None if it has none of its own."""
    database = invocation.configuration().database
    if database is None or database.url == "embedded":
        return None
    return str((is_direct and database.direct_url) or database.url)


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
        raise HostError(
            "the database cannot be reached without psycopg",
            f"{type(error).__name__}: {error}.",
            'Install it with: pip install "bgworker[postgres]"',
        ) from None
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


def refused(what: str, error: Exception) -> HostError:
    """Return an error of psycopg as one of ours: the server's own words, on one line."""
    diagnostic = getattr(error, "diag", None)
    message = getattr(diagnostic, "message_primary", None) or " ".join(str(error).split()) or type(error).__name__
    detail, hint = getattr(diagnostic, "message_detail", None) or "", getattr(diagnostic, "message_hint", None) or ""
    return HostError(f"{what}: {message.rstrip('.')}", detail, hint)
