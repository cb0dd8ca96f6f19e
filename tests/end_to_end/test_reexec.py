"""The host executes itself anew: what goes on unharmed, what is refused, and what happens in the moment in between."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import bgworker
from bgworker.errors import HostError, WaitTimeout
from bgworker.testing import DEADLINE, RunningHost, processes_below

from .points import Points

WORKERS = """
import os, sys, time
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def shares(arg):
    worker.unblock_signals()
    memory = worker.shared_memory("box", 64)
    for _ in worker.latch_loop(timeout=0.02):
        with memory.lock():
            memory.buffer[0] = (memory.buffer[0] + 1) % 250

def ends(arg):
    worker.unblock_signals()
    while not os.path.exists(arg):
        worker.wait_latch(timeout=0.02)
        worker.reset_latch()
    print("it has seen the file", file=sys.stderr)
    sys.exit(1)

def prints(arg):
    worker.unblock_signals()
    n = 0
    while not os.path.exists(arg):
        n += 1
        print(n, "x" * 100, end="")
        sys.stdout.flush()
        time.sleep(0.0005)
        print(" end of", n)
    print("the last is", n)
    sys.exit(0)
"""


def a_worker(name: str, function: str = "idle", more: str = "") -> str:
    """Return one [[worker]]."""
    return f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "mods"\nbgw_function_name = "{function}"\n{more}\n'


CROWD = (
    "[host]\nmax_worker_processes = 32\nspare_workers = 1\n"
    'shared_preload_libraries = []\n[settings.unused]\n'
    + "".join(a_worker(f"idle{n}") for n in range(12))
    + a_worker("a", "shares") + a_worker("b", "shares")
    + a_worker("chief", "idle", "essential = true")
    + a_worker("late", "nothere", "bgw_restart_time = 3600")
    + a_worker("nightly", "idle", 'schedule = "0 3 1 1 *"\nbgw_restart_time = "BGW_NEVER_RESTART"')
    + a_worker("watched", "shares", "watchdog = 20.0")
    + '[[worker]]\nbgw_name = "program"\ncommand = ["sleep", "1000"]\n'
)  # fmt: skip


@pytest.fixture
def points() -> Iterator[Points]:
    """Injection points that this test answers."""
    points = Points()
    yield points
    points.close()


@pytest.fixture
def held(make_host: Callable[..., RunningHost], points: Points) -> RunningHost:
    """A host with two workers whose processes come to the injection points."""
    host = make_host("[host]\nmax_worker_processes = 8\n" + a_worker("one") + a_worker("two"), mods=WORKERS)
    points.start(host)
    host.wait_for_worker("one")
    host.wait_for_worker("two")
    return host


def pids(host: RunningHost) -> dict[str, int | None]:
    """Return the pid of each worker, by name."""
    return {slot["bgw_name"]: slot["pid"] for slot in host.status()["slots"]}


def host_pid(host: RunningHost) -> int:
    """Return the host's pid."""
    assert host.process is not None
    return host.process.pid


def descriptors(host: RunningHost) -> list[str]:
    """Return what the host has open, without the numbers of pipes and sockets."""
    directory = f"/proc/{host_pid(host)}/fd"
    return sorted(re.sub(r"\d+", "N", os.readlink(f"{directory}/{fd}")) for fd in os.listdir(directory))


def at_rest(host: RunningHost) -> list[str]:
    """Return what the host has open when nothing comes or goes: a client that has just left may still be among it."""
    found: list[str] = []

    def is_at_rest() -> bool:
        before, found[:] = list(found), descriptors(host)
        return found == before

    host.wait_until(is_at_rest, "the host's descriptors stay the same")
    return found


def reexec(host: RunningHost) -> dict[str, Any]:
    """Have the host execute itself anew."""
    with host.client() as client:
        return client.reexec()


class RawClient:
    """A client that speaks the protocol by hand."""

    def __init__(self, host: RunningHost) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(host.data_directory / "run/control.sock"))
        self.lines = self.socket.makefile("rb")
        _greeting, fds, _flags, _address = socket.recv_fds(self.socket, 65536, 4)
        for fd in fds:
            os.close(fd)

    def close(self) -> None:
        """End the connection."""
        self.lines.close()
        self.socket.close()


