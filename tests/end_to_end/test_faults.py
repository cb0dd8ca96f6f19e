"""Faults by their numbers in docs/reliability.md, against whole hosts; what needs minutes or privileges is in test_faults_slow."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker import BackgroundWorker, BgwHandleStatus, NoFreeSlot
from bgworker.testing import RunningHost, processes_below

MakeHost = Callable[..., RunningHost]
FAULTY = Path(__file__).with_name("faults_module.py").read_text()

PRELOADED = '[host]\nmax_worker_processes = 40\nshutdown_timeout = 1.0\nshared_preload_libraries = ["faulty"]\n'
#: A port that nobody listens on: the database is never reached, so that database workers wait for ever.
UNREACHABLE = '[database]\nurl = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"\n'


def static(name: str, function: str, *more: str) -> str:
    lines = ["[[worker]]", f'bgw_name = "{name}"', 'bgw_library_name = "faulty"', f'bgw_function_name = "{function}"', *more]
    return "\n".join(lines) + "\n"


def dynamic(function: str, arg: object = None, **fields: object) -> BackgroundWorker:
    return BackgroundWorker(
        bgw_name=f"dynamic {function}", bgw_library_name="faulty", bgw_function_name=function, bgw_main_arg=arg, **fields
    )  # type: ignore[arg-type]


@pytest.fixture
def run(make_host: MakeHost) -> Callable[..., RunningHost]:
    """Return a maker of running hosts that have the faulty module."""

    def start(configuration: str = PRELOADED, *states: str) -> RunningHost:
        host = make_host(configuration, faulty=FAULTY)
        host.start_and_wait(*states)
        return host

    return start


def children(pid: int, title: str) -> list[int]:
    """Return the host's children of this title."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(f"bgworker: {title}".encode()):
            found.append(int(child))
    return found


def pid_of(host: RunningHost) -> int:
    assert host.process is not None
    return host.process.pid


def test_exception_is_restarted_after_its_time(run: Callable[..., RunningHost]) -> None:
    """C30, T02: an uncaught exception restarts that worker after its restart time; its neighbour never notices."""
    host = run(PRELOADED + static("fails", "fails", "bgw_restart_time = 0.3") + static("idle", "idle"))
    idle = host.wait_for_worker("idle")
    host.wait_until(lambda: (host.slot("fails") or {}).get("restarts", 0) >= 2, "it was restarted twice")
    assert (host.slot("idle") or {})["pid"] == idle["pid"]
    slot = host.slot("fails")
    assert slot is not None
    assert slot["last_exit"]["reason"] == "exit 1: RuntimeError: as it should"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_signal_during_the_birth(run: Callable[..., RunningHost], signum: signal.Signals) -> None:
    """T10: a signal that overtakes a worker's birth stays its own: SIGTERM ends it, none of them runs a handler of the host's."""
    host = run()
    with host.client() as client:
        handles = []
        for _ in range(20):
            handle = client.register_dynamic_background_worker(dynamic("idle", bgw_restart_time=60))
            handles.append(handle)
            for pid in Path(f"/proc/{pid_of(host)}/task/{pid_of(host)}/children").read_text().split():
                # One that the signal before has ended may be gone at any of these steps.
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"bgworker: dynamic"):
                        os.kill(int(pid), signum)
        for handle in handles:
            handle.wait_for_startup(timeout=30)
        host.wait_until(
            lambda: all(slot["state"] in ("started", "waiting_restart") for slot in host.status()["slots"]), "all have come to rest"
        )
        assert client.host().state == "run"
        for handle in handles:
            handle.terminate()
    assert "received reload request" not in host.log()


