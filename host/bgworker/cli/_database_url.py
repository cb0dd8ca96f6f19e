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
    """Return an autocommit connection.

    Raises:
        HostError: psycopg is missing, or the server refuses.
    """
    try:
        import psycopg
    except ImportError as error:
        raise HostError(
            "the database cannot be reached without psycopg",
            f"{type(error).__name__}: {error}.",
            'Install it with: pip install "bgworker[postgres]"',
        ) from None
    try:
        return psycopg.connect(url, autocommit=True, application_name="bgworker command line")
    except psycopg.Error as error:
        raise refused("could not connect to the database", error) from None


def refused(what: str, error: Exception) -> HostError:
    """Return an error of psycopg as one of ours: the server's own words, on one line."""
    diagnostic = getattr(error, "diag", None)
    message = getattr(diagnostic, "message_primary", None) or " ".join(str(error).split()) or type(error).__name__
    detail, hint = getattr(diagnostic, "message_detail", None) or "", getattr(diagnostic, "message_hint", None) or ""
    return HostError(f"{what}: {message.rstrip('.')}", detail, hint)
