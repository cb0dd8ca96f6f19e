"""The rules of the worker's one database connection (C06, C15-C19); psycopg is imported at the first use.

Two steps, so that the blocking and the asynchronous connection share the first: ``plan()``
says how to connect or why not, the second connects and sets the session up. Errors of the
server are psycopg's own and reach the worker unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bgworker._worker import logins, singleton
from bgworker._worker.refusals import UsageError

if TYPE_CHECKING:
    from bgworker._worker.database import AsyncWorkerConnection, WorkerConnection
    from bgworker._worker.runtime import Runtime

# The values of bgworker.h.
#: Connect also to a database with datallowconn = false (C18).
BGWORKER_BYPASS_ALLOWCONN: Final = 0x0001
#: Run as a role that may not log in (C19).
BGWORKER_BYPASS_ROLELOGINCHECK: Final = 0x0002

_ROLE_OF_OID: Final = "SELECT rolname FROM pg_roles WHERE oid = %s"
_DATABASE_OF_OID: Final = "SELECT datname FROM pg_database WHERE oid = %s"


class Plan(NamedTuple):
    """How to connect."""

    #: Has the password.
    conninfo: str
    parameters: dict[str, Any]
    #: The role to become after the login; None to stay who logged in.
    session_role: str | None
    #: The database to have opened for the login (C18), or None.
    opens: str | None = None
    #: Of the role that the session becomes: the tests of the server's that were not asked to be skipped.
    must_log_in: bool = False
    must_connect: bool = False
    #: No database was named: the session is for the shared catalogs, and does not write unless it says so (C16).
    is_read_only: bool = False


def plan(runtime: Runtime, dbname: str | None, username: str | None, flags: int, *, read_write: bool = False) -> Plan:
    """Check that the worker may connect now, and return how.

    Args:
        runtime: The worker.
        dbname: The database; None for the configured one, read-only.
        username: The role; None for the configured one.
        flags: The bypasses.
        read_write: The configured database is what is wanted: None is not read-only.

    Raises:
        UsageError: The worker has no right to a connection, has one already, or gave an argument that means nothing.
    """
    check_may_connect(runtime)
    if flags & ~(BGWORKER_BYPASS_ALLOWCONN | BGWORKER_BYPASS_ROLELOGINCHECK):
        raise UsageError("connection was asked for with flags that do not exist", f"The value is {flags:#x}.")
    for value, kind in ((dbname, "database"), (username, "role")):
        if value == "":
            raise UsageError(f"{kind} name is empty", message_hint=f"Give None for the {kind} that is configured.")
    assert runtime.database is not None
    # Shown in pg_stat_activity, cut there to 63 bytes.
    parameters: dict[str, Any] = {"application_name": runtime.worker.bgw_name}
    if dbname is not None:
        parameters["dbname"] = dbname
    role = username or runtime.database.role
    # Both bypasses log in as the configured role: to an opened database the server lets none but superusers.
    by_login = not flags or username is None
    if by_login and role is not None:
        parameters["user"] = role
    if not flags:
        conninfo = runtime.database.conninfo
        if runtime.database.is_pooled:
            # A statement is prepared in one session, and would be executed in another.
            parameters["prepare_threshold"] = None
    else:
        # Another client of the pooler would be this role in its next transaction.
        conninfo = runtime.database.session_conninfo("connection with a bypass flag")
    return Plan(
        conninfo,
        parameters,
        None if by_login else username,
        opens=dbname if flags & BGWORKER_BYPASS_ALLOWCONN else None,
        must_log_in=not flags & BGWORKER_BYPASS_ROLELOGINCHECK,
        # As in CheckMyDatabase: ALLOWCONN overrides the privilege, too.
        must_connect=not flags & BGWORKER_BYPASS_ALLOWCONN,
        is_read_only=dbname is None and not read_write,
    )


def check_may_connect(runtime: Runtime) -> None:
    """Check the flag, the database and that there is no connection yet.

    Raises:
        UsageError: One of them forbids a connection.
    """
    name = runtime.worker.bgw_name
    if not runtime.worker.is_database_worker:
        raise UsageError(
            f'background worker "{name}" cannot connect to a database: it was registered without the flag for it',
            "BGWORKER_BACKEND_DATABASE_CONNECTION is not in its bgw_flags.",
            "Register it with bgw_flags=DATABASE_WORKER_FLAGS, or in workers.toml with "
            'bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"].',
        )
    if runtime.database is None:
        raise UsageError(
            f'background worker "{name}" cannot connect to a database: it was given none',
            message_hint="Add [database] to workers.toml. An embedded one runs only while its host does: bgworker run.",
        )
    is_connected = runtime.connection is not None or runtime.async_connection is not None
    if is_connected and not runtime.has_unclaimed_connection:
        raise UsageError(
            f'background worker "{name}" has connected to a database already',
            "A worker connects once in its life, and cannot switch databases.",
            "Register one worker for each database.",
        )


def connect(runtime: Runtime, wanted: Plan) -> WorkerConnection:
    """Open the blocking connection. SIGTERM raises Terminated in here as in plain code."""
    if runtime.has_unclaimed_connection and runtime.connection is not None:
        singleton.claim(runtime, wanted, runtime.connection)
        runtime.connection.read_only = wanted.is_read_only or None
        return runtime.connection
    psycopg = _import_psycopg(runtime)
    from bgworker._worker.database import WorkerConnection

    try:
        if wanted.opens is not None:
            answer = runtime.channel.request("open_database", {"database": wanted.opens}, logins.OPENING_TIMEOUT)
            logins.raise_if_refused(answer)
        connection = WorkerConnection.connect(wanted.conninfo, autocommit=True, **wanted.parameters)
    except psycopg.Error as error:
        logins.name_sqlstate(error)
        raise
    finally:
        if wanted.opens is not None:
            logins.close_database(runtime)
    try:
        steps, row = logins.steps(runtime, wanted, connection.info.backend_pid), None
        while (step := steps.send(row)) is not None:
            try:
                cursor = connection.execute(*step)
            except psycopg.errors.InsufficientPrivilege as error:
                raise logins.needs_superuser(runtime, wanted, error) from None
            row = cursor.fetchone() if cursor.description else None
        connection.read_only = next(steps)
    except BaseException:
        connection.close()
        raise
    connection.adopt(runtime)
    runtime.connection = connection
    return connection


async def connect_async(runtime: Runtime, wanted: Plan) -> AsyncWorkerConnection:
    """Open the asynchronous connection. NB: similar code in connect()."""
    if runtime.has_unclaimed_connection and runtime.async_connection is not None:
        singleton.claim(runtime, wanted, runtime.async_connection)
        await runtime.async_connection.set_read_only(wanted.is_read_only or None)
        return runtime.async_connection
    psycopg = _import_psycopg(runtime)
    from bgworker._worker.database import AsyncWorkerConnection

    assert runtime.async_part is not None
    try:
        if wanted.opens is not None:
            asked = {"database": wanted.opens}
            logins.raise_if_refused(await runtime.async_part.request("open_database", asked, logins.OPENING_TIMEOUT))
        connection = await AsyncWorkerConnection.connect(wanted.conninfo, autocommit=True, **wanted.parameters)
    except psycopg.Error as error:
        logins.name_sqlstate(error)
        raise
    finally:
        if wanted.opens is not None:
            logins.close_database(runtime)
    try:
        steps, row = logins.steps(runtime, wanted, connection.info.backend_pid), None
        while (step := steps.send(row)) is not None:
            try:
                cursor = await connection.execute(*step)
            except psycopg.errors.InsufficientPrivilege as error:
                raise logins.needs_superuser(runtime, wanted, error) from None
            row = await cursor.fetchone() if cursor.description else None
        await connection.set_read_only(next(steps))
    except BaseException:
        await connection.close()
        raise
    connection.adopt(runtime)
    runtime.async_connection = connection
    return connection


def names_of(runtime: Runtime, dboid: int, useroid: int) -> tuple[str | None, str | None]:
    """Look names up by oid, over a short connection of its own; 0 gives None.

    Raises:
        psycopg.Error: There is no such database or role.
    """
    check_may_connect(runtime)
    if not dboid and not useroid:
        return None, None
    psycopg = _import_psycopg(runtime)
    assert runtime.database is not None
    with psycopg.connect(runtime.database.conninfo, autocommit=True, application_name=runtime.worker.bgw_name) as connection:
        database = connection.execute(_DATABASE_OF_OID, (dboid,)).fetchone() if dboid else None
        role = connection.execute(_ROLE_OF_OID, (useroid,)).fetchone() if useroid else None
    return _found(dboid, database, useroid, role)


async def names_of_async(runtime: Runtime, dboid: int, useroid: int) -> tuple[str | None, str | None]:
    """Look names up by oid. NB: similar code in names_of()."""
    check_may_connect(runtime)
    if not dboid and not useroid:
        return None, None
    psycopg = _import_psycopg(runtime)
    assert runtime.database is not None
    async with await psycopg.AsyncConnection.connect(
        runtime.database.conninfo, autocommit=True, application_name=runtime.worker.bgw_name
    ) as connection:
        database = await (await connection.execute(_DATABASE_OF_OID, (dboid,))).fetchone() if dboid else None
        role = await (await connection.execute(_ROLE_OF_OID, (useroid,))).fetchone() if useroid else None
    return _found(dboid, database, useroid, role)


def _found(dboid: int, database: Any, useroid: int, role: Any) -> tuple[str | None, str | None]:
    # As the server says it of a worker in C (InitPostgres, InitializeSessionUserId).
    if dboid and database is None:
        raise logins.server_error("3D000", f"database {dboid} does not exist")
    if useroid and role is None:
        raise logins.server_error("28000", f"role with OID {useroid} does not exist")
    return (database[0] if database else None), (role[0] if role else None)


def _import_psycopg(runtime: Runtime) -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise UsageError(
            f'background worker "{runtime.worker.bgw_name}" cannot connect to a database: psycopg cannot be imported',
            f"{error}.",
            'Install it: pip install "bgworker[postgres]".',
        ) from error
    return psycopg