def test_hang_up_to_everybody_at_once(run: Callable[..., RunningHost]) -> None:
    """T12: SIGHUP to host, helpers and workers at once is one reload, and ends nobody."""
    host = run(PRELOADED + "".join(static(f"idle {n}", "idle") for n in range(4)))
    before = {slot["bgw_name"]: host.wait_for_worker(slot["bgw_name"])["pid"] for slot in host.status()["slots"]}
    everybody = [int(pid) for pid in Path(f"/proc/{pid_of(host)}/task/{pid_of(host)}/children").read_text().split()]
    for pid in [*everybody, pid_of(host)]:
        os.kill(pid, signal.SIGHUP)
    host.wait_until(lambda: "configuration reloaded" in host.log(), "the configuration was reloaded")
    assert host.log().count("received reload request") == 1
    assert {slot["bgw_name"]: slot["pid"] for slot in host.status()["slots"]} == before


def test_stopped_worker_is_terminated(run: Callable[..., RunningHost]) -> None:
    """C35, T14: SIGTERM means nothing to a stopped process; SIGKILL follows, and the slot is free."""
    host = run()
    with host.client() as client:
        handle = client.register_dynamic_background_worker(dynamic("idle", stop_timeout=0.2))
        pid = handle.wait_for_startup(timeout=30).pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        handle.terminate()
        assert handle.wait_for_shutdown(timeout=30).status is BgwHandleStatus.STOPPED
        assert not client.slots()


def test_storm_of_wakes_is_not_lost(run: Callable[..., RunningHost]) -> None:
    """C23, T14: ten thousand signals set one latch: the worker wakes at least once for them, and sleeps afterwards."""
    host = run(PRELOADED + static("counts", "counts_wakes"))
    pid = host.wait_for_worker("counts")["pid"]
    for _ in range(10_000):
        os.kill(pid, signal.SIGUSR1)
    host.wait_until(
        lambda: (slot := host.slot("counts")) is not None and slot["activity"]["text"] not in ("", "woken 0"), "it was woken"
    )


def test_start_that_never_ends(make_host: MakeHost) -> None:
    """T16: a library whose import hangs is a failed start after the start timeout, named; others are born meanwhile."""
    host = make_host(
        "[host]\nmax_worker_processes = 4\nstart_timeout = 0.5\n"
        + static("idle", "idle").replace('"faulty"', '"fine"')
        + static("hangs", "main", 'bgw_restart_time = "BGW_NEVER_RESTART"'),
        faulty="import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()\n",
        fine=FAULTY,
    )
    host.start_and_wait()
    host.wait_for_worker("idle")
    entry = host.wait_until(lambda: host.finished("hangs"), "its start was given up")
    assert entry is not None
    assert "failed to start" in entry["reason"]
    with host.client() as client:
        another = client.register_dynamic_background_worker(
            BackgroundWorker(bgw_name="another", bgw_library_name="fine", bgw_function_name="idle")
        )
        assert another.wait_for_startup(timeout=30).pid


def test_loaders_output_and_exit_functions_are_its_own(run: Callable[..., RunningHost]) -> None:
    """T18: what a plugin left unwritten at import is written once, and its atexit function runs in no worker."""
    host = run()
    with host.client() as client:
        handles = [client.register_dynamic_background_worker(dynamic("ends", 0)) for _ in range(10)]
        for handle in handles:
            handle.wait_for_shutdown(timeout=30)
    host.stop()
    everything = "".join(path.read_text() for path in (host.data_directory / "log").rglob("*.log"))
    assert everything.count("said once at import") == 1
    assert everything.count("atexit of the loader") <= 1


