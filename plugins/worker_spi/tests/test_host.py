"""worker_spi under a real host with an embedded PostgreSQL: the first half of PostgreSQL's t/001_worker_spi.pl (C42)."""

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