def test_workers_connections_and_waits_go_on(bgworker_host: Callable[..., RunningHost]) -> None:
    """T80: twenty workers of all kinds, a client's wait, its events, its handles and half of its request outlive two executions."""
    host = bgworker_host(CROWD, start=False, mods=WORKERS)
    host.start_and_wait()
    host.wait_for_worker("late", "waiting_restart")
    for name in ("idle11", "a", "b", "chief", "watched", "program"):
        host.wait_for_worker(name)
    before = pids(host)
    raw = RawClient(host)
    request = json.dumps({"id": "half", "method": "ping", "params": {}}).encode() + b"\n"
    with host.client() as client, client.events() as events:
        dynamic = bgworker.BackgroundWorker(
            bgw_name="dynamic", bgw_library_name="mods", bgw_function_name="idle", bgw_restart_time=0.1
        )
        handle = client.register_dynamic_background_worker(dynamic)
        handle.wait_for_startup(DEADLINE)
        pid = handle.get_pid().pid
        raw.socket.sendall(json.dumps({"id": 1, "method": "wait", "params": {"handle": str(handle), "for": "shutdown"}}).encode())
        raw.socket.sendall(b'\n{"id": 2, "method": "ping"}\n')
        assert json.loads(raw.lines.readline())["id"] == 2  # so the host has taken the wait, too
        ended: list[Any] = []
        waiter = threading.Thread(target=lambda: ended.append(handle.wait_for_shutdown(DEADLINE)))
        waiter.start()
        raw.socket.sendall(request[:10])
        first = client.reexec()
        raw.socket.sendall(request[10:25])
        second = client.reexec()
        raw.socket.sendall(request[25:])
        assert json.loads(raw.lines.readline()) == {"id": "half", "result": {}}
        assert first["pid"] == second["pid"] == client.host_pid == host_pid(host)
        assert {name: number for name, number in pids(host).items() if name != "dynamic"} == before
        assert handle.get_pid().pid == pid
        assert not ended
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        waiter.join(DEADLINE)
        assert ended, "the wait that began before both executions ends with the worker"
        answer = json.loads(raw.lines.readline())
        assert (answer["id"], answer["result"]["status"]) == (1, "STOPPED")
        while (event := events.next_event(DEADLINE)).get("event") != "exited":
            pass
        assert event["bgw_name"] == "dynamic"
        assert "signal 9" in event["last_exit"]["reason"]
        host.wait_until(lambda: handle.get_pid().pid not in (None, pid), "the killed worker is back")
        assert handle.last_exit() is not None
    raw.close()
    assert (first["workers"], second["workers"]) == (len([p for p in before.values() if p]) + 1,) * 2
    assert second["waits"] in (1, 2)
    os.kill(before["a"] or 0, signal.SIGSEGV)
    host.wait_until(lambda: (host.slot("b") or {}).get("restarts") == 1, "who shares memory with the crashed worker starts again")
    host.wait_for_worker("a")
    assert host.stop() == 0
    log = host.log()
    assert log.count("executed the host anew") == 2
    assert "ended (signal" not in log, "a helper that was ended on purpose is no trouble"


def test_nothing_is_left_over(bgworker_host: Callable[..., RunningHost]) -> None:
    """T80: a host that has executed itself anew has the descriptors and the processes that it had before."""
    host = bgworker_host(CROWD, start=False, mods=WORKERS)
    host.start_and_wait()
    host.wait_for_worker("late", "waiting_restart")
    for name in ("idle11", "a", "b", "chief", "watched", "program"):
        host.wait_for_worker(name)
    _settled(host)
    before, processes = at_rest(host), sorted(title.strip() for title in processes_below(str(host.directory)).values())
    for _ in range(3):
        reexec(host)
    _settled(host)
    assert at_rest(host) == before
    assert sorted(title.strip() for title in processes_below(str(host.directory)).values()) == processes


def _settled(host: RunningHost) -> None:
    """Wait until the helpers run and the spare is there."""
    directory = f"/proc/{host_pid(host)}/task/{host_pid(host)}/children"

    def titles() -> list[str]:
        found = []
        for pid in Path(directory).read_text().split():
            try:
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                return []
        return found

    def is_settled() -> bool:
        words = " ".join(titles())
        return "bgworker: loader" in words and "bgworker: collector" in words

    host.wait_until(is_settled, "all helpers run")


