"""A whole host on a server that somebody else runs, seen as its operator sees it: status, host.log, the commands."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from tests.integration.database.driving import Server
from tests.integration.database.pooler import Pooler, needs_pgbouncer

from bgworker.testing import DEADLINE, RunningHost

MakeHost = Callable[..., RunningHost]

PASSWORD = "tr@il:mix/e%d"

WORKER = """
[[worker]]
bgw_name = "{name}"
bgw_library_name = "tasks"
bgw_function_name = "{function}"
bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]
bgw_restart_time = 0.5
{keys}
"""

TASKS = """
from bgworker import spi, worker

def notes(arg):
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        spi.execute("CREATE TABLE IF NOT EXISTS seen (payload text)")
    for _ in worker.latch_loop():
        for note in worker.notifications():
            with spi.transaction():
                spi.execute("INSERT INTO seen VALUES (%s)", (note.payload,))

def counter(arg):
    # Far more often than psycopg would take to prepare the statement.
    worker.unblock_signals()
    worker.connect()
    for number in range(40):
        with spi.transaction():
            spi.execute("INSERT INTO counted VALUES (%s, %s)", (worker.my_bgworker_entry().bgw_name, number))
    for _ in worker.latch_loop():
        pass

def bypass(arg):
    worker.unblock_signals()
    worker.initialize_connection(None, "keeper", worker.BGWORKER_BYPASS_ROLELOGINCHECK)
    for _ in worker.latch_loop():
        pass

def reader(arg):
    worker.unblock_signals()
    worker.initialize_connection(None, None)
    with spi.transaction():
        spi.execute("SELECT 1")
    for _ in worker.latch_loop():
        pass
