"""What docs/reliability.md promises in figures: each is measured and printed, and asserted with room for a slow machine.

``make test-slow`` runs them; ``pytest -m slow -rP tests/end_to_end/test_figures.py`` shows the figures. A bound asserted here is
about ten times the one that the document names: what is asserted is that nothing hangs, what is published is what was measured.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bgworker
from bgworker.testing import DEADLINE, RunningHost, processes_below

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MakeHost = Callable[..., RunningHost]
Figure = Callable[..., None]

TASKS = '''
"""Workers for the figures."""
import hashlib, os, signal, sys, time
from bgworker import worker

def hold(path):
    global canary
    canary = os.open(path, os.O_WRONLY)

def idle(path):
    hold(path) if path else None
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def busy(path):
    hold(path)
    while True:
        sum(range(100_000_000))

def ignores_term(path):
    hold(path)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker.unblock_signals()
    while True:
        time.sleep(3600)

def deaf(path):
    hold(path)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(3600)

def returns(arg):
    pass

def counts(arg):
    worker.unblock_signals()
    number = 0
    while True:
        print("line", number, flush=True)
        number += 1
        worker.wait_latch(timeout=0.005, events=worker.WL_TIMEOUT | worker.WL_LATCH_SET)
        worker.check_for_interrupts()

def floods(megabytes):
    worker.unblock_signals()
    block = ("x" * 1023 + "\\n") * 1024
    for _ in range(megabytes):
        sys.stdout.write(block)
    sys.stdout.flush()
    worker.report_activity("idle", "flood is over")
    for _ in worker.latch_loop():
        pass

def fails(arg):
    raise RuntimeError("as it should")
'''


def table(name: str, function: str, *more: str) -> str:
    """Return a [[worker]] table."""
    lines = ["[[worker]]", f'bgw_name = "{name}"', 'bgw_library_name = "tasks"', f'bgw_function_name = "{function}"', *more]
    return "\n".join(lines) + "\n"


def head(slots: int) -> str:
    """Return a [host] table; logs are not put aside, so that every line can be counted."""
    return (
        f"[host]\nmax_worker_processes = {slots}\nshutdown_timeout = 1.0\nlog_rotation_size = 0\n"
        'shared_preload_libraries = ["tasks"]\n'
    )


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Return what prints and records a figure: ``figure(name, values, unit)``."""

    def tell(name: str, values: list[float], unit: str) -> None:
        ordered = sorted(values)
        p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99))
        text = f"{name}: p50 {p50:.1f} p99 {p99:.1f} max {ordered[-1]:.1f} {unit}, n = {len(ordered)}"
        record_property(name, text)
        print(text)  # noqa: T201 - what this test is for

    return tell


def pid_of(host: RunningHost) -> int:
    assert host.process is not None
    return host.process.pid


def facts(pid: int) -> dict[str, int]:
    """Return descriptors, threads and resident KiB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = {key: int(re.search(rf"^{key}:\s+(\d+)", status, re.MULTILINE)[1]) for key in ("Threads", "VmRSS")}  # type: ignore[index]
    return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")), "threads": found["Threads"], "KiB": found["VmRSS"]}


def children(pid: int) -> dict[int, str]:
    """Return the children of a process with their titles; zombies have none."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().rstrip("\0")
    return found


def helper(host: RunningHost, name: str) -> int:
    """Wait for a helper process and return its pid."""

    def found() -> int | None:
        return next((pid for pid, title in children(pid_of(host)).items() if title == f"bgworker: {name}"), None)

    pid = host.wait_until(found, f"there is a {name}")
    assert pid is not None
    return pid


def milliseconds(began: float) -> float:
    return (time.monotonic() - began) * 1000


# -- nothing outlives the host -----------------------------------------------------------