def test_signal_does_the_same(host: RunningHost) -> None:
    """SIGUSR2 to the host is `bgworker reexec` without an answer, and the command says what was carried."""
    assert host.process is not None
    host.process.send_signal(signal.SIGUSR2)
    host.wait_until(lambda: "executed the host anew" in host.log(), "the log says so")
    done = host.run_cli("reexec")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"host (PID {host_pid(host)}) has executed itself anew" in done.stdout
    told = json.loads(host.run_cli("reexec", "--json").stdout)
    assert told["pid"] == host_pid(host)
    assert told["clients"] == 1


def test_no_line_is_lost(bgworker_host: Callable[..., RunningHost], tmp_path: Path) -> None:
    """T80: what a worker prints all the while arrives whole and in order, also the line that was half printed."""
    stop = tmp_path / "stop"
    host = bgworker_host(
        "[host]\nmax_worker_processes = 4\n" + a_worker("printer", "prints", f'bgw_main_arg = "{stop}"'), mods=WORKERS
    )
    host.wait_for_worker("printer")
    for _ in range(3):
        reexec(host)
    stop.touch()
    host.wait_until(lambda: "the last is" in host.log("printer"), "the printer has ended")
    text = host.log("printer")
    count = int(re.findall(r"the last is (\d+)", text)[0])
    numbers = [int(number) for number in re.findall(r" printer: (\d+) x{100} end of \1$", text, re.MULTILINE)]
    assert numbers == list(range(1, count + 1))


def test_lines_that_were_lost_are_told_afterwards(bgworker_host: Callable[..., RunningHost]) -> None:
    """T23: lines that a collector could not write are counted in their file by the one that follows an execution."""
    talks = (
        "from bgworker import worker\n\ndef main(arg):\n"
        "    worker.unblock_signals()\n    for _ in worker.latch_loop():\n        print('it talks')\n"
    )
    host = bgworker_host("[host]\nmax_worker_processes = 4\n" + a_worker("talker", "main").replace("mods", "talks"), talks=talks)
    pid = host.wait_for_worker("talker")["pid"]
    os.kill(pid, signal.SIGUSR1)
    host.wait_until(lambda: "it talks" in host.log("talker"), "it is heard")
    place = host.data_directory / "log" / "workers"
    shutil.rmtree(place)
    place.write_text("in the way")
    os.kill(pid, signal.SIGUSR1)
    host.wait_until(lambda: "could not write file" in host.output.read_text(), "a line is lost")
    reexec(host)
    place.unlink()
    os.kill(pid, signal.SIGUSR1)
    host.wait_until(lambda: host.log("talker").count("\n") >= 2, "it is told")
    assert re.fullmatch(r".*WARNING:  [1-9][0-9]* lines? lost: Not a directory\n.* talker: it talks\n", host.log("talker"))


HOLDER = """
import os, time
from bgworker import spi, worker

def holds(arg):
    worker.unblock_signals()
    worker.connect()
    with spi.transaction():
        spi.execute("create table held (n int)")
    with spi.transaction():
        spi.execute("insert into held values (1)")
        open(arg + ".open", "w").close()
        while not os.path.exists(arg):
            time.sleep(0.02)
    for _ in worker.latch_loop():
        with spi.transaction():
            spi.execute("insert into held values (2)")
"""


