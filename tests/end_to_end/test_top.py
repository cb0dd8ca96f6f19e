"""The full-screen view of a real host, on a terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

from bgworker.testing import RunningHost
from tests.end_to_end.terminals import Terminal
from tests.end_to_end.test_cli_view import CONFIG, TASKS

MakeHost = Callable[..., RunningHost]


def test_a_worker_is_terminated_and_started_by_key(make_host: MakeHost, terminal: Callable[..., Terminal]) -> None:
    """In a terminal of 80 by 24: t and y stop a worker for good, s starts it again, h says why, v opens the log, q leaves."""
    host = make_host(CONFIG, tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("keeper")
    top = terminal(host, "top", PAGER="cat")
    top.wait_for(r"\x1b\[\?1049h")  # the other screen
    top.wait_for("keeper +")
    top.wait_for("started")
    top.type("t")
    top.wait_for(r"Terminate keeper \(0\.1\)\?")
    top.type("y")
    top.wait_for("terminated by an operator")
    assert host.slot("keeper") is None
    top.type("h")
    top.wait_for("That was asked for by")
    top.type("s")
    top.wait_for(r"keeper \(0\.2\) pid")
    top.type("v")
    top.wait_for(r"\[0\.1 \d+\] keeper: FATAL:  terminating background worker")
    top.type("q")
    assert top.wait() == 0
    assert "\x1b[?1049l" in top.text  # and back
    host.wait_for_worker("keeper")


def test_the_end_of_the_host_is_said_at_the_end(make_host: MakeHost, terminal: Callable[..., Terminal]) -> None:
    """A host that is killed leaves its last table and how it died, on the other screen and on this one; exit code 3."""
    host = make_host(CONFIG, tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("keeper")
    top = terminal(host, "top", NO_COLOR="1", size=(120, 30))
    top.wait_for("keeper +")
    assert host.process is not None
    host.process.kill()
    top.wait_for(r"host \(PID \d+\) is gone: it was killed")
    assert "\x1b[31m" not in top.text
    top.type("q")
    assert top.wait() == 3
    left = top.text.rpartition("\x1b[?1049l")[2]
    assert "keeper" in left
    assert "is gone: it was killed" in left


def test_sigterm_gives_the_terminal_back(make_host: MakeHost, terminal: Callable[..., Terminal]) -> None:
    """SIGTERM leaves the view as q does."""
    host = make_host(CONFIG, tasks=TASKS)
    host.start_and_wait()
    top = terminal(host, "top")
    top.wait_for("SLOT")
    top.process.send_signal(signal.SIGTERM)
    assert top.wait() == 0
    assert "\x1b[?1049l" in top.text


def test_without_a_host(make_host: MakeHost, terminal: Callable[..., Terminal]) -> None:
    """No host: the error is said before the screen is taken."""
    top = terminal(make_host(CONFIG, tasks=TASKS), "top")
    assert top.wait() == 3
    assert "ERROR:  no host is running in" in top.text
    assert "\x1b[?1049h" not in top.text


def test_without_textual(make_host: MakeHost, terminal: Callable[..., Terminal]) -> None:
    """Without textual the error says what to install; without a terminal, what there is instead."""
    host = make_host(CONFIG, tasks=TASKS)
    (host.directory / "bin").mkdir()
    # Found before the installed one, and not importable.
    (host.directory / "bin" / "textual.py").write_text("raise ImportError('no')\n")
    top = terminal(host, "top", PYTHONPATH=str(host.directory / "bin"))
    assert top.wait() == 1
    assert "ERROR:  bgworker top needs textual" in top.text
    assert 'HINT:  Install it with: pip install "bgworker[top]"' in top.text
    pipe = subprocess.run([sys.executable, "-m", "bgworker", "top"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert pipe.returncode == 2
    assert "ERROR:  bgworker top needs a terminal" in pipe.stderr
