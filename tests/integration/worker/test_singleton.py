"""The singleton lock in real worker processes against a real server, with a host that the test plays."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.integration.worker.driving import Life, PlayedHost
from tests.integration.worker.server import Server

from bgworker._control.protocol import Message
from bgworker._spec import DATABASE_WORKER_FLAGS
from bgworker._worker import singleton

DOCUMENT = Path(__file__).parents[3] / "docs" / "singleton.md"
WAITING = "SELECT count(*) = %s FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'"
HOLDER = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
FORMULA = "SELECT ('x' || left(encode(sha256(convert_to('bgworker singleton ' || %s, 'UTF8')), 'hex'), 16))::bit(64)::bigint"
FATAL = 'FATAL:  terminating background worker "tested" due to administrator command\n'


@pytest.fixture
def bear(host: PlayedHost, database: dict[str, Any], server: Server) -> Any:
    """Give birth to a singleton worker that is assigned, and may wait."""
    server.wait_until(f"SELECT NOT EXISTS ({HOLDER})")

    def bear(function: str = "hold", arg: Any = None, **keys: Any) -> Life:
        life = host.bear()
        keys = {"library": "singletonfunctions", "bgw_flags": DATABASE_WORKER_FLAGS, "database": database, **keys}
        life.assign(function, arg, singleton=True, **keys)
        return life

    return bear


@pytest.fixture
def pair(bear: Any, server: Server) -> tuple[Life, Life, str]:
    """Return one that holds the lock, one that waits for it, and what that one says."""
    first, second = bear(), None
    expect_started(first)
    second = bear()
    reason = expect_waiting(second)
    server.wait_until(WAITING, 1)
    return first, second, reason


def heard(life: Life, *kinds: str) -> Message:
    """Return the worker's next message of one of these types."""
    while (message := life.receive(" or ".join(kinds)))["type"] not in kinds:
        pass
    return message


def expect_started(life: Life) -> None:
    """See a worker reach its function."""
    heard(life, "started")


def expect_waiting(life: Life) -> str:
    """See a worker say that it waits, before it starts, and return the reason."""
    message = heard(life, "waiting", "started")
    assert message["type"] == "waiting", message
    reason: str = message["reason"]
    return reason


def test_second_waits_and_names_the_holder(pair: tuple[Life, Life, str], server: Server) -> None:
    """The first instance starts at once, the second says who holds the lock and takes over when that one is killed."""
    first, second, reason = pair
    node, pid = re.escape(os.uname().nodename[:31]), server.value(HOLDER)
    expected = (
        rf'waits for singleton lock held by "tested" on host {node} \(backend PID {pid}, connected since \d{{4}}-[\dT:-]+Z\); .*'
    )
    assert re.fullmatch(expected, reason)
    first.signal(signal.SIGKILL)
    expect_started(second)
    assert server.value(HOLDER) not in (pid, None)


def test_lock_is_free_when_the_session_is_terminated(pair: tuple[Life, Life, str], server: Server) -> None:
    """An administrator who ends the holder's session hands the lock on."""
    server.value("SELECT pg_terminate_backend(%s)", server.value(HOLDER))
    expect_started(pair[1])


def test_sigterm_ends_the_wait(pair: tuple[Life, Life, str], server: Server) -> None:
    """A waiting worker ends by itself at SIGTERM, though its function has not run and signals are blocked at entry."""
    _first, second, _reason = pair
    second.signal(signal.SIGTERM)
    assert second.wait() == 1
    assert second.read("err") == FATAL
    server.wait_until(WAITING, 0)
    assert server.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 1


def test_host_death_ends_the_wait(pair: tuple[Life, Life, str]) -> None:
    """C24: a waiting worker does not outlive its host."""
    pair[1].die_as_host()
    assert pair[1].wait() == 1


