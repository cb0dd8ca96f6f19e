"""Workers under a real host: start, exit, crash, restart, terminate; and what each looks like from outside."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker.testing import RunningHost, processes_below

MakeHost = Callable[..., RunningHost]

HEAD = "[host]\nmax_worker_processes = 8\nshutdown_timeout = 2.0\n"


def worker(name: str, function: str, **keys: str) -> str:
    """Return a [[worker]] table; values are TOML."""
    lines = [f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "tasks"\nbgw_function_name = "{function}"']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items())]) + "\n"


TASKS = '''
"""Workers for the tests."""
import os, sys, time, signal
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        worker.report_activity("idle", "waiting")

def leave(arg):
    sys.exit(arg)

def fail(arg):
    raise ConnectionError("connection refused")

def ignore(arg):
    while True:
        time.sleep(3600)

def once(arg):
    open(arg, "a").write(f"{os.getpid()}\\n")

def print_and_go(arg):
    print("first words")
    print("last words", end="")

def settings(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        if worker.config_reload_pending():
            worker.process_config_file()
            open(arg, "a").write("reloaded\\n")
'''


def test_worker_of_a_plain_module_starts_and_shows(make_host: MakeHost) -> None:
    """C01, C10, C28: a module beside workers.toml runs with no package, and its activity shows."""
    host = make_host(HEAD + worker("idle one", "idle"), tasks=TASKS)
    host.start_and_wait()
    slot = host.wait_for_worker("idle one")
    assert slot["pid"] != host.status()["host"]["pid"]
    assert slot["origin"] == "static"
    assert slot["reason"] == ""
    host.wait_until(lambda: (host.slot("idle one") or {})["activity"]["state"] == "idle", "the activity shows")
    assert host.stop(signal.SIGINT) == 0


def test_killed_worker_comes_back_at_once(make_host: MakeHost) -> None:
    """C31: SIGKILL is a crash; the worker is restarted at once, whatever its restart time."""
    host = make_host(HEAD + worker("idle", "idle", bgw_restart_time="3600"), tasks=TASKS)
    host.start_and_wait()
    first = host.wait_for_worker("idle")
    os.kill(first["pid"], signal.SIGKILL)
    host.wait_until(lambda: (host.slot("idle") or {}).get("pid") not in (None, first["pid"]), "another process runs")
    again = host.wait_for_worker("idle")
    assert again["restarts"] == 1
    assert again["last_exit"]["signal"] == 9
    assert again["generation"] == first["generation"]
    assert host.status()["host"]["crash_count"] == 1


def test_exit_0_is_forgotten_and_listed(make_host: MakeHost, tmp_path: Path) -> None:
    """C29, T01: exit code 0 unregisters; status lists the worker under finished, and start revives a static one."""
    trace = tmp_path / "trace"
    host = make_host(HEAD + worker("once", "once", bgw_main_arg=f'"{trace}"', bgw_restart_time="0"), tasks=TASKS)
    host.start_and_wait()
    host.wait_until(lambda: host.finished("once"), "it is listed under finished")
    assert host.slot("once") is None
    assert trace.read_text().count("\n") == 1
    assert host.run_cli("start", "once").returncode == 0
    host.wait_until(lambda: trace.read_text().count("\n") == 2, "it has run again")


@pytest.mark.parametrize(
    ("argument", "code"), [("1", 1), ("2", 2), ("256", 1), ("-1", 1), ('"a text"', 1), ("120", 120)], ids=lambda v: str(v)
)
def test_exit_codes_reach_the_host(make_host: MakeHost, argument: str, code: int) -> None:
    """C30, C31, C32, T04: exit codes arrive as they were meant; one outside 0..255 is 1, never a silent 0."""
    host = make_host(HEAD + worker("leave", "leave", bgw_main_arg=argument, bgw_restart_time="3600"), tasks=TASKS)
    host.start_and_wait()
    if code == 1:
        slot = host.wait_for_worker("leave", "waiting_restart")
        assert slot["last_exit"]["code"] == 1
        assert slot["restart_at"] is not None
    else:
        host.wait_until(lambda: ((host.slot("leave") or {}).get("last_exit") or {}).get("code") == code, f"it exits with {code}")


def test_uncaught_exception_is_in_log_and_reason(make_host: MakeHost) -> None:
    """C32: exit code 1, the traceback in the worker's own log, the cause in the reason."""
    host = make_host(HEAD + worker("fails", "fail", bgw_restart_time="3600"), tasks=TASKS)
    host.start_and_wait()
    slot = host.wait_for_worker("fails", "waiting_restart")
    assert "connection refused" in slot["reason"]
    log = host.data_directory / "log" / "workers" / "fails.log"
    host.wait_until(lambda: log.exists() and "Traceback" in log.read_text(), "the traceback is logged")


