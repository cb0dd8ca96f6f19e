"""Workers' functions that use the database."""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import Any

import psycopg

from bgworker import spi, worker
from bgworker._worker.runtime import current

ONE_ROW = "SELECT current_database(), current_user, application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")  # line-buffered by the runtime


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def attempt(what: Any, *args: Any, **keys: Any) -> Any:
    try:
        return what(*args, **keys)
    except Exception as error:
        say(describe(error))
    return None


def who_am_i(arg: dict[str, Any]) -> None:
    connection = worker.initialize_connection(**arg)
    say(connection.execute(ONE_ROW).fetchone())
    say(f"autocommit {connection.autocommit}")


def session(arg: dict[str, Any]) -> None:
    """Connect as asked; say where, as whom, whether a write is taken, and what went wrong, with its SQLSTATE."""
    how = arg.pop("how", "initialize_connection")
    try:
        connection = getattr(worker, how)(**arg)
        say(connection.execute("SELECT current_database(), session_user, current_user").fetchone())
        with spi.transaction():
            say(spi.execute("SELECT count(*) > 0 FROM pg_database").fetchone())
        with spi.transaction():
            spi.execute("CREATE TEMPORARY TABLE written (n int)")
            spi.execute("CREATE TABLE kept (n int)")
            say("written")
            spi.execute("DROP TABLE kept")
    except psycopg.Error as error:
        say(f"{error.sqlstate} {error}")
        raise


def unblocked_session(arg: dict[str, Any]) -> None:
    worker.unblock_signals()
    session(arg)


def who_by_oid(arg: list[int]) -> None:
    worker.initialize_connection_by_oid(*arg)
    with spi.transaction():
        say(spi.execute(ONE_ROW).fetchone())


def connect_twice(_arg: Any) -> None:
    attempt(worker.initialize_connection, "no_such_database")
    worker.connect()
    attempt(worker.connect)
    attempt(worker.initialize_connection, "postgres")
    attempt(worker.initialize_connection_by_oid, 1, 10)


def refused(arg: dict[str, Any]) -> None:
    try:
        worker.initialize_connection(**arg)
    except worker.UsageError as error:
        say(f"{describe(error)}\n{error.message_detail}\n{error.message_hint}")
        raise SystemExit(0) from None


def several_transactions(_arg: Any) -> None:
    worker.connect()
    with spi.transaction():
        spi.execute("CREATE TABLE IF NOT EXISTS counted (n int)")
    for n in range(3):
        with spi.transaction():
            spi.execute("INSERT INTO counted VALUES (%s)", (n,))
    try:
        with spi.transaction():
            spi.execute("INSERT INTO counted VALUES (99)")
            raise ValueError("roll back")
    except ValueError:
        pass
    with spi.transaction() as transaction:
        spi.execute("INSERT INTO counted VALUES (98)")
        roll_back(transaction)
    check_counted()


def roll_back(transaction: psycopg.Transaction) -> None:
    raise psycopg.Rollback(transaction)


def check_counted() -> None:
    with spi.transaction():
        say(spi.execute("SELECT array_agg(n ORDER BY n) FROM counted").fetchone())
        spi.execute("DROP TABLE counted")


def misuse(_arg: Any) -> None:
    attempt(spi.execute, "SELECT 1")
    attempt(spi.transaction().__enter__)
    worker.connect()
    attempt(spi.execute, "SELECT 1")
    attempt(spi.async_notify, "orders")
    with spi.transaction():
        attempt(spi.transaction().__enter__)
        attempt(worker.wait_latch, timeout=0)
        say(spi.execute("SELECT 1").fetchone())
    with spi.connection().transaction():
        attempt(worker.wait_latch, timeout=0)
        attempt(spi.transaction().__enter__)
        spi.execute("SELECT 1")
    say(worker.wait_latch(timeout=0))


def notify(_arg: Any) -> None:
    worker.connect()
    worker.unblock_signals()
    with spi.transaction():
        for payload in ("a", "a", "b"):
            spi.async_notify("orders", payload)
    try:
        with spi.transaction():
            spi.async_notify("orders", "rolled back")
            raise ValueError
    except ValueError:
        pass
    with spi.transaction():
        spi.async_notify("orders")
        spi.execute("NOTIFY orders, 'by SQL'")
        attempt(spi.async_notify, "orders", "x" * 8000)
        say("not reached")


def listen(how: str) -> None:
    worker.connect()
    worker.unblock_signals()
    connection = spi.connection()
    match how:
        case "spi":
            with spi.transaction():
                attempt(spi.execute, "LISTEN orders")
        case "raw":
            attempt(connection.execute, "LISTEN orders")
        case "script":
            attempt(connection.execute, "SELECT 1; LISTEN orders")
        case "cursor":
            attempt(connection.cursor().execute, "LISTEN orders")
        case "hidden":
            connection.execute("DO $$ BEGIN EXECUTE 'LISTEN orders'; END $$")
    say("channels " + str([row[0] for row in connection.execute("SELECT * FROM pg_listening_channels()")]))
    for _ in worker.latch_loop(timeout=0.5 if how != "hidden" else None):
        pass


def hidden_listen_busy(_arg: Any) -> None:
    """Never sleeps on the latch; the notification arrives with a query's answer."""
    worker.connect()
    worker.unblock_signals()
    spi.connection().execute("DO $$ BEGIN EXECUTE 'LISTEN orders'; END $$")
    say("ready")
    while True:
        with spi.transaction():
            spi.execute("SELECT pg_sleep(0.01)")