@pytest.mark.parametrize("with_loader", [False, True], ids=["host", "host and loader"])
def test_orphan_lifetime(make_host: MakeHost, tmp_path: Path, figure: Figure, with_loader: bool) -> None:
    """C24, T07, T63: SIGKILL of a host with 64 workers, busy, stopped and deaf ones among them: how long the last one lives."""
    path = tmp_path / "canary"
    os.mkfifo(path)
    kinds = ["busy", "idle", "ignores_term", "deaf"]
    workers = "".join(table(f"{kind} {n}", kind, f'bgw_main_arg = "{path}"') for n in range(16) for kind in kinds)
    host = make_host(head(64) + workers, tasks=TASKS)
    lifetimes = []
    for _ in range(10):
        canary = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        host.start_and_wait()
        host.wait_until(lambda: [s["state"] for s in host.status()["slots"]] == ["started"] * 64, "64 run", timeout=120)
        for slot in host.status()["slots"]:
            # Every second idle one: stopped, and with nothing but the kernel to end it.
            if slot["bgw_name"].startswith("idle"):
                os.kill(slot["pid"], signal.SIGSTOP)
        doomed = [helper(host, "loader")] if with_loader else []
        began = time.monotonic()
        for pid in [*doomed, pid_of(host)]:
            os.kill(pid, signal.SIGKILL)
        assert select.select([canary], [], [], 30)[0]
        lifetimes.append(milliseconds(began))
        assert os.read(canary, 1) == b"", "end of file: no worker holds it"
        os.close(canary)
        pid_of(host)
        assert host.process is not None
        host.process.wait()
        deadline = time.monotonic() + DEADLINE
        while processes_below(str(host.directory)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not processes_below(str(host.directory))
    figure("last of 64 workers after SIGKILL", lifetimes, "ms")
    assert max(lifetimes) < 2500


# -- helpers are nobody's life -----------------------------------------------------------


@pytest.mark.parametrize("name", ["loader", "collector", "database"])
def test_killed_helper(make_host: MakeHost, figure: Figure, name: str) -> None:
    """C01, T05: a helper that is killed disturbs no worker and loses no line; how long until the next registration has started."""
    database = '[database]\nurl = "embedded"\n' if name == "database" else ""
    host = make_host(head(24) + database + "".join(table(f"counts-{n}", "counts") for n in range(4)), tasks=TASKS)
    host.start_and_wait()
    pids = {f"counts-{n}": host.wait_for_worker(f"counts-{n}")["pid"] for n in range(4)}
    times = []
    with host.client() as client:
        for number in range(10):
            victim = helper(host, name)
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            handle = client.register_dynamic_background_worker(
                bgworker.BackgroundWorker(bgw_name=f"next {number}", bgw_library_name="tasks", bgw_function_name="idle")
            )
            assert handle.wait_for_startup(DEADLINE).pid
            times.append(milliseconds(began))
            handle.terminate()
            host.wait_until(lambda v=victim: helper(host, name) != v, "there is another one")  # type: ignore[misc]
            # Past the length of life after which a helper's restart is immediate again.
            time.sleep(5.5)
        assert {name: (host.slot(name) or {})["pid"] for name in pids} == pids
    assert host.stop() == 0
    for worker in pids:
        numbers = [int(line.split()[-1]) for line in host.log(worker).splitlines() if re.search(r"line \d+$", line)]
        missing = sorted(set(range(max(numbers))) - set(numbers))
        assert not missing, f"{len(missing)} of {max(numbers)} lines are lost: {missing[:10]}"
    figure(f"next start after SIGKILL of the {name}", times, "ms")
    assert max(times) < 10_000


# -- churn -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10_000])
def test_many_lives_in_few_slots(make_host: MakeHost, figure: Figure, count: int) -> None:
    """C34, T01, T79: 10,000 workers one after another through 8 slots: no growth, no zombie, every old handle says STOPPED."""
    host = make_host(head(8), tasks=TASKS)
    host.start_and_wait()
    worker = bgworker.BackgroundWorker(bgw_name="short", bgw_library_name="tasks", bgw_function_name="returns")
    handles, times = [], []
    with host.client() as client:

        def life() -> None:
            began = time.monotonic()
            handle = client.register_dynamic_background_worker(worker)
            handle.wait_for_shutdown(DEADLINE)
            times.append(milliseconds(began))
            handles.append(handle)

        for _ in range(500):
            life()
        before = facts(pid_of(host))
        for _ in range(count - 500):
            life()
        after = facts(pid_of(host))
        assert {handle.get_pid().status for handle in handles} == {bgworker.BgwHandleStatus.STOPPED}
        newcomer = client.register_dynamic_background_worker(
            bgworker.BackgroundWorker(bgw_name="idle", bgw_library_name="tasks", bgw_function_name="idle", bgw_main_arg="")
        )
        assert newcomer.wait_for_startup(DEADLINE).pid
        assert {handle.get_pid().status for handle in handles} == {bgworker.BgwHandleStatus.STOPPED}
    figure("registered to ended and unregistered", times, "ms")
    print(f"host before and after: {before} {after}")  # noqa: T201
    assert "" not in children(pid_of(host)).values(), "a zombie"
    assert after["descriptors"] <= before["descriptors"] + 4
    assert after["threads"] == before["threads"] == 1
    assert after["KiB"] <= before["KiB"] + 2048


# -- hostile clients ---------------------------------------------------------------------


def drop(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.close()


@contextlib.contextmanager
def hostile_clients(path: str, count: int) -> Iterator[None]:
    """Keep so many connections busy: some silent, some with endless lines, some that ask and never read, some that come and go."""
    is_over = threading.Event()

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.connect(path)
        return connection

    def act(kind: int, connection: socket.socket) -> socket.socket:
        try:
            if kind == 1:
                connection.send(b"x" * 65_536)
            elif kind == 2:
                connection.send(b'{"id":1,"method":"status"}\n' * 100)
            elif kind == 3:
                raise BrokenPipeError
        except BlockingIOError:
            pass
        except OSError:
            drop(connection)
            return connect()
        return connection

    def run() -> None:
        connections = [connect() for _ in range(count)]
        while not is_over.is_set():
            for number, connection in enumerate(connections):
                connections[number] = act(number % 4, connection)
            is_over.wait(0.02)  # it is the host that is measured: it needs some of the processors itself
        for connection in connections:
            drop(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(DEADLINE)


def ask(client: Any, seconds: float, method: str) -> list[float]:
    """Ask again and again for a while; return how long each answer took, in milliseconds."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        getattr(client, method)()
        times.append(milliseconds(began))
    return times


def test_honest_client_among_hostile_ones(make_host: MakeHost, figure: Figure) -> None:
    """T44, T48: among 1,000 hostile connections: how long an honest client waits for its status, and how late restarts are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    host = make_host(head(16) + "".join(table(f"fails {n}", "fails", "bgw_restart_time = 1.0") for n in range(8)), tasks=TASKS)
    host.start_and_wait()
    try:
        with host.client() as client, host.client() as other:
            figure("status without hostile clients", ask(client, 3, "status"), "ms")
            with hostile_clients(str(host.data_directory / "run" / "control.sock"), 1000), other.events() as events:
                times = ask(client, 20, "status")
                late = lateness(events)
            after = facts(pid_of(host))
            figure("status among 1000 hostile connections", times, "ms")
            figure("restart later than its time", late, "ms")
            host.wait_until(lambda: facts(pid_of(host))["descriptors"] < 60, "the descriptors are given back")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(f"host: {after}")  # noqa: T201
    assert max(times) < 1000
    assert max(late) < 5000
    assert after["KiB"] < 200_000


def lateness(events: Any) -> list[float]:
    """Return by how much each start missed the second after its predecessor's end, in milliseconds, from the events so far."""
    ended: dict[str, float] = {}
    late = []
    with contextlib.suppress(bgworker.WaitTimeout):
        while True:
            event = events.next_event(0)
            name, at = event.get("bgw_name", ""), event.get("at")
            if event["event"] == "exited":
                ended[name] = seconds_of(at)
            elif event["event"] == "started" and name in ended:
                late.append((seconds_of(at) - ended.pop(name) - 1.0) * 1000)
    assert len(late) > 20
    return late


def seconds_of(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


# -- output ------------------------------------------------------------------------------


def test_worker_that_prints_a_gigabyte(make_host: MakeHost, figure: Figure) -> None:
    """T59: while a worker prints 1 GiB: how long the host's loop leaves a ping unanswered; every line is in the log."""
    host = make_host(head(8) + table("floods", "floods", "bgw_main_arg = 1024"), tasks=TASKS)
    host.start()
    host.wait_for_state("run")
    times: list[float] = []
    began = time.monotonic()
    with host.client() as client:
        while (host.slot("floods") or {}).get("activity", {}).get("text") != "flood is over":
            times += ask(client, 1, "ping")
            assert time.monotonic() - began < 600
    took = time.monotonic() - began
    figure("ping while a worker prints 1 GiB", times, "ms")
    print(f"1 GiB in {took:.0f} s, {1024 / took:.0f} MiB/s")  # noqa: T201
    lines = 0
    logs = sorted((host.data_directory / "log" / "workers").iterdir())

    def count() -> int:
        return sum(path.read_bytes().count(b"x" * 1023) for path in logs)

    lines = host.wait_until(lambda: n if (n := count()) >= 1024 * 1024 else 0, "every line is written")
    assert lines == 1024 * 1024
    assert max(times) < 500
    assert facts(pid_of(host))["KiB"] < 200_000


# -- reloads -----------------------------------------------------------------------------


def test_two_hundred_reloads(make_host: MakeHost, figure: Figure) -> None:
    """C25, T79: 200 reloads with workers that come, change and go, every tenth of a broken file: the host does not grow."""
    names = ["idle one", "idle two", "idle three"]
    # A spare is a child with descriptors, and goes and comes with each loader.
    host = make_host(head(16) + "spare_workers = 0\n" + table("idle", "idle", 'bgw_main_arg = ""'), tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    good = host.config_path.read_text()
    times, before = [], {}
    with host.client() as client:
        for number in range(220):
            if number == 20:
                before = facts(pid_of(host))
            text = good + "".join(table(name, "idle", f'bgw_main_arg = ""\nbgw_type = "t{number}"') for name in names[: number % 4])
            host.config_path.write_text(text if number % 10 else text + "broken = [")
            began = time.monotonic()
            if number % 10:
                client.reload()
            else:
                with pytest.raises(bgworker.ConfigurationError):
                    client.reload()
            times.append(milliseconds(began))
        assert (host.slot("idle") or {})["pid"] == pid
        host.config_path.write_text(good)
        client.reload()
        host.wait_until(lambda: len(client.slots()) == 1, "those that are not configured any more have gone")
    host.wait_until(lambda: len(children(pid_of(host))) == 3, "one loader is left, the collector, and a worker")
    after = facts(pid_of(host))
    figure("reload", times, "ms")
    print(f"host before and after 200 reloads: {before} {after}")  # noqa: T201
    assert after["descriptors"] <= before["descriptors"] + 4
    assert after["threads"] == 1
    assert after["KiB"] <= before["KiB"] + 2048