"""


@pytest.fixture
def owner(shared_server: Server) -> Iterator[str]:
    """The url of a role that may log in and owns one database, and no more; both are gone afterwards."""
    with shared_server.connect() as administrator:
        administrator.execute(sql.SQL("CREATE ROLE shopkeeper LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
        administrator.execute("CREATE DATABASE shop OWNER shopkeeper")
        yield f"postgresql://shopkeeper:{quote(PASSWORD, safe='')}@127.0.0.1:{shared_server.port}/shop"
        administrator.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
        administrator.execute("DROP ROLE shopkeeper")


def configuration(url: str, *workers: str, direct_url: str = "") -> str:
    """Return a workers.toml."""
    lines = ["[host]", "max_worker_processes = 8", "[database]", f'url = "{url}"']
    return "\n".join([*lines, *([f'direct_url = "{direct_url}"'] if direct_url else []), *workers])


def worker(name: str, function: str, keys: str = "") -> str:
    """Return a [[worker]] table of a database worker."""
    return WORKER.format(name=name, function=function, keys=keys)


def traces_of(secret: str, directory: Path) -> list[str]:
    """Return where a secret can be read: files below the directory but workers.toml, and what ps shows of any process."""
    wanted = [secret.encode(), quote(secret, safe="").encode()]
    places = [path for path in directory.rglob("*") if path.is_file() and path.name != "workers.toml"]
    places += [Path(f"/proc/{pid.name}/{name}") for pid in Path("/proc").glob("[0-9]*") for name in ("cmdline", "comm")]
    found = []
    for path in places:
        try:
            text = path.read_bytes()
        except OSError:
            continue  # the process has just ended, or is somebody else's
        if any(each in text for each in wanted):
            found.append(str(path))
    return found


def test_ordinary_role_is_enough_and_its_password_stays_unseen(bgworker_host: MakeHost, owner: str) -> None:
    """C17, C27: a role that owns one database can do it all - workers, wake_on, commands -, and its password shows nowhere."""
    host = bgworker_host(configuration(owner, worker("sleeper", "notes", 'wake_on = ["orders"]')), tasks=TASKS)
    host.wait_for_worker("sleeper")
    with psycopg.connect(owner, autocommit=True) as connection:
        host.wait_until(lambda: connection.execute("SELECT to_regclass('seen')").fetchone() != (None,), "the worker is ready")

        def heard() -> bool:
            assert host.run_cli("notify", "orders", "42").returncode == 0
            return connection.execute("SELECT 1 FROM seen WHERE payload = '42'").fetchone() is not None

        host.wait_until(heard, "the notification is written down")
        result = host.run_cli("psql", "-Atc", "SELECT current_user, count(*) > 0 FROM seen GROUP BY 1")
        assert result.stdout == "shopkeeper|t\n", result.stderr
        assert host.run_cli("psql", "-c", "SELECT pg_sleep(0)", "-c", "\\conninfo").returncode == 0
        sleeping = subprocess.Popen(
            [sys.executable, "-P", "-m", "bgworker", "-c", str(host.config_path), "psql", "-c", "SELECT pg_sleep(60)"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            query = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
            host.wait_until(lambda: connection.execute(query).fetchone(), "psql runs")
            outputs = [host.run_cli(*command) for command in (["status"], ["status", "--json"], ["logs"], ["check"])]
            assert traces_of(PASSWORD, host.directory) == []
            for output in outputs:
                assert output.returncode == 0
                assert PASSWORD not in output.stdout + output.stderr
                assert quote(PASSWORD, safe="") not in output.stdout + output.stderr
        finally:
            sleeping.send_signal(signal.SIGTERM)
            sleeping.wait(DEADLINE)
    assert "shopkeeper@127.0.0.1" in host.database_url()


def test_missing_database_is_waited_for(bgworker_host: MakeHost, shared_server: Server, owner: str) -> None:
    """C07: while the server refuses, the host is up and says why and when it tries again; the worker starts when it is mended."""
    with shared_server.connect() as administrator:
        administrator.execute("DROP DATABASE shop")
        host = bgworker_host(configuration(owner, worker("sleeper", "notes")), start=False, tasks=TASKS)
        host.start_and_wait("starting")
        reason = 'database "shop" does not exist'
        host.wait_until(lambda: reason in (host.status()["host"]["database"] or {})["detail"], "status says why")
        database = host.status()["host"]["database"]
        assert database["phase"] == "unreachable"
        assert re.search(r"; next try in \d+\.\d s \(try \d+\)$", database["detail"])
        assert reason in host.wait_for_worker("sleeper", "not_yet_started")["reason"]
        assert reason in host.run_cli("status").stdout
        administrator.execute("CREATE DATABASE shop OWNER shopkeeper")
    host.wait_for_worker("sleeper")
    # Once in the log, however often it was tried.
    assert host.log().count(reason) == 1
    host.wait_until(lambda: "database answers again" in host.log(), "the log says that it is over")


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@127.0.0.1/x?colour=1", "postgresql://me:hun/ter2@127.0.0.1/x"])
def test_unreadable_url_is_refused_without_a_word_of_the_password(bgworker_host: MakeHost, url: str) -> None:
    """A url that libpq cannot read: nothing starts, and every command that needs it says the same, and nothing of its secret."""
    host = bgworker_host(configuration(url, worker("sleeper", "notes")), start=False, tasks=TASKS)
    for command in (["run"], ["check"], ["notify", "orders"], ["psql"]):
        result = host.run_cli(*command)
        assert result.returncode == 2
        assert "url cannot be" in result.stderr
        assert "ter2" not in result.stderr + result.stdout
    assert "ter2" not in "".join(path.read_text() for path in host.data_directory.rglob("*.log"))


@needs_pgbouncer
def test_workers_through_a_transaction_pooler(
    bgworker_host: MakeHost, shared_server: Server, make_pooler: Callable[..., Pooler]
) -> None:
    """Plain transactions of several workers share the pooler's sessions; that wake_on is dead, and how to mend it, is said."""
    pooler = make_pooler(shared_server, "transaction")
    with shared_server.connect() as administrator:
        administrator.execute("CREATE TABLE counted (name text, number int)")
        try:
            workers = [worker(f"counter {number}", "counter", 'wake_on = ["orders"]') for number in range(3)]
            host = bgworker_host(configuration(pooler.url(), *workers), tasks=TASKS)
            query = "SELECT count(DISTINCT (name, number)), count(*) FROM counted"
            host.wait_until(lambda: administrator.execute(query).fetchone() == (120, 120), "all have counted to 40")
            assert "transaction pooler: notifications (wake_on) cannot be received" in host.status()["host"]["database"]["detail"]
            assert "transaction pooler" in host.run_cli("status").stdout
            assert host.log().count("leads to a transaction pooler") == 1
            assert "direct_url" in host.log()
            assert host.run_cli("notify", "orders").returncode == 0
            assert host.run_cli("psql", "-Atc", "SELECT 1").stdout == "1\n"
            result = host.run_cli("listen", "orders", "--timeout", "5")
            assert result.returncode == 1
            assert "cannot listen through a transaction pooler" in result.stderr
            assert "direct_url" in result.stderr
        finally:
            administrator.execute("DROP TABLE counted")