def test_broken_connection_ends_the_wait(pair: tuple[Life, Life, str], server: Server) -> None:
    """A session that breaks while it waits is a failed start with a reason, not a traceback."""
    _first, second, _reason = pair
    server.value("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    message = heard(second, "start_failed", "exiting")
    assert "terminating connection due to administrator command" in str(message["error"])
    assert second.wait() == 1
    assert second.read("err").startswith("FATAL:  ")
    assert "Traceback" not in second.read("err")


def test_unreachable_database_is_a_failed_start(bear: Any, database: dict[str, Any]) -> None:
    """A server that is away makes a failed start, which its restart time repeats."""
    life = bear(database={**database, "conninfo": "host=/nonexistent dbname=postgres"})
    message = heard(life, "start_failed")
    assert message["error"]["message_primary"].startswith('could not take the singleton lock of background worker "tested": ')
    assert life.wait() == 1


def test_other_names_are_other_locks(bear: Any) -> None:
    """The lock is that of the worker's name."""
    expect_started(bear())
    expect_started(bear(bgw_name="another"))


def test_lock_key_is_the_documented_one(bear: Any, server: Server) -> None:
    """An operator finds the lock by the formula of docs/singleton.md."""
    for name in ("tested", "Zähler 1", "x" * 95):
        assert server.value(FORMULA, name) == singleton.lock_key(name)
    expect_started(bear())
    assert server.value("SELECT pg_try_advisory_lock(%s)", singleton.lock_key("tested")) is False
    query = re.search(r"```sql\n(.*?);\n```", DOCUMENT.read_text(), re.DOTALL)
    assert query is not None
    assert server.value(query[1].replace("invoices", "tested")) == server.value(HOLDER)


def test_wait_is_asked_anew(monkeypatch: pytest.MonkeyPatch, bear: Any, server: Server, database: dict[str, Any]) -> None:
    """No statement of a waiting worker runs for long, no timeout of the role ends the wait, and a new holder is named."""
    monkeypatch.setattr(singleton, "LONGEST_QUERY", 0.8)
    lives = [bear()]
    expect_started(lives[0])
    conninfo = f"{database['conninfo']} options='-c statement_timeout=400 -c lock_timeout=400'"
    lives += [bear("claim", [], database={**database, "conninfo": conninfo}) for _ in range(2)]
    before = {expect_waiting(life) for life in lives[1:]}
    assert len(before) == 1
    began = server.value("SELECT min(query_start) FROM pg_stat_activity WHERE query LIKE '%%pg_advisory_lock(%%'")
    renewed = (
        "SELECT min(query_start) > %s FROM pg_stat_activity WHERE query LIKE '%%pg_advisory_lock(%%' AND pid <> pg_backend_pid()"
    )
    server.wait_until(renewed, began)
    # Neither of the two can be told beforehand to be the next.
    lives[0].signal(signal.SIGKILL)
    for life in lives[1:]:
        while (message := heard(life, "waiting", "started"))["type"] == "waiting":
            assert message["reason"] not in before
        assert "('400ms',)" in life.read("out")
        assert life.wait() == 0


@pytest.mark.parametrize("arg", [[], ["postgres"], ["postgres", "postgres"]])
def test_connect_hands_out_the_session_of_the_lock(bear: Any, arg: list[str]) -> None:
    """C15: the function's connection is the one that holds the lock: once, and in no other database or role."""
    life = bear("claim", arg)
    expect_started(life)
    database, role, both, connected, timeout, again = life.read("out").splitlines()
    for refusal, name, who in (
        (database, "template1", "postgres"),
        (role, "postgres", "pg_monitor"),
        (both, "template1", "pg_monitor"),
    ):
        assert f'cannot connect to database "{name}" as role "{who}": it is a singleton' in refusal
        assert 'Its session is in database "postgres" as role "postgres", and holds its lock.' in refusal
    assert (connected, timeout) == ("True (1,)", "('0',)")
    assert "has connected to a database already" in again
    assert life.wait() == 0, life.read("err")


def test_connect_by_oid_hands_it_out_too(bear: Any) -> None:
    """C15: the other call that connects knows the same session."""
    life = bear("claim_by_oid")
    expect_started(life)
    assert life.wait() == 0, life.read("err")
    assert life.read("out") == "(1,)\n"


def test_async_connection_is_the_session_of_the_lock(bear: Any) -> None:
    """An async function awaits the same session, under the rules of a worker's connection."""
    life = bear("claim_async")
    expect_started(life)
    assert life.wait() == 0, life.read("err")
    wrong, locks, one, listen, failed, again = life.read("out").splitlines()
    assert 'cannot connect to database "template1" as role "postgres": it is a singleton' in wrong
    assert (locks, one, failed) == ("True (1,)", "(1,)", "UndefinedColumn")
    assert listen == "a background worker cannot LISTEN on its own connection"
    assert "has connected to a database already" in again
    assert life.read("err") == ""


def test_async_holder_that_never_asks(bear: Any, server: Server) -> None:
    """The lock is held though the function never asks for the connection, and is free when SIGTERM has ended it."""
    first = bear("hold_async")
    expect_started(first)
    second = bear("hold_async")
    expect_waiting(second)
    first.signal(signal.SIGTERM)
    assert first.wait() == 1
    assert first.read("err") == FATAL
    expect_started(second)


@pytest.mark.parametrize("function", ["hold", "hold_async"])
def test_sleeping_holder_ends_with_its_session(bear: Any, server: Server, function: str) -> None:
    """A holder that never asked for its connection, and only sleeps, ends when the session with the lock does."""
    first = bear(function)
    expect_started(first)
    second = bear(function)
    expect_waiting(second)
    server.value("SELECT pg_terminate_backend(%s)", server.value(HOLDER))
    assert first.wait() == 1
    assert "because its database connection was lost" in first.read("err")
    expect_started(second)


def test_signals_are_blocked_at_entry(bear: Any, server: Server) -> None:
    """C21: also in a worker that waited with SIGTERM unblocked."""
    first = bear()
    expect_started(first)
    second = bear("blocked", library="singletonfunctions")
    expect_waiting(second)
    first.signal(signal.SIGTERM)
    expect_started(second)
    assert second.read("out") == "True\n"