def test_database_goes_on(bgworker_host: Callable[..., RunningHost], tmp_path: Path) -> None:
    """T80: PostgreSQL is the same process, a worker's transaction that was open before is committed after, and wake_on is heard."""
    go = tmp_path / "go"
    worker = a_worker("holder", "holds", f'bgw_main_arg = "{go}"\nwake_on = ["more"]').replace("mods", "holding")
    flags = 'bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]\n'
    configuration = f'[host]\nmax_worker_processes = 4\n[database]\nurl = "embedded"\n{worker}{flags}'
    host = bgworker_host(configuration, start=False, holding=HOLDER)
    host.start_and_wait()
    host.wait_until(lambda: Path(f"{go}.open").exists(), "the transaction is open")
    slot = host.wait_for_worker("holder")
    postmaster = int((host.data_directory / "pg/postmaster.pid").read_text().split()[0])
    reexec(host)
    reexec(host)
    go.touch()
    with psycopg.connect(host.database_url(), autocommit=True) as connection:
        found = "select count(*) from held where n = %s"
        host.wait_until(lambda: connection.execute(found, (1,)).fetchone() == (1,), "the transaction is committed")

        def heard() -> bool:
            connection.execute("notify more")
            row = connection.execute(found, (2,)).fetchone()
            return row is not None and row[0] > 0

        host.wait_until(heard, "notifications reach the worker again")
    assert int((host.data_directory / "pg/postmaster.pid").read_text().split()[0]) == postmaster
    assert host.wait_for_worker("holder")["pid"] == slot["pid"]
    assert host.stop() == 0


def test_broken_program_is_refused(make_host: Callable[..., RunningHost], tmp_path: Path) -> None:
    """T81: new code that cannot be imported, or does not know the state, changes nothing; the reason is told."""
    host = make_host("[host]\nmax_worker_processes = 4\n" + a_worker("one"), mods=WORKERS)
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        host.start()
    finally:
        del os.environ["PYTHONPATH"]
    before = host.wait_for_worker("one")
    (tmp_path / "msgspec.py").write_text("raise ImportError('half an installation')\n")
    done = host.run_cli("reexec")
    assert done.returncode == 1
    assert "could not execute the host anew: its rehearsal failed: ImportError: half an installation" in done.stderr
    assert "Everything runs on as it was." in done.stderr
    (tmp_path / "msgspec.py").unlink()
    (tmp_path / "sitecustomize.py").write_text("import bgworker._host.document as d\nd.FORMAT += 1\n")
    with host.client() as client, pytest.raises(HostError, match="the state is in format 1, and this version reads format 2 alone"):
        client.reexec()
    assert host.wait_for_worker("one") == before
    (tmp_path / "sitecustomize.py").unlink()
    reexec(host)
    assert host.wait_for_worker("one")["pid"] == before["pid"]


def test_plugin_that_breaks_is_told(make_host: Callable[..., RunningHost]) -> None:
    """New code of a preload library that cannot be imported costs no running worker, and the log says so, once."""
    host = make_host(
        '[host]\nmax_worker_processes = 4\nshared_preload_libraries = ["early"]\n' + a_worker("one"), mods=WORKERS, early="x = 1\n"
    )
    host.start_and_wait()
    before = host.wait_for_worker("one")
    (host.directory / "early.py").write_text("raise RuntimeError('it is half an installation')\n")
    reexec(host)
    host.wait_until(lambda: 'ERROR:  plugin "early" is broken and was left out' in host.log(), "the log tells")
    assert host.wait_for_worker("one")["pid"] == before["pid"]
    reexec(host)
    with host.client() as client:
        worker = bgworker.BackgroundWorker(bgw_name="late", bgw_library_name="mods", bgw_function_name="idle")
        client.register_dynamic_background_worker(worker).wait_for_startup(DEADLINE)  # so there is a loader again
    assert host.log().count("is broken and was left out") == 1


def test_without_descriptors_it_is_refused(held: RunningHost) -> None:
    """A host whose descriptors are used up stays what it is, tells so, and loses none of the few that are left."""
    directory = Path(f"/proc/{host_pid(held)}/fd")
    with held.client() as client:
        at_rest(held)
        used = {int(fd) for fd in os.listdir(directory)}
        limit = next(n for n in range(1, 10_000) if n - len([fd for fd in used if fd < n]) == 1)
        before = resource.prlimit(host_pid(held), resource.RLIMIT_NOFILE)
        resource.prlimit(host_pid(held), resource.RLIMIT_NOFILE, (limit, before[1]))
        for _ in range(2):
            with pytest.raises(HostError, match="its rehearsal could not be started: Too many open files"):
                client.reexec()
        assert {int(fd) for fd in os.listdir(directory)} == used
        resource.prlimit(host_pid(held), resource.RLIMIT_NOFILE, before)
        client.reexec()