def query(how: str) -> None:
    """Run a long query, in one of several situations."""
    connection = worker.connect()
    connection.execute("CREATE TABLE IF NOT EXISTS marks (mark text)")
    worker.unblock_signals()
    say(connection.info.backend_pid)
    match how:
        case "plain":
            connection.execute("SELECT pg_sleep(600)")
        case "transaction":
            with spi.transaction():
                spi.execute("INSERT INTO marks VALUES ('torn')")
                spi.execute("SELECT pg_sleep(600)")
        case "psycopg":
            with connection.transaction():
                connection.execute("INSERT INTO marks VALUES ('torn')")
                connection.execute("SELECT pg_sleep(600)")
        case "stream":
            for _row in connection.cursor().stream("SELECT pg_sleep(0.001), n FROM generate_series(1, 1000000) n"):
                pass
        case "copy":
            with connection.cursor().copy("COPY (SELECT pg_sleep(600)) TO STDOUT") as copy:
                copy.read()
        case "held":
            with worker.hold_interrupts():
                connection.execute("SELECT pg_sleep(1)")
                say("query finished")
        case "swallow":
            try:
                with spi.transaction():
                    spi.execute("SELECT pg_sleep(600)")
            except worker.Terminated:
                say("swallowed")
            with worker.hold_interrupts():
                connection.execute("INSERT INTO marks VALUES ('cleaned up')")
            spi.transaction().__enter__()
        case "thread":
            thread = threading.Thread(target=connection.execute, args=("SELECT pg_sleep(1)",))
            thread.start()
            say(worker.wait_latch(timeout=0.2))
            thread.join()
            say("thread finished")


def between_statements(_arg: Any) -> None:
    """Plain code inside spi.transaction(): SIGTERM must not tear it."""
    worker.connect()
    worker.unblock_signals()
    with spi.transaction():
        spi.execute("CREATE TABLE IF NOT EXISTS marks (mark text)")
    with spi.transaction():
        spi.execute("INSERT INTO marks VALUES ('complete')")
        say("inside")
        while not current().interrupts.ending:
            time.sleep(0.001)
        say("still inside")
    say("not reached")


def next_statement(_arg: Any) -> None:
    worker.connect()
    worker.unblock_signals()
    with spi.transaction():
        spi.execute("CREATE TABLE IF NOT EXISTS marks (mark text)")
    with spi.transaction():
        spi.execute("INSERT INTO marks VALUES ('torn')")
        say("inside")
        while not current().interrupts.ending:
            time.sleep(0.001)
        spi.execute("INSERT INTO marks VALUES ('torn')")
        say("not reached")


def interrupted(_arg: Any) -> None:
    """SIGINT: the query is cancelled, the worker goes on."""
    connection = worker.connect()
    worker.unblock_signals()
    say(connection.info.backend_pid)
    for _ in range(2):
        try:
            with spi.transaction():
                spi.execute("SELECT pg_sleep(600)")
        except psycopg.errors.QueryCanceled as error:
            say(describe(error))
    with spi.transaction():
        say(spi.execute("SELECT 'goes on'").fetchone())


def own_handler_raises(_arg: Any) -> None:
    """An author's own handler that raises in the middle of a query leaves a usable connection."""

    def handler(_signum: int, _frame: Any) -> None:
        raise InterruptedError("own handler")

    connection = worker.connect()
    signal.signal(signal.SIGUSR2, handler)
    worker.unblock_signals()
    say(connection.info.backend_pid)
    try:
        with spi.transaction():
            spi.execute("SELECT pg_sleep(600)")
    except InterruptedError as error:
        say(error)
    with spi.transaction():
        say(spi.execute("SELECT 'goes on'").fetchone())


def many_notices(_arg: Any) -> None:
    """Pushes that arrive during a query are there after it."""
    worker.connect()
    worker.unblock_signals()
    say("ready")
    with spi.transaction():
        spi.execute("SELECT pg_sleep(1)")
    say(len(worker.notifications()))
    say(worker.wait_latch(timeout=0))


def pairs(_arg: Any) -> None:
    """Every transaction writes a pair; a torn one would leave half of it."""
    connection = worker.connect()
    worker.unblock_signals()
    say("ready")
    number = connection.info.backend_pid
    while True:
        with spi.transaction():
            spi.execute("INSERT INTO pairs VALUES (%s, txid_current())", (number,))
            sum(range(100))
            spi.execute("INSERT INTO pairs VALUES (%s, txid_current())", (number,))
        sum(range(100))


def count_cancels(_arg: Any) -> None:
    """Take a storm of SIGINT: whatever is cancelled, the connection stays usable and in step."""
    worker.connect()
    worker.unblock_signals()
    say("ready")
    cancelled = 0
    for number in range(300):
        try:
            with spi.transaction():
                row = spi.execute("SELECT %s::int, pg_sleep(0.001)", (number,)).fetchone()
                assert row is not None
                assert row[0] == number, "an answer to another query"
        except psycopg.errors.QueryCanceled:
            cancelled += 1
    say(f"over {cancelled > 0}")


def cancel_then_wait(_arg: Any) -> None:
    connection = worker.connect()
    worker.unblock_signals()
    say(f"backend {connection.info.backend_pid}")
    attempt(connection.execute, "SELECT pg_sleep(601)")
    worker.wait_latch()


def late_interrupt(_arg: Any) -> None:
    """SIGINT in the last moment of a query must not cancel the one after it."""
    connection = worker.connect()
    worker.unblock_signals()

    def last_moment() -> Any:
        yield from ()
        signal.raise_signal(signal.SIGINT)
        return "answer"

    say(connection.wait(last_moment()))
    with spi.transaction():
        say(spi.execute("SELECT 'not cancelled' FROM pg_sleep(0.3)").fetchone())