@pytest.mark.parametrize(
    ("library", "function", "expected"),
    [("no_such_module", "f", ["no_such_module"]), ("tasks", "no_such_function", ["tasks", "no_such_function"])],
)
def test_missing_code_is_the_workers_failure(make_host: MakeHost, library: str, function: str, expected: list[str]) -> None:
    """C10: a missing library or function fails the start with both named; the host and the others run."""
    entry = worker("broken", function, bgw_restart_time="3600").replace('"tasks"', f'"{library}"')
    host = make_host(HEAD + entry + worker("idle", "idle"), tasks=TASKS)
    host.start_and_wait()
    slot = host.wait_for_worker("broken", "waiting_restart")
    assert slot["reason"].startswith("failed to start")
    for word in expected:
        assert word in slot["reason"]
    host.wait_for_worker("idle")


def test_worker_that_ignores_everything_is_killed(make_host: MakeHost) -> None:
    """C39, T63, T78: never unblocked, SIGTERM stays pending; SIGKILL follows after the stop timeout and the host exits with 0."""
    host = make_host(HEAD + worker("deaf", "ignore", stop_timeout="0.3"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("deaf")
    assert host.stop() == 0


def test_terminated_worker_stays_down(make_host: MakeHost) -> None:
    """C29, C35: terminated by an operator, it stays down over a reload, until start."""
    host = make_host(HEAD + worker("idle", "idle"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("idle")
    assert host.run_cli("terminate", "--wait", "idle").returncode == 0
    assert host.finished("idle") is not None
    assert host.run_cli("reload").returncode == 0
    assert host.slot("idle") is None
    assert host.run_cli("start", "idle").returncode == 0
    host.wait_for_worker("idle")


def test_restart_by_an_operator(make_host: MakeHost) -> None:
    """An exit that the host asked for follows the host's intent (design 8.6)."""
    host = make_host(HEAD + worker("idle", "idle", bgw_restart_time='"BGW_NEVER_RESTART"'), tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    assert host.run_cli("restart", "idle").returncode == 0
    host.wait_until(lambda: (host.slot("idle") or {}).get("pid") not in (None, pid), "it runs again")


@pytest.mark.parametrize("victim", ["loader", "collector"])
def test_helpers_can_be_killed(make_host: MakeHost, victim: str) -> None:
    """C01, T05: SIGKILL of the loader or the collector changes nothing that a user sees."""
    host = make_host(HEAD + worker("idle", "idle"), tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    assert host.process is not None
    children = [int(p) for p in Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children").read_text().split()]
    titles = {p: Path(f"/proc/{p}/cmdline").read_text().strip("\0") for p in children}
    target = next(p for p, title in titles.items() if title.startswith(f"bgworker: {victim}"))
    os.kill(target, signal.SIGKILL)
    result = host.run_cli("register", "tasks:print_and_go", "--name", "after", "--wait")
    assert result.returncode == 0, result.stderr
    log = host.data_directory / "log" / "workers" / "after.log"
    host.wait_until(lambda: log.exists() and "last words" in log.read_text(), "its output is logged")
    slot = host.slot("idle")
    assert slot is not None
    assert slot["pid"] == pid


def test_nothing_outlives_a_killed_host(make_host: MakeHost) -> None:
    """C24, T07: SIGKILL of the host leaves no worker, no helper, within a second; and a new host starts on the directory."""
    host = make_host(HEAD + worker("idle", "idle") + worker("deaf", "ignore"), tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("idle")
    host.wait_for_worker("deaf")
    assert host.process is not None
    host.process.kill()
    host.process.wait()
    deadline = time.monotonic() + 5
    while processes_below(str(host.directory)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_below(str(host.directory)) == {}
    host.start_and_wait()
    host.wait_for_worker("idle")


def test_second_host_is_refused(make_host: MakeHost) -> None:
    """T30, T51: a second run on the same directory is refused, is told who runs, and the first never notices."""
    host = make_host(HEAD + worker("idle", "idle"), tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    result = host.run_cli("run")
    assert result.returncode == 2
    assert "another host is running" in result.stderr
    assert str(host.process.pid if host.process else "") in result.stderr
    slot = host.slot("idle")
    assert slot is not None
    assert slot["pid"] == pid


def test_static_worker_too_many_is_skipped(make_host: MakeHost) -> None:
    """C14: one static worker too many is skipped with a log line, and the rest run."""
    config = "[host]\nmax_worker_processes = 2\n" + "".join(worker(f"w{n}", "idle") for n in range(3))
    host = make_host(config, tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("w0")
    host.wait_for_worker("w1")
    status = host.status()
    assert [entry["bgw_name"] for entry in status["rejected"]] == ["w2"]
    log = host.data_directory / "log" / "host.log"
    host.wait_until(lambda: "too many background workers" in log.read_text(), "the log says so")
    result = host.run_cli("register", "tasks:idle", "--name", "extra")
    assert result.returncode == 5
    assert "max_worker_processes" in result.stderr


def test_reload_puts_only_the_difference_into_effect(make_host: MakeHost, tmp_path: Path) -> None:
    """C02, C25: reload starts what is new, stops what is gone, restarts what changed, and signals the rest."""
    trace = tmp_path / "trace"
    stays = worker("stays", "settings", bgw_main_arg=f'"{trace}"')
    host = make_host(HEAD + stays + worker("goes", "idle") + worker("changes", "idle"), tasks=TASKS)
    host.start_and_wait()
    pids = {name: host.wait_for_worker(name)["pid"] for name in ("stays", "goes", "changes")}
    host.config_path.write_text(HEAD + stays + worker("changes", "idle", bgw_extra='"new"') + worker("comes", "idle"))
    result = host.run_cli("reload")
    assert result.returncode == 0, result.stderr
    host.wait_for_worker("comes")
    host.wait_until(lambda: host.slot("goes") is None, "the removed worker is gone")
    host.wait_until(lambda: (host.slot("changes") or {}).get("pid") not in (None, pids["changes"]), "the changed one restarted")
    host.wait_until(lambda: trace.exists() and "reloaded" in trace.read_text(), "the untouched one was told")
    slot = host.slot("stays")
    assert slot is not None
    assert slot["pid"] == pids["stays"]


def test_broken_reload_changes_nothing(make_host: MakeHost) -> None:
    """T79: a broken file is refused with its errors; every worker goes on, and a killed loader still has the good text."""
    host = make_host(HEAD + worker("idle", "idle"), tasks=TASKS)
    host.start_and_wait()
    pid = host.wait_for_worker("idle")["pid"]
    host.config_path.write_text(HEAD + '[[worker]]\nbgw_nam = "x"\n')
    result = host.run_cli("reload")
    assert result.returncode == 2
    assert "bgw_nam" in result.stderr
    slot = host.slot("idle")
    assert slot is not None
    assert slot["pid"] == pid
    assert host.run_cli("register", "tasks:idle", "--name", "more", "--wait").returncode == 0


def test_ten_thousand_things_leave_no_descriptor(make_host: MakeHost) -> None:
    """Workers that come and go leave no descriptor in the host."""
    head = "[host]\nmax_worker_processes = 4\nspare_workers = 2\n"
    host = make_host(f"{head}shared_preload_libraries = ['tasks']\npython_path = ['.']\n", tasks=TASKS)
    host.start_and_wait()
    assert host.process is not None
    # A spare has descriptors of the host's: those that are there at the end must have been there before.
    pids = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children")
    titles = lambda: [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids.read_text().split()]  # noqa: E731
    host.wait_until(lambda: sum(title.startswith(b"bgworker: spare") for title in titles()) == 2, "both spares are there")

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{host.process.pid}/fd"))  # type: ignore[union-attr]

    import bgworker

    with host.client() as client:
        baseline = descriptors()
        for number in range(40):
            handle = client.register_dynamic_background_worker(
                bgworker.BackgroundWorker(
                    bgw_name=f"short {number}", bgw_type="short", bgw_library_name="tasks", bgw_function_name="print_and_go"
                )
            )
            assert handle.wait_for_shutdown(30).status is bgworker.BgwHandleStatus.STOPPED
        host.wait_until(lambda: descriptors() <= baseline, "the descriptors are given back")
    log = host.data_directory / "log" / "workers" / "short.log"
    host.wait_until(lambda: log.read_text().count("last words") == 40, "no last line is lost")
