"""The live view on a real terminal, which is a pseudo-terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker.testing import DEADLINE, RunningHost
from tests.end_to_end.terminals import Terminal

MakeHost = Callable[..., RunningHost]

TASKS = """
import time
from bgworker import worker

def idle(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop(wait_event="IdleMain"):
        worker.report_activity("idle", "")

def fail(arg):
    raise SystemExit("connection refused")
"""

CONFIG = """
[host]
max_worker_processes = 4
shutdown_timeout = 2.0
[[worker]]
bgw_name = "keeper"
bgw_library_name = "tasks"
bgw_function_name = "idle"
"""


@pytest.fixture(params=["top", "rich"])
def surroundings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of `run --tui` with textual, and without it."""
    if request.param == "top":
        return {}
    # Found before the installed one, and not importable.
    (tmp_path / "textual.py").write_text("raise ImportError('no')\n")
    return {"PYTHONPATH": str(tmp_path)}


#: The row of the one worker, with what textual writes between two cells.
KEEPER_RUNS = r"keeper +(\x1b\[[\d;]*m)*started"


@pytest.fixture
def shop(make_host: MakeHost) -> RunningHost:
    """A host with one worker."""
    host = make_host(CONFIG, tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("keeper")
    return host


def test_status_on_a_terminal_prints_the_table_once(shop: RunningHost, terminal: Callable[..., Terminal]) -> None:
    """The same table as the live view, once, on the normal screen."""
    view = terminal(shop, "status")
    assert view.wait() == 0
    assert " SLOT NAME " in view.text
    assert "keeper" in view.text
    assert "\x1b[?1049h" not in view.text
    assert "\x1b[31m" not in view.text


def test_watch_follows_events_and_leaves_on_q(shop: RunningHost, terminal: Callable[..., Terminal]) -> None:
    """A start and an exit show up as they happen; q gives the screen back and is exit code 0."""
    view = terminal(shop, "status", "--watch")
    view.wait_for(r"\x1b\[\?1049h")
    view.wait_for("keeper +started")
    assert shop.run_cli("register", "tasks:fail", "--name", "job", "--restart-time", "3600").returncode == 0
    view.wait_for(r"job .*restart in (1h00m|59m)")
    view.wait_for(r"\d\d:\d\d:\d\d job \(\d+\) exited with code 1 after [\d.]+s")
    view.type("q")
    assert view.wait() == 0
    assert "\x1b[?1049l" in view.text


def test_watch_of_a_host_that_dies(shop: RunningHost, terminal: Callable[..., Terminal]) -> None:
    """Host gone: the last table with how it died below it, and exit code 3 on leaving."""
    view = terminal(shop, "status", "--watch", size=(160, 40))
    view.wait_for("keeper +started")
    assert shop.process is not None
    shop.process.kill()
    view.wait_for(r"host \(PID \d+\) is gone: it was killed or has crashed")
    view.type("\x03")
    assert view.wait() == 3
    assert "keeper" in view.text.rpartition("\x1b[?1049l")[2]


def test_watch_of_a_host_that_comes_back(shop: RunningHost, terminal: Callable[..., Terminal]) -> None:
    """An open view outlives a restart of its host."""
    view = terminal(shop, "status", "--watch", size=(160, 40))
    view.wait_for("keeper +started")
    assert shop.stop() == 0
    view.wait_for("is gone: it was shut down")
    shop.start_and_wait()
    pid = shop.status()["host"]["pid"]
    view.wait_for(rf"bgworker  run  up \d+s  pid {pid}")


def test_watch_without_a_host(make_host: MakeHost, terminal: Callable[..., Terminal]) -> None:
    """Exit code 3 at once, on the normal screen."""
    view = terminal(make_host(CONFIG), "status", "--watch")
    assert view.wait() == 3
    assert "no host is running" in view.text
    assert "\x1b[?1049h" not in view.text


def test_watch_in_a_pipe(shop: RunningHost) -> None:
    """A pipe gets a plain table after each event, and the end of the host with exit code 3."""
    watch = subprocess.Popen(
        [sys.executable, "-P", "-m", "bgworker", "status", "--watch", "-D", str(shop.data_directory)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    assert watch.stdout.readline().startswith("bgworker  run")
    assert shop.stop() == 0
    rest = watch.stdout.read()
    assert watch.wait(timeout=DEADLINE) == 3
    assert "\x1b" not in rest
    assert rest.splitlines()[-1].endswith("is gone: it was shut down because of SIGTERM")
    watch.stdout.close()


def test_no_color(shop: RunningHost, terminal: Callable[..., Terminal]) -> None:
    """NO_COLOR takes the colour and leaves the words."""
    assert shop.run_cli("register", "tasks:fail", "--name", "job", "--restart-time", "3600").returncode == 0
    shop.wait_for_worker("job", "waiting_restart")
    coloured, plain = terminal(shop, "status"), terminal(shop, "status", NO_COLOR="1")
    assert (coloured.wait(), plain.wait()) == (0, 0)
    assert "\x1b[31m" in coloured.text
    assert "\x1b[3" not in plain.text
    assert "restart in" in plain.text


def test_run_with_the_view(make_host: MakeHost, terminal: Callable[..., Terminal], surroundings: dict[str, str]) -> None:
    """`run --tui`: a host of its own beside the view; Ctrl-C stops both, exit code 0, and nothing is left."""
    host = make_host(CONFIG, tasks=TASKS)
    view = terminal(host, "run", "--tui", **surroundings)
    view.wait_for(KEEPER_RUNS)
    assert host.status()["host"]["pid"] != view.process.pid
    view.type("\x03")
    assert view.wait() == 0
    assert "Traceback" not in view.text
    assert host.status()["slots"] == []


def test_the_host_ends_with_its_view(make_host: MakeHost, terminal: Callable[..., Terminal], surroundings: dict[str, str]) -> None:
    """A view that is killed takes its host along: the host gets SIGTERM and stops as fast as it stops."""
    host = make_host(CONFIG, tasks=TASKS)
    view = terminal(host, "run", "--tui", **surroundings)
    view.wait_for(KEEPER_RUNS)
    pid = host.status()["host"]["pid"]
    view.process.kill()
    host.wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the host has ended")
    assert "received fast shutdown request" in host.log()


def test_a_host_that_dies_under_its_view(
    make_host: MakeHost, terminal: Callable[..., Terminal], surroundings: dict[str, str]
) -> None:
    """The view ends with its host: the last table on the normal screen, how the host died, 128 + signal."""
    host = make_host(CONFIG, tasks=TASKS)
    view = terminal(host, "run", "--tui", **surroundings)
    view.wait_for(KEEPER_RUNS)
    os.kill(host.status()["host"]["pid"], signal.SIGKILL)
    assert view.wait() == 128 + signal.SIGKILL
    after = view.text.rpartition("\x1b[?1049l")[2]
    assert "keeper" in after
    assert "was terminated by signal 9: Killed" in after


def test_errors_of_the_start_reach_the_terminal(
    shop: RunningHost, terminal: Callable[..., Terminal], surroundings: dict[str, str]
) -> None:
    """A host that cannot start says why on the normal screen, and nothing of another host is shown."""
    view = terminal(shop, "run", "--tui", **surroundings)
    assert view.wait() == 2
    after = view.text.rpartition("\x1b[?1049l")[2]
    assert "another host is running" in after
    assert "keeper" not in view.text
