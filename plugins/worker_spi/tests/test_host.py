"""worker_spi under a real host with an embedded PostgreSQL: what PostgreSQL's t/001_worker_spi.pl tests (C42)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from bgworker.testing import RunningHost

# A naptime longer than any test: what the workers do, they do because they were woken.
CONFIG = """
[host]
shared_preload_libraries = ["worker_spi"]
[database]
url = "embedded"
[settings.worker_spi]
naptime = 600
total_workers = 3
"""


def wait_for_sleepers(host: RunningHost, count: int) -> None:
    """Wait until so many workers have nothing to do."""

    def is_so() -> bool:
        return [slot["activity"]["wait_event"] for slot in host.status()["slots"]].count("WorkerSpiMain") == count

    host.wait_until(is_so, f"{count} workers sleep in WorkerSpiMain")


def test_dynamic_worker_consumes_a_delta(bgworker_host: Callable[..., RunningHost]) -> None:
    """C42: launch(4) creates schema4; after a total and a delta are inserted, a reload makes the worker add them up."""
    host = bgworker_host(CONFIG)
    launched = host.run_cli("worker-spi", "launch", "4", "--timeout", "30")
    assert launched.returncode == 0, launched.stderr
    slot = host.wait_for_worker("worker_spi dynamic worker 4")
    assert (slot["bgw_type"], slot["origin"], slot["bgw_restart_time"]) == ("worker_spi dynamic", "dynamic", None)
    assert slot["pid"] == int(launched.stdout)
    wait_for_sleepers(host, 4)
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        connection.execute("INSERT INTO schema4.counted VALUES ('total', 0), ('delta', 1)")
        assert host.run_cli("reload").returncode == 0

        def has_no_delta() -> bool:
            return connection.execute("SELECT count(*) FROM schema4.counted WHERE type = 'delta'").fetchone() == (0,)

        host.wait_until(has_no_delta, "the delta is consumed")
        assert connection.execute("SELECT type, value FROM schema4.counted").fetchall() == [("total", 1)]
    assert (
        "worker_spi dynamic worker 4: count in schema4.counted is now 1"
        in host.run_cli("logs", "worker_spi dynamic worker 4").stdout
    )


def test_static_workers_in_another_database(bgworker_host: Callable[..., RunningHost]) -> None:
    """C42: preloaded workers, each with a schema of its own, in a database and as a role that the settings name."""
    host = bgworker_host(CONFIG)
    wait_for_sleepers(host, 3)
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE mydb")
        connection.execute("CREATE ROLE myrole SUPERUSER LOGIN")
    host.config_path.write_text(CONFIG + 'database = "mydb"\nrole = "myrole"\n')
    assert host.run_cli("reload").returncode == 0
    names = [f"worker_spi worker {index}" for index in (1, 2, 3)]
    for name in names:
        assert host.run_cli("restart", name).returncode == 0

    def seen() -> list[tuple[Any, ...]]:
        with psycopg.connect(host.database_url(), autocommit=True) as connection:
            columns = "application_name, datname, usename"
            query = f"SELECT {columns} FROM pg_stat_activity WHERE application_name LIKE 'worker_spi%' ORDER BY 1"
            return connection.execute(query).fetchall()

    host.wait_until(lambda: seen() == [(name, "mydb", "myrole") for name in names], "the workers are in the other database")
    wait_for_sleepers(host, 3)
    with psycopg.connect(host.database_url(), autocommit=True, dbname="mydb") as connection:
        schemas = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'schema%' ORDER BY 1").fetchall()
    assert schemas == [("schema1",), ("schema2",), ("schema3",)]


def test_bypass_flags(bgworker_host: Callable[..., RunningHost]) -> None:
    """C42: a NOLOGIN role and a database that allows no connections refuse the dynamic worker, and the flags let it in."""
    host = bgworker_host(CONFIG.replace("total_workers = 3", "total_workers = 1"))
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE mydb")
        connection.execute("CREATE DATABASE noconndb ALLOW_CONNECTIONS false")
        connection.execute("CREATE ROLE myrole SUPERUSER LOGIN")
        connection.execute("CREATE ROLE nologrole WITH NOLOGIN")
        connection.execute("GRANT CREATE ON DATABASE mydb TO nologrole")
    cases = [
        (12, "noconndb", "myrole", "ALLOWCONN", 'database "noconndb" is not currently accepting connections'),
        (13, "mydb", "nologrole", "ROLELOGINCHECK", 'role "nologrole" is not permitted to log in'),
    ]
    for number, database, role, flag, refusal in cases:
        name = f"worker_spi dynamic worker {number}"
        launch = ("worker-spi", "launch", str(number), "--database", database, "--role", role)
        host.run_cli(*launch)
        host.wait_until(lambda name=name: host.finished(name) is not None, f"{name} is over")
        finished = host.finished(name)
        assert finished is not None
        assert finished["last_exit"]["code"] == 1
        assert refusal in finished["last_exit"]["reason"]
        launched = host.run_cli(*launch, "--flags", flag)
        assert launched.returncode == 0, launched.stderr

        def is_asleep(name: str = name) -> bool:
            slot = host.slot(name)
            return slot is not None and slot["activity"]["wait_event"] == "WorkerSpiMain"

        host.wait_until(is_asleep, f"{name} has set its schema up and sleeps")
        with psycopg.connect(host.database_url(), autocommit=True) as connection:
            query = "SELECT datname FROM pg_stat_activity WHERE application_name = %s"
            assert connection.execute(query, [name]).fetchone() == (database,)
    with psycopg.connect(host.database_url(), autocommit=True) as connection:

        def values() -> Any:
            query = "SELECT datallowconn, datconnlimit FROM pg_database WHERE datname = 'noconndb'"
            return connection.execute(query).fetchone()

        host.wait_until(lambda: values() == (False, -1), "the database allows no connections again")
