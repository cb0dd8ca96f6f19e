"""A whole host on a server that somebody else runs: standby, promotion, failover, and a server that comes and goes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker import WaitTimeout
from bgworker.testing import RunningHost
from tests.integration.database.driving import Server

MakeHost = Callable[..., RunningHost]
MakeServer = Callable[..., Server]

HEAD = '[host]\nmax_worker_processes = 8\nshared_preload_libraries = ["tasks"]\n[database]\nurl = "{url}"\n'

TASKS = """
import psycopg
from bgworker import spi, worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def reader(arg):
    "Tries to write as soon as it can read, and says what came of it."
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        in_recovery = spi.execute("SELECT pg_is_in_recovery()").fetchone()[0]
    try:
        with spi.transaction():
            spi.execute("CREATE TABLE written (x int)")
        worker.report_activity("wrote", "")
    except psycopg.errors.ReadOnlySqlTransaction as error:
        worker.report_activity("refused" if in_recovery else "odd", str(error))
    for _ in worker.latch_loop():
        pass

def writer(arg):
    "Adds a row at each start."
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        spi.execute("CREATE TABLE IF NOT EXISTS lives (name text)")
        spi.execute("INSERT INTO lives VALUES (%s)", (worker.my_bgworker_entry().bgw_name,))
    for _ in worker.latch_loop():
        pass
"""


def table(name: str, function: str, *keys: str, connects: bool = True) -> str:
    """Return one [[worker]]."""
    flags = '["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]' if connects else '["BGWORKER_SHMEM_ACCESS"]'
    lines = ("[[worker]]", f'bgw_name = "{name}"', 'bgw_library_name = "tasks"', f'bgw_function_name = "{function}"')
    return "\n".join([*lines, f"bgw_flags = {flags}", "bgw_restart_time = 0.1", *keys, ""])


START = 'bgw_start_time = "BgWorkerStart_{}"'
WITH_PHASE = 'stop_when = "phase_lost"'


def facts(host: RunningHost, *names: str) -> list[tuple[str, int | None, int]]:
    """Return state, pid and restarts of some workers."""
    slots = {slot["bgw_name"]: slot for slot in host.status()["slots"]}
    return [(slots[name]["state"], slots[name]["pid"], slots[name]["restarts"]) for name in names]


def reason(host: RunningHost, name: str) -> str:
    """Return the reason of a worker, or nothing."""
    return str((host.slot(name) or {}).get("reason", ""))


@pytest.fixture
def primary(make_server: MakeServer) -> Server:
    """A read-write server."""
    server = make_server()
    server.start()
    return server


def test_host_on_a_standby_and_its_promotion(make_host: MakeHost, make_server: MakeServer, primary: Server) -> None:
    """C07: on a hot standby the host is consistent and its readers read; promotion starts the others and disturbs nobody."""
    standby = make_server(primary)
    standby.start()
    host = make_host(
        HEAD.format(url=standby.local_url)
        + table("clock", "idle", START.format("PostmasterStart"), connects=False)
        + table("reader", "reader", START.format("ConsistentState"), WITH_PHASE)
        + table("writer", "writer"),
        tasks=TASKS,
    )
    host.start_and_wait("consistent")
    host.wait_for_worker("clock")
    host.wait_until(lambda: host.wait_for_worker("reader")["activity"]["state"] == "refused", "the reader has been refused")
    waiting = host.wait_for_worker("writer", "not_yet_started")
    assert waiting["reason"] == "waits for the database to be read-write: it is a standby; starts on promotion"
    assert "external, read-only: it is a standby" in host.run_cli("status").stdout
    before = facts(host, "clock", "reader")
    with host.client() as client, client.events() as events:
        standby.program("pg_ctl", "promote", "-D", str(standby.data))
        host.wait_for_worker("writer")
        host.wait_until(lambda: standby_lives(standby) == [("writer",)], "the writer has written")
        seen = [event for event in drain(events) if event["event"] != "started"]
    assert [(event["event"], event["state"]) for event in seen] == [("host", "run")]
    assert facts(host, "clock", "reader") == before, "nobody is restarted"
    assert [restarts for _state, _pid, restarts in facts(host, "clock", "reader", "writer")] == [0, 0, 0]


def standby_lives(server: Server) -> list[Any]:
    """Return who has written into this server."""
    with server.connect() as connection:
        if connection.execute("SELECT to_regclass('lives')").fetchone() == (None,):
            return []
        return connection.execute("SELECT name FROM lives").fetchall()


def drain(events: Any) -> list[dict[str, Any]]:
    """Return the events that have come."""
    seen = []
    try:
        while True:
            seen.append(events.next_event(0))
    except WaitTimeout:
        return seen


def test_absent_server_and_its_return(make_host: MakeHost, make_server: MakeServer) -> None:
    """C07: without its server the host is up, says what it tries, and runs who needs none; the server's arrival starts the rest."""
    server = make_server()
    host = make_host(
        HEAD.format(url=server.local_url)
        + table("clock", "idle", START.format("PostmasterStart"), connects=False)
        + table("writer", "writer")
        + table("bound", "idle", WITH_PHASE, connects=False),
        tasks=TASKS,
    )
    host.start_and_wait("starting")
    host.wait_for_worker("clock")
    host.wait_until(lambda: "next try in" in reason(host, "writer"), "the worker says what is tried")
    view = host.status()["host"]["database"]
    assert (view["phase"], "next try in" in view["detail"]) == ("unreachable", True)
    assert reason(host, "writer").startswith("waits for the database to be read-write: ")
    check = host.run_cli("status", "--check")
    assert check.returncode == 1
    assert "The database cannot be reached: " in check.stdout
    server.start()
    host.wait_for_state("run")
    host.wait_until(lambda: standby_lives(server) == [("writer",)], "the writer has written")
    host.wait_for_worker("bound")
    # And away again: C07 leaves the workers alone, and the one that asked for it is stopped.
    before = facts(host, "clock", "bound")
    server.stop(signal.SIGINT)
    stopped = host.wait_for_worker("bound", "waiting_restart")
    assert stopped["reason"].startswith("stopped because the database is not read-write (exit 1); waits for the database")
    assert stopped["config"]["stop_when"] == "phase_lost"
    assert (stopped["last_exit"]["code"], stopped["restart_at"]) == (1, None)
    assert host.status()["host"]["state"] == "starting"
    assert facts(host, "clock") == before[:1]
    assert 'Background worker "bound"' not in host.run_cli("status", "--check").stdout, "the database is the trouble"
    server.start()
    (_state, pid, restarts) = before[1]
    again = host.wait_for_worker("bound")
    assert (again["restarts"], again["reason"]) == (restarts + 1, "")
    assert again["pid"] != pid
    assert facts(host, "clock") == before[:1]


