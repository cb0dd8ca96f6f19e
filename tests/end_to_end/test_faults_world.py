"""Faults of the world around a host, by their numbers in docs/reliability.md: clocks, names of files, memory, databases."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from bgworker import BackgroundWorker, BgwHandleStatus
from bgworker.testing import DEADLINE, RunningHost

MakeHost = Callable[..., RunningHost]
HEAD = '[host]\nmax_worker_processes = 8\nshutdown_timeout = 1.0\nshared_preload_libraries = ["tasks"]\n'
TASKS = '''
"""Workers for the tests."""
import os, random, sys, time
from bgworker import spi, worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def fails(arg):
    worker.unblock_signals()
    raise RuntimeError("as it should")

def returns(arg):
    pass

def is_memory(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd")
    except OSError:
        return False

def scribbles(seconds):
    "Write rubbish over every shared table that this process holds, and try to cut them off."
    worker.unblock_signals()
    refused, noise, end = 0, random.Random(1), time.monotonic() + seconds
    memory = [fd for fd in range(100) if is_memory(fd)]
    while time.monotonic() < end:
        for fd in memory:
            for attempt in (lambda: os.ftruncate(fd, 0), lambda: os.pwrite(fd, noise.randbytes(512), noise.randrange(4096))):
                try:
                    attempt()
                except OSError:
                    refused += 1
    print("scribbled over", len(memory), "refused", refused, flush=True)
    for _ in worker.latch_loop():
        pass

def holds_lock(arg):
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        spi.execute("INSERT INTO work VALUES (%s)", [os.getpid()])
        spi.execute("SELECT pg_advisory_xact_lock(7)")
        print("holds", flush=True)
        time.sleep(3600)
'''


def table(name: str, function: str, *more: str) -> str:
    """Return a [[worker]] table."""
    lines = ["[[worker]]", f'bgw_name = "{name}"', 'bgw_library_name = "tasks"', f'bgw_function_name = "{function}"', *more]
    return "\n".join(lines) + "\n"


# -- who is told ------------------------------------------------------------------------


def test_who_registers_is_told_once(make_host: MakeHost) -> None:
    """C13, C29, T01: a worker that returns is never restarted, its slot is free, and bgw_notify_pid hears of start and end."""
    host = make_host(HEAD, tasks=TASKS)
    host.start_and_wait()
    told: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda signum, frame: told.append(signum))
    try:
        with host.client() as client:
            worker = BackgroundWorker(
                bgw_name="w", bgw_library_name="tasks", bgw_function_name="idle", bgw_notify_pid=os.getpid(), bgw_restart_time=0
            )
            handle = client.register_dynamic_background_worker(worker)
            handle.wait_for_startup(DEADLINE)
            host.wait_until(lambda: len(told) == 1, "the start is told")
            handle.terminate()
            handle.wait_for_shutdown(DEADLINE)
            host.wait_until(lambda: len(told) == 2, "the end is told")
            assert not client.slots()
            # Answered after everything that the end has caused.
            client.ping()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert len(told) == 2


# -- the clock ---------------------------------------------------------------------------

#: Put on PYTHONPATH of a host and of everything below it: the wall clock of Python is off by what a file says.
SITE = """
import datetime, os, time
_true = time.time
def shifted():
    try:
        with open(os.environ["CLOCK"]) as file:
            return _true() + float(file.read() or 0)
    except OSError:
        return _true()
time.time = shifted
"""


def test_wall_clock_that_jumps(make_host: MakeHost, tmp_path: Path) -> None:
    """T26: the wall clock goes back an hour, and on a year, with restarts pending: these come on time, no duration is negative."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    clock = tmp_path / "clock"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CLOCK": str(clock)}
    host = make_host(HEAD + table("idle", "idle") + table("fails", "fails", "bgw_restart_time = 1.0"), tasks=TASKS)
    with host.output.open("ab") as output:
        command = [sys.executable, "-P", "-m", "bgworker", "run", "-c", str(host.config_path)]
        host.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=host.directory, env=environment)
    host.wait_for_state("run")
    pid = host.wait_for_worker("idle")["pid"]
    for shift in (-3600, 31_536_000):
        restarts = host.wait_for_worker("fails", "waiting_restart")["restarts"]
        clock.write_text(str(shift))
        host.wait_until(lambda r=restarts: (host.slot("fails") or {}).get("restarts", 0) > r, "it is restarted", timeout=20)  # type: ignore[misc]
        command = [sys.executable, "-P", "-m", "bgworker", "status", "-c", str(host.config_path)]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert shown.returncode == 0, shown.stderr
        assert not re.search(r"\s-\d", shown.stdout), shown.stdout
    assert (host.slot("idle") or {})["pid"] == pid
    assert host.stop() == 0


# -- the shared tables -------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_rubbish_in_the_shared_tables(make_host: MakeHost, seconds: int) -> None:
    """T40, T41: a worker that scribbles over all shared memory it holds, or cuts it off, changes nothing that status says."""
    # Restarted never: what it does to its own activity record, and to others', is theirs to read as it comes.
    scribbler = table("scribbler", "scribbles", f"bgw_main_arg = {seconds}")
    host = make_host(HEAD + scribbler + table("idle", "idle"), tasks=TASKS)
    host.start_and_wait()
    pids = {name: host.wait_for_worker(name)["pid"] for name in ("scribbler", "idle")}
    with host.client() as client:
        handle = client.find("idle")
        while "scribbled over" not in host.log("scribbler"):
            shown = {slot["bgw_name"]: (slot["pid"], slot["state"]) for slot in client.status()["slots"]}
            assert shown == {name: (pid, "started") for name, pid in pids.items()}
            assert handle.get_pid().pid == pids["idle"]
            host.wait_until(lambda: True, "the log is looked at again")
    words = next(line for line in host.log("scribbler").splitlines() if "scribbled over" in line).split()
    assert words[-3] == "2", "the slot table and the activity table"
    assert int(words[-1]) > 0, "writing the one and cutting off both is refused"