def test_descriptors_of_a_worker(run: Callable[..., RunningHost]) -> None:
    """T20: a worker holds its standard streams, channel, lifeline, tables, lock and latch, and no descriptor more."""
    host = run(PRELOADED + static("idle", "idle"))
    pid = host.wait_for_worker("idle")["pid"]
    held = sorted(os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd"))
    files = [name for name in held if name.startswith("/") and not name.startswith("/memfd")]
    assert [os.path.basename(name) for name in files] == ["null", "workers.lock"]
    assert sum(name.startswith("/memfd") for name in held) == 2
    assert held.count("socket") <= 3, held  # its channel, and the latch's pair
    assert len(held) <= 12, held


@pytest.mark.parametrize("slots", [1, 40, pytest.param(1024, marks=pytest.mark.slow)])
def test_any_number_of_slots(make_host: MakeHost, slots: int) -> None:
    """C14, T31: the worker too many is refused with an error of its own, and admitted once another has gone."""
    host = make_host(f"[host]\nmax_worker_processes = {slots}\n", faulty=FAULTY)
    host.start_and_wait()
    with host.client() as client:
        waiting = [client.register_dynamic_background_worker(dynamic("idle")) for _ in range(slots - 1)]
        first = client.register_dynamic_background_worker(dynamic("idle"))
        with pytest.raises(NoFreeSlot):
            client.register_dynamic_background_worker(dynamic("idle"))
        first.terminate()
        first.wait_for_shutdown(timeout=30)
        client.register_dynamic_background_worker(dynamic("idle"))
        assert len(waiting) == slots - 1


def test_terminate_before_the_start(run: Callable[..., RunningHost]) -> None:
    """C35, T33: terminated while it waits for its phase, a worker never starts, and who waits for it is told STOPPED."""
    host = run(PRELOADED + UNREACHABLE, "starting")
    with host.client() as client, host.client() as other:
        handle = client.register_dynamic_background_worker(dynamic("idle"))
        assert handle.get_pid().status is BgwHandleStatus.NOT_YET_STARTED
        other.terminate(str(handle))
        assert handle.wait_for_startup(timeout=30).status is BgwHandleStatus.STOPPED
    assert 'starting background worker process "dynamic idle"' not in host.log()


def test_terminate_during_the_restart_delay(run: Callable[..., RunningHost]) -> None:
    """C29, T35: terminated between two lives, a worker has no further one."""
    host = run(PRELOADED)
    with host.client() as client:
        handle = client.register_dynamic_background_worker(dynamic("fails", bgw_restart_time=3600))
        host.wait_until(lambda: any(s.state == "waiting_restart" for s in client.slots()), "it waits for its restart")
        assert handle.get_pid().status is BgwHandleStatus.STOPPED
        handle.terminate()
        host.wait_until(lambda: not client.slots(), "its slot is free")


def test_requester_that_dies(run: Callable[..., RunningHost]) -> None:
    """T36: who registers and dies leaves a worker that starts all the same, and a slot that can be freed."""
    host = run(PRELOADED)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(host.data_directory / "run" / "control.sock"))
        peer.sendall(
            b'{"id":1,"method":"register","params":{"worker":{"bgw_name":"orphan","bgw_library_name":"faulty",'
            b'"bgw_function_name":"idle"}}}\n'
        )
        # Read, and not answered yet or just now: whoever closes before the host has read takes the request along.
        assert b'"handle"' in peer.recv(65_536, socket.MSG_PEEK) or host.wait_for_worker("orphan")
    host.wait_for_worker("orphan")
    with host.client() as client:
        client.terminate("orphan").wait_for_shutdown(timeout=30)
        assert not client.slots()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_wait_for_a_start_that_never_comes(run: Callable[..., RunningHost], signum: signal.Signals) -> None:
    """C36, C38, T37: a wait for a start ends with the host: STOPPED when it shuts down, POSTMASTER_DIED when it is killed."""
    host = run(PRELOADED + UNREACHABLE, "starting")
    script = (
        "import sys, bgworker\n"
        "client = bgworker.connect(sys.argv[1])\n"
        "worker = bgworker.BackgroundWorker(bgw_name='w', bgw_library_name='faulty', bgw_function_name='idle')\n"
        "handle = client.register_dynamic_background_worker(worker)\n"
        "print('waits', flush=True)\n"
        "print(handle.wait_for_startup(timeout=60).status.name)\n"
    )
    waiter = subprocess.Popen([sys.executable, "-c", script, str(host.data_directory)], stdout=subprocess.PIPE, text=True)
    try:
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "waits\n"
        host.stop(signum)
        answer = waiter.communicate(timeout=30)[0].strip()
    finally:
        waiter.kill()
        waiter.wait()
    # A host that is shutting down may be gone before the answer has been read.
    assert answer in (("STOPPED", "POSTMASTER_DIED") if signum == signal.SIGTERM else ("POSTMASTER_DIED",))


