"""What surrounds the login, before and without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from bgworker import worker
from bgworker._worker import logins
from bgworker._worker.connection import connect, plan
from bgworker._worker.refusals import UsageError
from bgworker._worker.runtime import Runtime
from bgworker.errors import HostError

FAILED = 'connection failed: connection to server at "db" (10.0.0.1), port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    ("words", "sqlstate"),
    [
        ('database "closed" is not currently accepting connections', "55000"),
        ('database "no" does not exist', "3D000"),
        ('role "no" does not exist', "28000"),
        ('role "no" is not permitted to log in', "28000"),
        ('permission denied for database "closed"\nDETAIL:  User does not have CONNECT privilege.', "42501"),
        ('too many connections for database "closed"', "53300"),
        ('password authentication failed for user "anna"', "28P01"),
        ("the database system is starting up", "57P03"),
        ("base de données « closed » : les connexions sont refusées", None),
        ("something new", None),
    ],
)
def test_sqlstate_of_a_refused_login(words: str, sqlstate: str | None) -> None:
    """C15, C18: libpq does not tell the SQLSTATE of a refused login, so the server's words do; the class stays."""
    error = psycopg.OperationalError(FAILED + words)
    logins.name_sqlstate(error)
    assert error.sqlstate == sqlstate
    assert type(error) is psycopg.OperationalError


def test_sqlstate_is_not_guessed() -> None:
    """Words of libpq's own and an SQLSTATE that is there are left alone."""
    unreachable = psycopg.OperationalError('connection failed: could not translate host name "role" does not exist')
    logins.name_sqlstate(unreachable)
    assert unreachable.sqlstate is None
    known = logins.server_error("55P03", FAILED + 'database "no" does not exist')
    logins.name_sqlstate(known)
    assert known.sqlstate == "55P03"


@pytest.mark.parametrize(
    ("row", "begins_read_only"),
    [
        ((False, "on"), None),  # our own session, and it has been told
        ((False, None), True),  # a pooler's: not ours to change
        ((True, None), None),  # the url says what it is to be
    ],
)
def test_read_only_without_touching_a_poolers_session(
    make: Callable[..., Runtime], row: tuple[bool, str | None], begins_read_only: bool | None
) -> None:
    """C16: behind a pooler the session's default is left alone, and each transaction begins as READ ONLY."""
    runtime = make()
    steps = logins.steps(runtime, plan(runtime, None, None, 0), 4711)
    query, params = next(steps)
    assert "default_transaction_read_only" in query
    assert params == (4711,)
    assert steps.send(row) is None
    assert next(steps) is begins_read_only


def test_role_is_not_changed_in_a_poolers_session(make: Callable[..., Runtime]) -> None:
    """C19: SET SESSION AUTHORIZATION through a pooler would change the session of whoever gets it next, so it is refused."""
    runtime = make()
    steps = logins.steps(runtime, plan(runtime, None, "mute", worker.BGWORKER_BYPASS_ROLELOGINCHECK), 4711)
    assert next(steps)[1] == (4711, "mute")
    with pytest.raises(UsageError, match="through a connection pooler"):
        steps.send((False, True))


def test_refusal_of_an_opening() -> None:
    """C18: an SQLSTATE that psycopg does not know is an OperationalError with it; none is an error of ours."""
    answer = {"error": "no", "sqlstate": "ZZ999", "detail": "", "hint": ""}
    with pytest.raises(psycopg.OperationalError, match="no") as caught:
        logins.raise_if_refused(answer)
    assert caught.value.sqlstate == "ZZ999"
    with pytest.raises(HostError) as ours:
        logins.raise_if_refused({**answer, "sqlstate": "", "detail": "Why.", "hint": "What."})
    assert (ours.value.message_detail, ours.value.message_hint) == ("Why.", "What.")
    logins.raise_if_refused({**answer, "error": ""})


def test_closed_database_needs_a_host(make: Callable[..., Runtime]) -> None:
    """C18: a worker without a host, in a terminal, cannot have a database opened, and is told so before it connects."""
    runtime = make(conninfo="host=/nowhere")
    with pytest.raises(HostError, match="no host here"):
        connect(runtime, plan(runtime, "shut", None, worker.BGWORKER_BYPASS_ALLOWCONN))


def test_missing_right_is_named(make: Callable[..., Any]) -> None:
    """C19: the error names worker, role and right, and keeps the server's SQLSTATE."""
    runtime = make()
    wanted = plan(runtime, None, "mute", worker.BGWORKER_BYPASS_ROLELOGINCHECK)
    error = logins.needs_superuser(runtime, wanted, psycopg.errors.InsufficientPrivilege("permission denied"))
    assert isinstance(error, psycopg.errors.InsufficientPrivilege)
    assert error.sqlstate == "42501"
    assert 'cannot run as role "mute": the configured role is no superuser' in str(error)
