"""Singleton workers on several hosts that share one server: at no time do two of them run."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import bgworker
from bgworker import BgwHandleStatus
from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

HOST = '[host]\nmax_worker_processes = 8\nshutdown_timeout = 60\n[database]\nurl = "{url}"\n'
ONLY = """
[[worker]]
bgw_name = "only"
bgw_library_name = "tasks"
bgw_function_name = "only"
bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]
bgw_restart_time = 0.1
singleton = true
"""
#: Marks in one row per life when it began and when it was last seen, by the server's clock and over its own session.
TASKS = """
from bgworker import spi, worker

def only(arg):
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        spi.execute("INSERT INTO runs VALUES (pg_backend_pid(), clock_timestamp(), clock_timestamp())")
    for _ in worker.latch_loop(timeout=0.02):
        with spi.transaction():
            spi.execute("UPDATE runs SET seen = clock_timestamp() WHERE backend = pg_backend_pid()")
"""
CREATE = "CREATE TABLE IF NOT EXISTS runs (backend int, began timestamptz, seen timestamptz)"
OVERLAPS = "SELECT count(*) FROM runs a, runs b WHERE a.began < b.began AND a.seen >= b.began"
HOLDER = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"


def value(url: str, query: str, *params: Any) -> Any:
    """Return the first column of the first row, over a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query, params)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def holder(url: str) -> int:
    """Return the backend that holds the lock."""
    return int(value(url, HOLDER))


def wait_for_run(host: RunningHost, url: str, number: int) -> int:
    """Wait until this host's worker runs, as the life of this number, and has said so in the table; return its pid."""
    pid = int(host.wait_for_worker("only")["pid"])
    host.wait_until(lambda: value(url, "SELECT count(*) FROM runs") == number, f"run {number} has begun")
    return pid


def wait_for_standby(host: RunningHost, url: str, state: str = "not_yet_started") -> dict[str, Any]:
    """Wait until a host's worker says that the present holder keeps it from starting; return its slot."""

    def found() -> dict[str, Any] | None:
        slot = host.slot("only")
        pid = value(url, HOLDER)
        return slot if slot is not None and f"(backend PID {pid}," in slot["reason"] else None

    slot = host.wait_until(found, "the worker waits for the lock")
    assert slot is not None
    assert slot["state"] == state
    assert slot["started_at"] is None
    node = re.escape(os.uname().nodename[:31])
    pattern = (
        rf'waits for singleton lock held by "only" on host {node} \(backend PID \d+, connected since \S+\); starts when it is free'
    )
    assert re.fullmatch(pattern, slot["reason"]), slot["reason"]
    return slot


def test_one_of_two_hosts_at_a_time(make_host: MakeHost, bgworker_database: str) -> None:
    """However the active instance ends - its process, its session, by its handle, with its host - the other takes over."""
    url = bgworker_database
    value(url, CREATE)
    first, second = (make_host(HOST.format(url=url) + ONLY, tasks=TASKS) for _ in range(2))
    first.start_and_wait()
    pid = wait_for_run(first, url, 1)
    second.start_and_wait()
    wait_for_standby(second, url)
    assert second.run_cli("status", "--check").returncode == 0

    os.kill(pid, signal.SIGKILL)
    wait_for_run(second, url, 2)
    wait_for_standby(first, url, "waiting_restart")
    assert first.run_cli("status", "--check").returncode == 0, "a worker whose work another host does needs nobody"

    value(url, "SELECT pg_terminate_backend(%s)", holder(url))
    wait_for_run(first, url, 3)
    waiting = wait_for_standby(second, url, "waiting_restart")

    # A changed registration restarts it, and SIGTERM ends the wait long before shutdown_timeout.
    second.config_path.write_text(HOST.format(url=url) + ONLY + 'bgw_extra = "changed"\n')
    assert second.run_cli("reload").returncode == 0
    second.wait_until(lambda: (second.slot("only") or {}).get("pid") not in (None, waiting["pid"]), "another process waits")
    wait_for_standby(second, url, "waiting_restart")
    assert first.slot("only")["state"] == "started"  # type: ignore[index]

    with first.client() as client:
        client.terminate("only")
    wait_for_run(second, url, 4)
    with first.client() as client:
        client.start("only")
    wait_for_standby(first, url)

    assert second.process is not None
    second.process.kill()
    wait_for_run(first, url, 5)
    assert value(url, OVERLAPS) == 0
    assert first.stop() == 0