@pytest.mark.parametrize("updates", [2_000, pytest.param(50_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_reader_of_a_busy_table(make_host: MakeHost, updates: int) -> None:
    """T43: who reads the slot table while the host writes it all the time gets no torn record: a pid only with its own start."""
    host = make_host(HEAD, tasks=TASKS)
    host.start_and_wait()
    seen: set[BgwHandleStatus] = set()
    with host.client() as client, host.client() as other:
        worker = BackgroundWorker(bgw_name="w", bgw_library_name="tasks", bgw_function_name="idle", bgw_restart_time=0)
        handle = client.register_dynamic_background_worker(worker)
        handle.wait_for_startup(DEADLINE)
        pids: set[int | None] = set()
        is_over = threading.Event()

        def churn() -> None:
            # Each wish is written to the table, be it fulfilled or not.
            for _ in range(updates // 50):
                other.restart(str(handle))
                other.ping()
            is_over.set()

        thread = threading.Thread(target=churn, daemon=True)
        thread.start()
        reads = 0
        while not is_over.is_set():
            status = handle.get_pid()
            reads += 1
            seen.add(status.status)
            pids.add(status.pid)
            assert (status.pid is not None) == (status.status is BgwHandleStatus.STARTED)
        thread.join(DEADLINE)
    assert reads > 100
    assert seen <= {BgwHandleStatus.STARTED, BgwHandleStatus.STOPPED, BgwHandleStatus.NOT_YET_STARTED}
    assert all(pid is None or 1 < pid < 2**22 for pid in pids)


# -- the control socket ------------------------------------------------------------------


def memory_of(pid: int) -> int:
    """Return the resident memory of a process, in KiB."""
    return int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])


def test_endless_line_costs_no_memory(host: RunningHost) -> None:
    """T44: a hundred megabytes without a newline end their connection at the limit, and cost the host less than a megabyte."""
    assert host.process is not None
    assert host.status()["host"]["state"] == "run"
    before = memory_of(host.process.pid)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(DEADLINE)
        peer.connect(str(host.data_directory / "run" / "control.sock"))
        sent = 0
        try:
            while sent < 100 * 1_048_576:
                sent += peer.send(b"x" * 65_536)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert sent < 1_048_576
    assert host.status()["host"]["state"] == "run"
    assert memory_of(host.process.pid) - before < 1024


@pytest.fixture
def deep_directory(tmp_path: Path) -> Path:
    """A data directory whose path is longer than a socket's may be."""
    return tmp_path / ("d" * 100) / ("e" * 100) / "data"


def test_path_that_is_too_long_for_a_socket(make_host: MakeHost, deep_directory: Path) -> None:
    """T50: a socket path of more than 107 bytes works, for the host and for its clients."""
    deep_directory.parent.mkdir(parents=True)
    host = make_host(f'[host]\ndata_directory = "{deep_directory}"\nmax_worker_processes = 2\n')
    host.data_directory = deep_directory
    host.start_and_wait()
    assert host.run_cli("status", "--json").returncode == 0
    assert host.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a socket of somebody else's")
def test_socket_of_somebody_else(make_host: MakeHost) -> None:
    """T50: another user's socket in the place of ours is refused by name, and left where it is."""
    host = make_host("[host]\nmax_worker_processes = 2\n")
    run = host.data_directory / "run"
    host.data_directory.mkdir(mode=0o711)
    run.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(run / "control.sock"))
        os.chown(run / "control.sock", 12345, 12345)
        host.start()
        assert host.process is not None
        assert host.process.wait(timeout=DEADLINE) == 2
    assert "something else is there" in host.output.read_text()
    assert (run / "control.sock").stat().st_uid == 12345


# -- the database ------------------------------------------------------------------------


def test_worker_killed_in_a_transaction(make_host: MakeHost) -> None:
    """T71: a worker killed in a transaction leaves no row and no lock: the next one has both at once."""
    flags = 'bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]'
    host = make_host(HEAD + '[database]\nurl = "embedded"\n', tasks=TASKS)
    host.start_and_wait()
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE work (pid int)")
        host.config_path.write_text(HEAD + '[database]\nurl = "embedded"\n' + table("holder", "holds_lock", flags))
        assert host.run_cli("reload").returncode == 0
        host.wait_until(lambda: host.log("holder").count("holds") == 1, "the first one holds the lock")
        assert connection.execute("SELECT pg_try_advisory_lock(7)").fetchone() == (False,)
        os.kill(host.wait_for_worker("holder")["pid"], signal.SIGKILL)
        host.wait_until(lambda: host.log("holder").count("holds") == 2, "the next one holds it")
        assert connection.execute("SELECT count(*) FROM work").fetchone() == (0,)
        # The connection cut, by an administrator: the transaction is as gone, and the worker comes back.
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        holder = host.wait_for_worker("holder")
        os.kill(holder["pid"], signal.SIGKILL)
        host.wait_until(lambda: host.log("holder").count("holds") == 3, "and the next one")
        assert connection.execute("SELECT count(*) FROM work").fetchone() == (0,)