def test_state_without_room_is_refused(held: RunningHost) -> None:
    """T81: a host that can write nothing down for the next program stays what it is, and tells why."""
    before, limits = pids(held), resource.prlimit(host_pid(held), resource.RLIMIT_FSIZE)
    with held.client() as client:
        resource.prlimit(host_pid(held), resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(HostError, match="its state could not be written: File too large"):
            client.reexec()
        resource.prlimit(host_pid(held), resource.RLIMIT_FSIZE, limits)
        assert pids(held) == before
        client.reexec()


def test_stop_while_the_collector_parts(held: RunningHost) -> None:
    """A shutdown that comes when the collector has been told to hand over has every line written, and speaks of no accident."""
    children = Path(f"/proc/{host_pid(held)}/task/{host_pid(held)}/children")

    def of(name: str) -> list[int]:
        return [int(pid) for pid in children.read_text().split() if name in Path(f"/proc/{pid}/cmdline").read_text()]

    (collector,) = of("collector")
    os.kill(collector, signal.SIGSTOP)
    thread = _ask(held)
    held.wait_until(lambda: not of("loader"), "the helpers part")
    assert held.stop() == 0
    thread.join(DEADLINE)
    log = held.log()
    for wanted in ("the host is shutting down", "received fast shutdown request", "exited with exit code 1", "host is shut down"):
        assert wanted in log
    assert "process ended" not in log


def test_killed_rehearsal_changes_nothing(held: RunningHost, points: Points) -> None:
    """T81: somebody kills the rehearsal: whoever asked is told, and the next one goes well."""
    before = pids(held)
    points.order("host.rehearse", "kill")
    with held.client() as client, pytest.raises(HostError, match="its rehearsal failed: signal 9"):
        client.reexec()
    reexec(held)
    assert pids(held) == before


HANGING = """
import sys
if "run" in sys.orig_argv:
    import bgworker._host.reexec
    bgworker._host.reexec.REHEARSAL_TIMEOUT = 2.0
elif "--rehearse" in sys.orig_argv:
    import os, time
    print("it hangs as process", os.getpid(), flush=True)
    time.sleep(60)
"""


def test_hanging_rehearsal_is_given_up(
    make_host: Callable[..., RunningHost], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """T81: a rehearsal that hangs is killed and reaped, whoever asked reads that and what it printed, and all goes on."""
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    host = make_host("[host]\nmax_worker_processes = 4\n" + a_worker("one"), mods=WORKERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    host.start()
    before = host.wait_for_worker("one")["pid"]
    done = host.run_cli("reexec")
    assert done.returncode == 1
    assert "could not execute the host anew: its rehearsal did not end within 2 seconds" in done.stderr
    assert "Everything runs on as it was." in done.stderr
    (rehearsal,) = re.findall(r"it hangs as process (\d+)", done.stderr)
    host.wait_until(lambda: not Path(f"/proc/{rehearsal}").exists(), "it is reaped")
    (tmp_path / "sitecustomize.py").unlink()
    # This host keeps the short patience, and a machine that is busy may need more for a rehearsal that goes well.
    host.wait_until(lambda: host.run_cli("reexec").returncode == 0, "the next one goes well")
    assert host.wait_for_worker("one")["pid"] == before
    assert f"(PID {rehearsal})" not in host.log(), "its exit is nobody else's"


def test_execution_that_fails_changes_nothing(held: RunningHost, points: Points) -> None:
    """T81: the kernel refuses the execution: the host carries on with new helpers, and says why."""
    before = pids(held)
    points.order("host.execute", "error 2")
    with held.client() as client, pytest.raises(HostError, match="No such file or directory"):
        client.reexec()
    assert pids(held) == before
    os.kill(before["one"] or 0, signal.SIGKILL)
    held.wait_until(lambda: (held.slot("one") or {}).get("restarts") == 1, "the host serves on")
    held.wait_for_worker("one")
    reexec(held)
    assert held.stop() == 0


def _ask(host: RunningHost) -> threading.Thread:
    """Ask for an execution without waiting for the answer."""

    def ask() -> None:
        try:
            reexec(host)
        except HostError:
            pass

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_stop_in_the_blind_moment_is_obeyed(held: RunningHost, points: Points) -> None:
    """T82: a SIGTERM that comes while the host executes is taken by the program that goes on."""
    points.hold("host.resume")
    thread = _ask(held)
    points.wait_for("host.resume")
    os.kill(host_pid(held), signal.SIGTERM)
    points.release("host.resume")
    assert held.process is not None
    assert held.process.wait(DEADLINE) == 0
    thread.join(DEADLINE)
    assert "received fast shutdown request" in held.log()


def test_exit_in_the_blind_moment_is_seen(held: RunningHost, points: Points) -> None:
    """T82: a worker that is killed while the host executes is restarted; one who comes to connect is served."""
    before = pids(held)
    points.hold("host.resume")
    thread = _ask(held)
    points.wait_for("host.resume")
    os.kill(before["one"] or 0, signal.SIGKILL)
    late = socket.socket(socket.AF_UNIX)
    late.connect(str(held.data_directory / "run/control.sock"))
    points.release("host.resume")
    late.settimeout(DEADLINE)
    assert json.loads(late.recv(4096))["pid"] == host_pid(held)
    late.close()
    thread.join(DEADLINE)
    held.wait_until(lambda: (held.slot("one") or {}).get("restarts") == 1, "the worker is back")
    assert pids(held)["two"] == before["two"]


def test_stop_before_the_execution_wins(held: RunningHost, points: Points) -> None:
    """T82: a shutdown that begins during the rehearsal is carried out, and the execution is given up."""
    points.hold("host.rehearse")
    refusals: list[HostError] = []

    def ask() -> None:
        try:
            reexec(held)
        except HostError as error:
            refusals.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    points.wait_for("host.rehearse")
    assert held.stop() == 0
    thread.join(DEADLINE)
    assert "shutting down" in str(refusals[0])


def test_reload_waits_its_turn(held: RunningHost, points: Points) -> None:
    """A reload that is asked for meanwhile is refused, a SIGHUP is taken afterwards, and two who ask are answered at once."""
    points.hold("host.rehearse")
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(reexec(held))) for _ in range(2)]
    threads[0].start()
    points.wait_for("host.rehearse")
    threads[1].start()
    os.kill(host_pid(held), signal.SIGHUP)
    done = held.run_cli("reload")
    assert done.returncode == 1
    assert "the host is executing itself anew" in done.stderr
    points.release("host.rehearse")
    for thread in threads:
        thread.join(DEADLINE)
    assert len(answers) == 2
    held.wait_until(lambda: "configuration reloaded" in held.log(), "the reload follows")


def test_reload_and_execution_at_once(make_host: Callable[..., RunningHost], tmp_path: Path) -> None:
    """SIGHUP and SIGUSR2 in one turn, or SIGUSR2 during a reload: both happen, the reload first; a command is refused meanwhile."""
    gate = tmp_path / "gate"
    slow = f"import os, time\nwhile os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
    host = make_host(
        '[host]\nmax_worker_processes = 4\nshared_preload_libraries = ["slow"]\n' + a_worker("one"), mods=WORKERS, slow=slow
    )
    host.start_and_wait()
    host.wait_for_worker("one")
    # While it is stopped both wait, and it takes them in the same turn.
    for signum in (signal.SIGSTOP, signal.SIGUSR2, signal.SIGHUP, signal.SIGCONT):
        os.kill(host_pid(host), signum)
    host.wait_until(lambda: "executed the host anew (PID" in host.log(), "the execution follows the reload")
    log = host.log()
    assert 0 < log.index("configuration reloaded") < log.index("received a request to execute the host anew")
    _settled(host)
    gate.touch()
    os.kill(host_pid(host), signal.SIGHUP)
    host.wait_until(lambda: host.log().count("received reload request") == 2, "the reload has begun")
    os.kill(host_pid(host), signal.SIGUSR2)
    host.wait_until(lambda: host.log().count("received SIGUSR2, executing the host anew after") == 2, "the execution waits")
    done = host.run_cli("reexec")
    assert (done.returncode, "a reload, a plan or an upgrade is going on" in done.stderr) == (1, True)
    gate.unlink()
    host.wait_until(lambda: host.log().count("executed the host anew (PID") == 2, "the execution follows")
    assert host.log().count("configuration reloaded") == 2
    assert "ERROR" not in host.log()


def test_host_that_cannot_go_on_ends_in_order(held: RunningHost, points: Points) -> None:
    """T83: if all fails after the execution the workers are asked to go, the log says why, and the exit code is 1."""
    before = pids(held)
    points.order("host.resume", "error 5")
    thread = _ask(held)
    assert held.process is not None
    assert held.process.wait(DEADLINE) == 1
    thread.join(DEADLINE)
    assert "FATAL:  the host could not go on after it had executed itself anew" in held.log()
    assert "it ended with an error: the host could not go on" in held.run_cli("status").stdout
    for pid in before.values():
        assert not Path(f"/proc/{pid}").exists()
    held.start()
    held.wait_for_worker("one")


def test_tables_are_the_same(host: RunningHost) -> None:
    """A client's map of the slot table goes on showing the truth."""
    with host.client() as client:
        reexec(host)
        worker = bgworker.BackgroundWorker(bgw_name="late", bgw_library_name="time", bgw_function_name="sleep", bgw_main_arg=1000)
        handle = client.register_dynamic_background_worker(worker)
        handle.wait_for_startup(DEADLINE)
        pid = handle.get_pid().pid
        assert pid is not None
        assert os.getpgid(pid) == pid
        reexec(host)
        assert handle.get_pid().pid == pid
        with pytest.raises(WaitTimeout):
            handle.wait_for_shutdown(0.05)
        os.kill(pid, signal.SIGKILL)
        handle.wait_for_shutdown(DEADLINE)
        assert handle.get_pid().pid is None


def test_host_stays_tied(make_host: Callable[..., RunningHost]) -> None:
    """A host that is tied to the view in front of it is so after it has executed itself anew: with the view it stops."""
    host = make_host("[host]\nmax_worker_processes = 4\n")
    view = """
import os, subprocess, sys
command = [sys.executable, "-P", "-m", "bgworker", "run", "--tied", str(os.getpid()), "-c", sys.argv[1]]
print(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)
sys.stdin.read()
"""
    arguments = [sys.executable, "-c", view, str(host.config_path)]
    with subprocess.Popen(arguments, cwd=host.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        host.wait_for_state("run")
        assert reexec(host)["pid"] == pid
        parent.kill()
    host.wait_until(lambda: "host is shut down" in host.log(), "the host has stopped")


def test_service_manager_is_told(make_host: Callable[..., RunningHost], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The service manager hears of an execution as of a reload, and signs of life go on."""
    host = make_host("[host]\nmax_worker_processes = 4\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        said: list[str] = []

        def listen() -> None:
            # All the time: what does not fit into the socket's queue, ten messages, is not said again.
            with contextlib.suppress(TimeoutError):
                while not said or not said[-1].startswith("STOPPING=1"):
                    said.append(manager.recv(4096).decode())

        manager.settimeout(DEADLINE)
        listener = threading.Thread(target=listen)
        listener.start()
        host.start_and_wait()
        reexec(host)
        told = len(said)
        host.wait_until(lambda: any(line.startswith("WATCHDOG=1") for line in said[told:]), "signs of life go on")
        assert host.stop() == 0
        listener.join(DEADLINE)
    heard = iter(said)
    for wanted in ("READY=1", "RELOADING=1\nMONOTONIC_USEC=", "READY=1\nSTATUS=run", "STOPPING=1"):
        assert any(line.startswith(wanted) for line in heard), f"{wanted!r} is not among {said} in this order"


@pytest.mark.slow
def test_fifty_executions(bgworker_host: Callable[..., RunningHost]) -> None:
    """T80: fifty executions in a row leave nothing behind; shows how long the host was blind."""
    host = bgworker_host(CROWD, start=False, mods=WORKERS)
    host.start_and_wait()
    host.wait_for_worker("late", "waiting_restart")
    host.wait_for_worker("watched")
    before = pids(host)
    blind = []
    descriptors_then: list[str] = []
    for number in range(50):
        blind.append(reexec(host)["blind_ms"])
        _settled(host)
        if number == 0:
            descriptors_then = at_rest(host)
    assert at_rest(host) == descriptors_then
    assert pids(host) == before
    sys.stdout.write(f"blind for {sorted(blind)[25]} ms (median), {max(blind)} ms (longest) of 50\n")
