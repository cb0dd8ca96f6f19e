"""The rules of the worker's one database connection (C06, C15-C19); psycopg is imported at the first use.

Two steps, so that the blocking and the asynchronous connection share the first: ``plan()``
says how to connect or why not, the second connects and sets the session up. Errors of the
server are psycopg's own and reach the worker unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bgworker._worker import singleton
from bgworker._worker.refusals import UsageError
from bgworker.errors import RegistrationError

if TYPE_CHECKING:
    import psycopg

    from bgworker._worker.database import AsyncWorkerConnection, WorkerConnection
    from bgworker._worker.runtime import Runtime

# The values of bgworker.h.
#: Connect also to a database with datallowconn = false (C18).
BGWORKER_BYPASS_ALLOWCONN: Final = 0x0001
#: Run as a role that may not log in (C19).
BGWORKER_BYPASS_ROLELOGINCHECK: Final = 0x0002

_ROLE_OF_OID: Final = "SELECT rolname FROM pg_roles WHERE oid = %s"
_DATABASE_OF_OID: Final = "SELECT datname FROM pg_database WHERE oid = %s"
_MAY_CONNECT: Final = "SELECT has_database_privilege(current_database(), 'CONNECT'), current_database()"


class Plan(NamedTuple):
    """How to connect."""

    #: Has the password.
    conninfo: str
    parameters: dict[str, Any]
    #: The role to become after the login; None to stay who logged in.
    session_role: str | None


def plan(runtime: Runtime, dbname: str | None, username: str | None, flags: int) -> Plan:
    """Check that the worker may connect now, and return how.

    Raises:
        UsageError: The worker has no right to a connection, has one already, or gave an argument that means nothing.
        RegistrationError: It asks for what this version cannot do.
    """
    check_may_connect(runtime)
    if flags & ~(BGWORKER_BYPASS_ALLOWCONN | BGWORKER_BYPASS_ROLELOGINCHECK):
        raise UsageError("connection was asked for with flags that do not exist", f"The value is {flags:#x}.")
    if flags & BGWORKER_BYPASS_ALLOWCONN:
        raise RegistrationError(
            "BGWORKER_BYPASS_ALLOWCONN is not available yet",
            "This version cannot connect to a database that allows no connections.",
            "Allow them meanwhile: ALTER DATABASE ... ALLOW_CONNECTIONS true.",
        )
    for value, kind in ((dbname, "database"), (username, "role")):
        if value == "":
            raise UsageError(f"{kind} name is empty", message_hint=f"Give None for the {kind} that is configured.")
    assert runtime.database is not None
    # Shown in pg_stat_activity, cut there to 63 bytes.
    parameters: dict[str, Any] = {"application_name": runtime.worker.bgw_name}
    if dbname is not None:
        parameters["dbname"] = dbname
    role = username or runtime.database.role
    by_login = not (flags & BGWORKER_BYPASS_ROLELOGINCHECK and username is not None)
    if by_login and role is not None:
        parameters["user"] = role
    return Plan(runtime.database.conninfo, parameters, None if by_login else username)


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
        return runtime.connection
    _import_psycopg(runtime)
    from bgworker._worker.database import WorkerConnection

    connection = WorkerConnection.connect(wanted.conninfo, autocommit=True, **wanted.parameters)
    try:
        if wanted.session_role is not None:
            connection.execute(_become(wanted.session_role))
            _check_privilege(connection.execute(_MAY_CONNECT).fetchone())
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
        return runtime.async_connection
    _import_psycopg(runtime)
    from bgworker._worker.database import AsyncWorkerConnection

    connection = await AsyncWorkerConnection.connect(wanted.conninfo, autocommit=True, **wanted.parameters)
    try:
        if wanted.session_role is not None:
            await connection.execute(_become(wanted.session_role))
            _check_privilege(await (await connection.execute(_MAY_CONNECT)).fetchone())
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
    from psycopg import errors

    # As the server says it of a worker in C (InitPostgres, InitializeSessionUserId).
    if dboid and database is None:
        raise errors.InvalidCatalogName(f"database {dboid} does not exist")
    if useroid and role is None:
        raise errors.InvalidAuthorizationSpecification(f"role with OID {useroid} does not exist")
    return (database[0] if database else None), (role[0] if role else None)


def _become(role: str) -> psycopg.sql.Composed:
    from psycopg import sql

    # The login role is a superuser; what it gives up here, RESET SESSION AUTHORIZATION would give back.
    return sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role))


def _check_privilege(row: Any) -> None:
    """Refuse a database that the role could not have connected to, had it logged in: the bypass is for the login alone."""
    from psycopg import errors

    may_connect, database = row
    if not may_connect:
        raise errors.InsufficientPrivilege(f'permission denied for database "{database}"')


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
