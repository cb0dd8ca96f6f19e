"""Async workers: their start, their faces, SIGTERM as cancellation, the host's death, the database."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from tests.integration.stillness import wait_until_still
from tests.integration.worker.driving import PlayedHost
from tests.integration.worker.server import Server

from bgworker import worker
from bgworker._spec import DATABASE_WORKER_FLAGS

FATAL = 'FATAL:  terminating background worker "tested" due to administrator command\n'


def start(host: PlayedHost, function: str, arg: Any = None, **keys: Any) -> Any:
    return host.start(function, arg, library="aiofunctions", **keys)


def test_runs_unblocked_and_returns(host: PlayedHost) -> None:
    """C21: an async function is run, its signals unblocked; its return is exit code 0."""
    life = start(host, "arguments", {"a": 1})
    assert life.read("out").splitlines() == ["{'a': 1}", "blocked 0"]
    assert life.wait() == 0


def test_decorated_function_is_recognised(host: PlayedHost) -> None:
    """C11: a plain wrapper around an async function works as well."""
    life = start(host, "wrapped", 5)
    assert life.read("out").splitlines()[0] == "5"
    assert life.wait() == 0


@pytest.mark.parametrize(
    ("how", "code", "log"),
    [("raise", 1, "ValueError: in a coroutine"), ("exit", 3, ""), ("group", 1, "ExceptionGroup"), ("cancel", 1, "CancelledError")],
)
def test_ends(host: PlayedHost, how: str, code: int, log: str) -> None:
    """C32: exceptions are code 1 with their traceback; sys.exit keeps its code."""
    life = start(host, "end", how)
    assert life.wait() == code
    assert log in life.read("err")


@pytest.mark.parametrize("how", ["sleep", "latch", "loop", "group", "swallow", "fail", "thread", "wait_after_swallow"])
def test_sigterm_cancels_the_main_task(host: PlayedHost, how: str) -> None:
    """C22: SIGTERM cancels the main task; the exit code is 1 with the FATAL line however the function then ends."""
    life = start(host, "until_cancelled", how)
    life.read_until("ready")
    life.wait_until_asleep()
    began = time.monotonic()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert time.monotonic() - began < 2
    assert life.read("err").endswith(FATAL)
    if how != "fail":
        assert life.read("err") == FATAL
    if how in ("sleep", "latch", "group"):
        assert "cleaned up" in life.read("out")


def test_sigterm_that_was_pending_cancels_at_once(host: PlayedHost) -> None:
    """C22: a SIGTERM from before the start ends the worker, whatever it was about to do."""
    life = host.bear()
    life.signal(signal.SIGTERM)
    life.assign("until_cancelled", "sleep", library="aiofunctions")
    life.expect_started()
    assert life.wait() == 1
    assert life.read("err") == FATAL


def test_busy_latch_does_not_starve_the_loop(host: PlayedHost) -> None:
    """C23: a latch that is always set still lets the other tasks and SIGTERM through."""
    life = start(host, "always_set")
    life.read_until("other task")
    life.signal(signal.SIGTERM)
    assert life.wait() == 1


def test_latch_loop_and_reload(host: PlayedHost) -> None:
    """C23, C25: the first pass runs at once, SIGHUP starts another, and settings are asked for without blocking the loop."""
    life = start(host, "reload_loop", settings={"aiofunctions": {"naptime": None}})
    life.read_until("pass 0 {'naptime': None}\n")
    life.wait_until_asleep()
    life.signal(signal.SIGHUP)
    request = life.receive("settings")
    life.read_until("ticking")  # the other task goes on while the request is out
    life.send({"id": request["id"], "result": {"settings": {"aiofunctions": {"naptime": 0.01}}}})
    life.read_until(f"pass {int(worker.WL_TIMEOUT)} {{'naptime': 0.01}}\n")
    life.signal(signal.SIGTERM)
    assert life.wait() == 1


def test_no_wakeup_is_lost(host: PlayedHost) -> None:
    """C23: of 500 signals, each sent right after the worker is done with the one before, none is lost."""
    life = start(host, "rally", 500)
    life.read_until("ready\n")
    for _ in range(500):
        life.signal(signal.SIGUSR1)
        while life.read_byte() != b".":
            pass
    assert life.wait() == 0


def test_waits(host: PlayedHost) -> None:
    """C23: timeouts, sockets, and several tasks on one latch."""
    life = start(host, "waits")
    assert life.read("out").splitlines() == [
        f"timeout {int(worker.WL_TIMEOUT)}",
        f"writeable {int(worker.WL_SOCKET_WRITEABLE)}",
        f"readable {int(worker.WL_SOCKET_READABLE)}",
        "both [1, 1]",
        "UsageError",
    ], life.read("err")
    assert life.wait() == 0


@pytest.mark.parametrize("function", ["until_cancelled", "watch_host"])
def test_host_death_ends_it(host: PlayedHost, function: str) -> None:
    """C24: the host's death ends an async worker at once, wherever it waits; WL_POSTMASTER_DEATH tells it instead."""
    life = start(host, function, "sleep")
    life.read_until("ready")
    life.wait_until_asleep()
    began = time.monotonic()
    life.die_as_host()
    code = life.wait()
    assert time.monotonic() - began < 1
    if function == "watch_host":
        assert code == 0
        assert life.read("out").endswith(f"bits {int(worker.WL_POSTMASTER_DEATH)}\nHostNotRunning\n")
    else:
        assert code == 1
        assert "due to unexpected host exit" in life.read("err")


