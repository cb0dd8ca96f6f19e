"""What surrounds the login of the worker's connection: a database opened for it, the role it becomes, what it may write.

The steps are generators of statements, so that the blocking and the asynchronous connection
share them: each yields a query and is sent the row. Imported by ``connection``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from bgworker._worker.refusals import UsageError
from bgworker.errors import HostError

if TYPE_CHECKING:
    import psycopg

    from bgworker._worker.connection import Plan
    from bgworker._worker.runtime import Runtime

    Steps = Generator[Any, Any, None]

#: How long the database process may take to open a database; it gives up after 30 s itself, and another after a restart.
OPENING_TIMEOUT: Final = 90.0

_LOOK: Final = "SELECT pg_catalog.pg_backend_pid() = %s, (SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = %s)"
_MAY_CONNECT: Final = (
    "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CONNECT'), pg_catalog.current_database()"
)
#: Behind a pooler the session is not ours alone: its backend is not the one that we logged in to, and must be left as it is.
#: What the url's own options say about it stays, too.
_MAKE_READ_ONLY: Final = """
    SELECT source = 'client', CASE WHEN source <> 'client' AND pg_catalog.pg_backend_pid() = %s
           THEN pg_catalog.set_config('default_transaction_read_only', 'on', false) END
      FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'"""

#: libpq does not tell the SQLSTATE of a refused login; these are the server's words for those that a worker meets (postinit.c).
_REFUSALS: Final = (
    (" is not currently accepting connections", "55000"),
    ("cannot connect to invalid database ", "55000"),
    ("permission denied for database ", "42501"),
    (" is not permitted to log in", "28000"),
    ("no pg_hba.conf entry for ", "28000"),
    ("password authentication failed for ", "28P01"),
    ("too many connections for ", "53300"),
    ("sorry, too many clients already", "53300"),
    ("remaining connection slots are reserved", "53300"),
    ("the database system is ", "57P03"),
)


def name_sqlstate(error: psycopg.Error) -> None:
    """Give the error of a refused login its SQLSTATE, if the server said in English what is wrong. Its class stays psycopg's."""
    _before, _fatal, words = str(error).partition("FATAL:")
    if error.sqlstate is not None or not words:
        return
    first = words.splitlines()[0]
    state = next((state for text, state in _REFUSALS if text in first), None)
    if state is None and first.endswith(" does not exist"):
        state = "3D000" if first.strip().startswith("database ") else "28000"
    if state is not None:
        error.sqlstate = state


def raise_if_refused(answer: dict[str, Any]) -> None:
    """Raise what the database process says in place of opening a database.

    Raises:
        psycopg.Error: The server refused, or would; of the class of its SQLSTATE.
        HostError: The reason is another.
    """
    if not (primary := str(answer.get("error", ""))):
        return
    detail, hint = str(answer.get("detail", "")), str(answer.get("hint", ""))
    if not (state := str(answer.get("sqlstate", ""))):
        raise HostError(primary, detail, hint)
    raise server_error(state, primary, detail, hint)


def server_error(sqlstate: str, primary: str, detail: str = "", hint: str = "") -> psycopg.Error:
    """Return psycopg's error of this SQLSTATE, worded as psycopg words those of the server."""
    from psycopg import OperationalError, errors

    try:
        kind: type[psycopg.Error] = errors.lookup(sqlstate)
    except KeyError:
        kind = OperationalError
    lines = [primary, f"DETAIL:  {detail}" if detail else "", f"HINT:  {hint}" if hint else ""]
    error = kind("\n".join(line for line in lines if line))
    error.sqlstate = sqlstate
    return error


def close_database(runtime: Runtime) -> None:
    """Tell the host that the login is over. Without waiting: if it does not arrive, the host and a deadline see to it."""
    try:
        runtime.channel.begin("close_database", {}, lambda: None)
    except HostError:
        pass


def steps(runtime: Runtime, wanted: Plan, backend_pid: int) -> Steps:
    """Become the role and default to read-only, as planned.

    Yields queries with their parameters, and is sent the rows; then None; and last, whether psycopg has to begin
    transactions as READ ONLY itself (True), because the session cannot be told, or leaves that to the server (None).

    Raises:
        psycopg.Error: The role may not do this.
    """
    if wanted.session_role is not None:
        yield from _become(runtime, wanted, wanted.session_role, backend_pid)
    begins_read_only = None
    if wanted.is_read_only:
        is_chosen, setting = yield _MAKE_READ_ONLY, (backend_pid,)
        begins_read_only = True if not is_chosen and setting is None else None
    yield None
    yield begins_read_only


def _become(runtime: Runtime, wanted: Plan, role: str, backend_pid: int) -> Steps:
    from psycopg import sql

    is_own_session, may_log_in = yield _LOOK, (backend_pid, role)
    if not is_own_session:
        # Its server session is handed to other clients, and would have the role there.
        raise UsageError(
            f'background worker "{runtime.worker.bgw_name}" cannot become role "{role}" through a connection pooler',
            "A bypass flag changes the role of the session, and a pooler shares sessions among its clients.",
            "Let [database] url name the server itself, or leave the flag out.",
        )
    if wanted.must_log_in and not may_log_in:
        raise server_error("28000", f'role "{role}" {"does not exist" if may_log_in is None else "is not permitted to log in"}')
    # The login role is a superuser; what it gives up here, RESET SESSION AUTHORIZATION would give back.
    yield sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)), None
    if wanted.must_connect:
        # Refuse what the role could not have connected to, had it logged in: the bypass is for the login alone.
        may_connect, database = yield _MAY_CONNECT, None
        if not may_connect:
            raise server_error("42501", f'permission denied for database "{database}"', "User does not have CONNECT privilege.")


def needs_superuser(runtime: Runtime, wanted: Plan, error: psycopg.Error) -> psycopg.Error:
    """Return what to raise in place of the server's refusal to become the role: which right is missing, and what to do."""
    said = error.diag.message_primary or str(error)
    return server_error(
        str(error.sqlstate),
        f'background worker "{runtime.worker.bgw_name}" cannot run as role "{wanted.session_role}": '
        "the configured role is no superuser",
        f"With a bypass flag the worker logs in as the configured role and becomes the other one; that needs SUPERUSER. "
        f"The server said: {said}.",
        "Name a superuser in [database] url, or let the role log in and leave the flag out.",
    )
