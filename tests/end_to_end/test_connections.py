"""More workers than connections on a server of somebody else's, and as many as slots on the embedded one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from bgworker.testing import RunningHost
from tests.integration.database.driving import Server

MakeHost = Callable[..., RunningHost]

REFUSED = "sorry, too many clients already"

TASKS = """
import psycopg  # in the loader, once for all clones
from bgworker import spi, worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def job(arg):
    "Connects, says so, and keeps its connection until it is told that enough have been refused."
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        spi.execute("INSERT INTO done VALUES (%s)", (worker.my_bgworker_entry().bgw_name,))
    for _ in worker.latch_loop(timeout=0.1):
        with spi.transaction():
            if spi.execute("SELECT enough FROM told").fetchone()[0]:
                return

def session(arg):
    "Connects as a role that is no superuser, and stays."
    worker.unblock_signals()
    worker.initialize_connection(None, "app")
    for _ in worker.latch_loop():
        pass
"""

WORKER = """
[[worker]]
bgw_name = "{name}"
bgw_type = "{function}"
bgw_library_name = "tasks"
bgw_function_name = "{function}"
bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]
bgw_restart_time = {restart_time}
"""


def configuration(url: str, workers: int, function: str, restart_time: float) -> str:
    """Return a workers.toml with as many slots as workers, and one for a worker that never connects."""
    head = f'[host]\nmax_worker_processes = {workers + 1}\nshared_preload_libraries = ["tasks"]\n[database]\nurl = "{url}"\n'
    idle = '[[worker]]\nbgw_name = "clock"\nbgw_library_name = "tasks"\nbgw_function_name = "idle"\n'
    tables = [WORKER.format(name=f"w{number}", function=function, restart_time=restart_time) for number in range(workers)]
    return head + idle + "".join(tables)


@pytest.mark.parametrize(("workers", "connections"), [(20, 8), pytest.param(200, 30, marks=pytest.mark.slow)])
def test_workers_that_get_no_connection(
    make_host: MakeHost, make_server: Callable[[], Server], workers: int, connections: int
) -> None:
    """C30: who is refused by a full server says so and comes back by its restart time; all get their turn, others notice none."""
    server = make_server()
    server.start(max_connections=connections, superuser_reserved_connections=0)
    with server.connect() as connection:
        connection.execute("CREATE TABLE done (name text); CREATE TABLE told (enough bool); INSERT INTO told VALUES (false)")
        host = make_host(configuration(server.local_url, workers, "job", 0.5), tasks=TASKS)
        host.start_and_wait()
        clock = host.wait_for_worker("clock")

        def refused() -> list[dict[str, Any]]:
            return [slot for slot in host.status()["slots"] if slot["last_exit"] and REFUSED in slot["last_exit"]["reason"]]

        # The test itself has a connection, and the host's watch.
        host.wait_until(lambda: len(refused()) == workers - connections + 2, "all that do not fit have been refused")

        def waiting() -> list[str]:
            return [slot["reason"] for slot in refused() if slot["state"] == "waiting_restart" and slot["restart_at"]]

        for text in host.wait_until(waiting, "one of them waits for its next try"):
            assert f"{REFUSED}; restarts after 0.5 s, try " in text
        assert host.status()["host"]["state"] == "run"
        connection.execute("UPDATE told SET enough = true")
        host.wait_until(lambda: len(host.status()["slots"]) == 1, "everybody has had a turn")
        names = [name for (name,) in connection.execute("SELECT name FROM done")]
        assert sorted(names) == sorted(f"w{number}" for number in range(workers)), "each worked once"
    assert {entry["reason"] for entry in host.status()["finished"]} == {"exit 0"}
    after = host.wait_for_worker("clock")
    assert (after["pid"], after["restarts"]) == (clock["pid"], 0)
    assert host.status()["host"]["crash_count"] == 0


@pytest.mark.parametrize("workers", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_every_slot_can_have_its_connection(make_host: MakeHost, workers: int) -> None:
    """Each slot of an embedded host can connect at once, as a plain role too, beside a listener and an administrator."""
    text = configuration("embedded", workers, "session", 0.2)
    host = make_host(text.replace('bgw_name = "clock"\n', 'bgw_name = "clock"\nwake_on = ["news"]\n'), tasks=TASKS)
    host.start_and_wait()
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN")
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state IS NOT NULL"

        def sessions() -> Any:
            return connection.execute(query).fetchone()

        host.wait_until(lambda: sessions() == (workers,), "each worker is connected")
        listeners = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'bgworker %'"
        host.wait_until(lambda: connection.execute(listeners).fetchone() == (2,), "watch and listener are")
        # There is room for more than the slots need, also for who may not use what is kept for superusers.
        url = host.database_url().replace("postgres@", "app@")
        extra = [psycopg.connect(url) for _ in range(8)]
        for each in extra:
            each.close()
    assert REFUSED not in (host.data_directory / "log" / "postgresql.log").read_text()
    assert all(slot["state"] == "started" for slot in host.status()["slots"])


def test_a_thousand_slots(make_host: MakeHost) -> None:
    """The embedded server starts with connections for a thousand slots: memory is all that they cost."""
    host = make_host('[host]\nmax_worker_processes = 1000\n[database]\nurl = "embedded"\n')
    host.start_and_wait()
    with psycopg.connect(host.database_url()) as connection:
        query = "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        ((connections,),) = connection.execute(query).fetchall()
    assert connections >= 1000 + 8
    assert host.status()["host"]["max_worker_processes"] == 1000