@pytest.mark.parametrize("kind", ["symlink", "directory", "file"])
def test_something_else_in_the_sockets_place(make_host: MakeHost, tmp_path: Path, kind: str) -> None:
    """T50: what stands in the place of the control socket and is no socket of ours is not removed; the host says what it is."""
    host = make_host("[host]\nmax_worker_processes = 2\n")
    run = host.data_directory / "run"
    host.data_directory.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
    run.mkdir(mode=0o700)
    trap = run / "control.sock"
    if kind == "symlink":
        (tmp_path / "precious").write_text("precious")
        trap.symlink_to(tmp_path / "precious")
    elif kind == "directory":
        trap.mkdir()
    else:
        trap.write_text("precious")
    host.start()
    assert host.process is not None
    assert host.process.wait(timeout=60) == 2
    assert "control.sock" in host.output.read_text()
    assert "Traceback" not in host.output.read_text()
    assert trap.is_symlink() or trap.is_dir() or trap.read_text() == "precious"


def test_socket_of_a_killed_host_is_replaced(run: Callable[..., RunningHost]) -> None:
    """T51: a stale socket after SIGKILL is no obstacle to the next host."""
    host = run(PRELOADED)
    host.stop(signal.SIGKILL)
    assert (host.data_directory / "run" / "control.sock").exists()
    host.start_and_wait("run")
    with host.client() as client:
        client.ping()


def test_children_of_a_worker_go_with_it(run: Callable[..., RunningHost]) -> None:
    """T58: a worker that started fifty processes is terminated with all of them."""
    host = run(PRELOADED)
    mark = f"bomb of {host.directory}"
    with host.client() as client:
        handle = client.register_dynamic_background_worker(dynamic("bombs", {"count": 50, "mark": mark}, stop_timeout=0.2))
        handle.wait_for_startup(timeout=30)
        host.wait_until(lambda: sum(mark in c for c in processes_below(mark).values()) == 50, "fifty processes run")
        handle.terminate()
        handle.wait_for_shutdown(timeout=30)
        host.wait_until(lambda: not processes_below(mark), "all of them are gone")


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_shutdown_while_workers_are_starting(run: Callable[..., RunningHost], mode: str) -> None:
    """C39, T75: a shutdown in the middle of twenty starts leaves nobody behind, and starts nobody afterwards."""
    host = run(PRELOADED)
    with host.client() as client:
        for _ in range(20):
            client.register_dynamic_background_worker(dynamic("idle", bgw_restart_time=0 if mode != "smart" else 5))
        client.stop(mode)
        # A smart shutdown waits for this client, which holds handles of live workers.
    assert host.process is not None
    assert host.process.wait(timeout=60) == 0
    assert not processes_below(str(host.directory))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lower and raise another's limits")
def test_host_at_its_descriptor_limit(run: Callable[..., RunningHost]) -> None:
    """T21: without a descriptor left the host keeps its workers and answers those who are connected; later all is as before."""
    host = run(PRELOADED + static("idle", "idle"))
    idle = host.wait_for_worker("idle")
    with host.client() as client:
        count = len(os.listdir(f"/proc/{pid_of(host)}/fd"))
        resource.prlimit(pid_of(host), resource.RLIMIT_NOFILE, (count, 4096))
        os.kill(idle["pid"], signal.SIGKILL)
        host.wait_until(lambda: any("descriptor" in s.reason or s.state == "started" for s in client.slots()), "it says why")
        resource.prlimit(pid_of(host), resource.RLIMIT_NOFILE, (4096, 4096))
        host.wait_for_worker("idle")