def test_dynamic_registrations_of_one_name(bgworker_host: MakeHost, bgworker_database: str) -> None:
    """C34, C35, C36: on one host, too, one runs; the other is not yet started, however long it waits, and stops when told."""
    url = bgworker_database
    value(url, CREATE)
    host = bgworker_host(HOST.format(url=url), tasks=TASKS)
    worker = bgworker.BackgroundWorker(
        bgw_name="only",
        bgw_library_name="tasks",
        bgw_function_name="only",
        bgw_flags=bgworker.DATABASE_WORKER_FLAGS,
        singleton=True,
    )
    with host.client() as client:
        first = client.register_dynamic_background_worker(worker)
        assert first.wait_for_startup(60)[0] is BgwHandleStatus.STARTED
        second, third = (client.register_dynamic_background_worker(worker) for _ in range(2))

        def waiting() -> int:
            return sum(str(slot["reason"]).startswith("waits for singleton lock") for slot in host.status()["slots"])

        host.wait_until(lambda: waiting() == 2, "both wait")
        with pytest.raises(bgworker.WaitTimeout):
            second.wait_for_startup(0.1)
        assert second.get_pid()[0] is BgwHandleStatus.NOT_YET_STARTED
        third.terminate()
        assert third.wait_for_shutdown(30)[0] is BgwHandleStatus.STOPPED
        first.terminate()
        assert second.wait_for_startup(60)[0] is BgwHandleStatus.STARTED
        assert first.wait_for_shutdown(30)[0] is BgwHandleStatus.STOPPED
        client.register_dynamic_background_worker(worker)
        host.wait_until(lambda: waiting() == 1, "another waits")
        second.terminate()
    assert value(url, OVERLAPS) == 0
    assert host.stop() == 0


@pytest.mark.slow
def test_database_goes_away(make_host: MakeHost) -> None:
    """Both end when their server does, say why, and one of them runs when it is back."""
    server = make_host('[host]\nmax_worker_processes = 8\n[database]\nurl = "embedded"\n')
    server.start_and_wait()
    url = server.database_url()
    value(url, CREATE)
    hosts = [make_host(HOST.format(url=url) + ONLY, tasks=TASKS) for _ in range(2)]
    hosts[0].start_and_wait()
    hosts[0].wait_for_worker("only")
    hosts[1].start_and_wait()
    wait_for_standby(hosts[1], url)
    server.stop()
    for host in hosts:
        host.wait_until(lambda host=host: (host.slot("only") or {}).get("last_exit"), "its worker has ended")  # type: ignore[misc]
    assert "FATAL" in hosts[1].log("only")
    assert "Traceback" not in hosts[1].log("only")
    server.start_and_wait()

    def states() -> list[str]:
        return sorted(str((host.slot("only") or {}).get("state")) for host in hosts)

    hosts[0].wait_until(lambda: states() == ["started", "waiting_restart"], "one of them runs again")
    active = next(host for host in hosts if host.slot("only")["state"] == "started")  # type: ignore[index]
    wait_for_standby(next(host for host in hosts if host is not active), url, "waiting_restart")
    assert value(url, OVERLAPS) == 0


def test_smart_shutdown_does_not_wait_for_it(bgworker_host: MakeHost, bgworker_database: str) -> None:
    """C39: a worker that never restarts, and waits for its lock, has nothing to finish."""
    host = bgworker_host(HOST.format(url=bgworker_database), tasks=TASKS)
    key = "SELECT pg_advisory_lock(('x' || left(encode(sha256('bgworker singleton only'), 'hex'), 16))::bit(64)::bigint)"
    with psycopg.connect(bgworker_database, autocommit=True, application_name="a human") as connection:
        connection.execute(key)
        flags = ("--flag", "BGWORKER_BACKEND_DATABASE_CONNECTION", "--singleton")
        assert host.run_cli("register", "tasks:only", "--name", "only", *flags).returncode == 0
        said = f'waits for singleton lock held by "a human" (backend PID {connection.info.backend_pid}, '
        host.wait_until(lambda: said in (host.slot("only") or {}).get("reason", ""), "it waits")
        stopped = host.run_cli("stop", "--mode", "smart")
        assert stopped.returncode == 0, stopped.stderr