def test_sleeping_worker_is_never_woken_without_cause(host: PlayedHost) -> None:
    """C23: an async worker that waits for its latch has no period either."""
    life = start(host, "until_cancelled", "latch")
    life.read_until("ready")
    wait_until_still(life.pid)


def test_blocking_faces_name_their_twins(host: PlayedHost) -> None:
    """C23: each blocking face refuses in the loop and names what to use."""
    life = start(host, "blocking_faces")
    out = life.read("out").splitlines()
    assert out == [
        "Use bgworker.aio.wait_latch() in an async worker.",
        "Use bgworker.aio.latch_loop() in an async worker.",
        "Use bgworker.aio.process_config_file() in an async worker.",
        "Use bgworker.aio.connect_database() in an async worker.",
        "Use bgworker.aio.initialize_connection() in an async worker.",
        "Use bgworker.aio.initialize_connection_by_oid() in an async worker.",
        "Use bgworker.aio.register_dynamic_background_worker() in an async worker.",
        "Use bgworker.aio.transaction() in an async worker.",
        "Use bgworker.aio.execute() in an async worker.",
        "Use bgworker.aio.async_notify() in an async worker.",
    ]


def test_async_faces_name_their_twins(host: PlayedHost) -> None:
    """C23: each async face refuses in a worker without an event loop of the runtime's."""
    life = start(host, "async_faces_in_blocking_worker")
    assert life.wait() == 0
    assert life.read("out").count("is not async") == 2


def test_registers_a_worker(host: PlayedHost) -> None:
    """C03, C33, C36: registration and waits are coroutines; pushes come in between."""
    life = start(host, "register")
    life.serve("register", {"handle": "3.9"})
    life.send({"type": "notify", "channel": "orders", "payload": "1"})
    life.serve("wait", {"status": "STARTED", "pid": 4711, "reason": ""})
    life.receive("wait")
    assert life.wait() == 0, life.read("err")
    out = life.read("out").splitlines()
    assert out[0] == "3.9"
    assert "4711" in out[1]
    assert "orders" in out[2]
    assert out[3] == "WaitTimeout"


def test_held_cancellation_comes_at_the_end(host: PlayedHost) -> None:
    """C22: hold_interrupts() delays the cancellation to the end of the block."""
    life = start(host, "held")
    life.read_until("ready")
    life.wait_until_asleep()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert life.read("out").splitlines()[1:] == ["held through", "cancelled after"]


# -- the database ----------------------------------------------------------------------------------------------------


def db(host: PlayedHost, database: dict[str, Any], function: str, arg: Any = None) -> Any:
    return start(host, function, arg, database=database, bgw_flags=DATABASE_WORKER_FLAGS)


def test_transactions(host: PlayedHost, database: dict[str, Any]) -> None:
    """C20: transactions of several tasks take turns; child tasks share their parent's; misuse is named."""
    life = db(host, database, "transactions")
    assert life.wait() == 0, life.read("err")
    assert life.read("out").splitlines() == [
        'UsageError: background worker "tested" has no database connection',
        "('postgres', 'postgres', 'tested') autocommit True",
        'UsageError: background worker "tested" has connected to a database already',
        "UsageError: aio.execute() was called outside of a transaction",
        "UsageError: transaction() cannot be nested",
        "UsageError: wait_latch() cannot be used inside a transaction",
        "child (1,)",
        "order ['a1', 'a2', 'b1', 'b2']",
        "InFailedSqlTransaction",
        "rolled back 0",
    ]


@pytest.mark.parametrize("how", ["transaction", "raw"])
def test_sigterm_cancels_the_query(host: PlayedHost, server: Server, database: dict[str, Any], how: str) -> None:
    """C22: SIGTERM cancels the running query on the server and rolls back."""
    server.run("DROP TABLE IF EXISTS amarks", "CREATE TABLE amarks (mark text)")
    life = db(host, database, "query", how)
    backend = int(life.read_until("\n"))
    server.wait_until("SELECT state = 'active' AND query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)
    began = time.monotonic()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert time.monotonic() - began < 2
    assert life.read("err") == FATAL
    server.wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s", backend)
    assert server.value("SELECT count(*) FROM amarks") == 0
    server.run("DROP TABLE amarks")


def test_sigint_cancels_the_query_alone(host: PlayedHost, server: Server, database: dict[str, Any]) -> None:
    """C22: SIGINT raises QueryCanceled in the task that waits for the query; the worker goes on."""
    life = db(host, database, "interrupted")
    backend = int(life.read_until("\n"))
    server.wait_until("SELECT state = 'active' AND query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s", backend)
    life.wait_until_asleep()
    life.signal(signal.SIGINT)
    assert life.wait() == 0, life.read("err")
    assert life.read("out").splitlines()[1:] == ["QueryCanceled", "(1,)"]


def test_listen_is_refused(host: PlayedHost, server: Server, database: dict[str, Any]) -> None:
    """C27: LISTEN is refused and undone; one hidden in a DO block ends the worker at its first notification."""
    life = db(host, database, "listen")
    life.read_until("UsageError: a background worker cannot LISTEN on its own connection\nchannels 0\nhidden\n")
    server.run("NOTIFY orders")
    assert life.wait() == 1
    assert 'because it listens on channel "orders"' in life.read("err")