def test_database_process_that_is_replaced_is_no_lost_phase(make_host: MakeHost, primary: Server) -> None:
    """SIGKILL of the database process loses no phase: not even workers that are stopped with it notice."""
    host = make_host(HEAD.format(url=primary.local_url) + table("bound", "writer", WITH_PHASE), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("bound")
    before = facts(host, "bound")
    first = database_process(host)
    os.kill(first, signal.SIGKILL)
    with primary.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bgworker database'"
        host.wait_until(lambda: database_process(host) not in (0, first), "another database process runs")
        host.wait_until(lambda: connection.execute(query).fetchone() == (1,), "it watches the server")
    assert host.status()["host"]["state"] == "run"
    assert facts(host, "bound") == before


def database_process(host: RunningHost) -> int:
    """Return the pid of the host's database process; 0 while there is none."""
    assert host.process is not None
    pid = host.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has just been reaped
        if command.startswith("bgworker: database") or "bgworker._database" in command:
            return int(child)
    return 0


def test_failover(make_host: MakeHost, make_server: MakeServer, primary: Server) -> None:
    """With two hosts and target_session_attrs the host follows the primary: the old one is killed, the standby promoted."""
    standby = make_server(primary)
    standby.start()
    hosts, ports = f"{primary.directory},{standby.directory}", f"{primary.port},{standby.port}"
    url = f"postgresql://postgres@/postgres?host={hosts}&port={ports}&target_session_attrs=read-write"
    host = make_host(
        HEAD.format(url=url) + table("clock", "idle", connects=False) + table("bound", "writer", WITH_PHASE),
        tasks=TASKS,
    )
    host.start_and_wait()
    host.wait_until(lambda: standby_lives(standby) == [("bound",)], "the row has reached the standby")
    before = facts(host, "clock", "bound")
    primary.stop(signal.SIGQUIT)
    host.wait_for_worker("bound", "waiting_restart")
    host.wait_until(lambda: "session is read-only" in host.status()["host"]["database"]["detail"], "the standby is refused")
    standby.program("pg_ctl", "promote", "-D", str(standby.data))
    host.wait_for_state("run")
    host.wait_for_worker("bound")
    host.wait_until(lambda: standby_lives(standby) == [("bound",)] * 2, "the next life has written into the new primary")
    assert facts(host, "clock") == before[:1], "a worker that did not ask for it is left alone"


def test_first_server_that_answers_is_taken(make_host: MakeHost, make_server: MakeServer, primary: Server) -> None:
    """Without target_session_attrs the first host that answers decides the phase, be it a standby beside a primary."""
    standby = make_server(primary)
    standby.start()
    hosts, ports = f"{standby.directory},{primary.directory}", f"{standby.port},{primary.port}"
    host = make_host(HEAD.format(url=f"postgresql://postgres@/postgres?host={hosts}&port={ports}"))
    host.start_and_wait("consistent")