@needs_pgbouncer
def test_wake_on_beside_a_transaction_pooler(
    bgworker_host: MakeHost, shared_server: Server, make_pooler: Callable[..., Pooler]
) -> None:
    """C27: with direct_url the workers go through the pooler and are woken all the same; listen works, too."""
    pooler = make_pooler(shared_server, "transaction")
    sleeper = worker("sleeper", "notes", 'wake_on = ["orders"]')
    host = bgworker_host(configuration(pooler.url(), sleeper, direct_url=shared_server.url), tasks=TASKS)
    with shared_server.connect() as administrator:
        try:
            host.wait_until(lambda: administrator.execute("SELECT to_regclass('seen')").fetchone() != (None,), "it is ready")

            def heard() -> bool:
                administrator.execute("NOTIFY orders, '42'")
                return administrator.execute("SELECT 1 FROM seen WHERE payload = '42'").fetchone() is not None

            host.wait_until(heard, "the notification is written down")
            assert host.run_cli("listen", "orders", "--timeout", "0.1").returncode == 4
        finally:
            administrator.execute("DROP TABLE IF EXISTS seen")


@needs_pgbouncer
def test_no_session_of_a_pooler_is_left_changed(
    bgworker_host: MakeHost, shared_server: Server, make_pooler: Callable[..., Pooler]
) -> None:
    """C16, C19: what lasts longer than a transaction is refused through a pooler, and takes direct_url where it is given."""
    pooler = make_pooler(shared_server, "transaction")
    workers = [worker("single", "reader", "singleton = true"), worker("bypass", "bypass"), worker("reader", "reader")]
    with shared_server.connect() as administrator:
        administrator.execute("CREATE ROLE keeper NOLOGIN")
        try:
            host = bgworker_host(configuration(pooler.url(), *workers), tasks=TASKS)
            host.wait_for_worker("reader")
            for name, words in (("single", "a singleton's lock"), ("bypass", "a bypass flag")):
                said = f"{words} cannot be used through a transaction pooler"
                host.wait_until(lambda name=name, said=said: said in host.log(name) + host.log(), f"the log says why not {name}")
            with pooler.connect() as stranger:
                for _ in range(4):
                    query = "SELECT session_user, current_setting('default_transaction_read_only')"
                    assert stranger.execute(query).fetchone() == ("postgres", "off")
            host.stop()
            host.config_path.write_text(configuration(pooler.url(), *workers, direct_url=shared_server.url))
            host.start_and_wait()
            for name in ("single", "bypass", "reader"):
                host.wait_for_worker(name)
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bypass' AND usename = 'postgres'"
            host.wait_until(lambda: administrator.execute(query).fetchone() == (1,), "the bypass is connected")
            host.stop()
        finally:
            administrator.execute("DROP ROLE keeper")
