"""``run_in_terminal``: the runtime without a host, in a real terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
from typing import Any

import pytest
from tests.integration.worker.driving import HERE, Deadline
from tests.integration.worker.server import Server

FATAL = 'FATAL:  terminating background worker "typed" due to administrator command'

PROGRAM = """
import sys
from bgworker._spec import BackgroundWorker, BgWorkerFlags
from bgworker._worker.runtime import DatabaseFacts
from bgworker._worker.terminal import run_in_terminal
library, function, conninfo = sys.argv[1:]
code = run_in_terminal(
    BackgroundWorker(bgw_name="typed", bgw_library_name=library, bgw_function_name=function, bgw_main_arg="plain",
                     bgw_flags=BgWorkerFlags(3)),
    settings={library: {"naptime": 3}},
    database=DatabaseFacts("external", conninfo, None) if conninfo else None,
    python_path=[HERE],
)
print("code", code, flush=True)
sys.exit(code)
""".replace("HERE", repr(str(HERE)))


class Terminal:
    """A terminal with one program in it."""

    def __init__(self, *arguments: str) -> None:
        self.text = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.execv(sys.executable, [sys.executable, "-c", PROGRAM, *arguments])
            finally:
                os._exit(99)

    def read_until(self, text: str) -> str:
        """Read until this has been shown."""
        deadline = Deadline(f"{text!r} in the terminal")
        while text not in self.text:
            assert select.select([self._fd], [], [], deadline.left)[0], self.text
            try:
                self.text += os.read(self._fd, 65536).decode()
            except OSError:
                pytest.fail(f"program ended; wanted {text!r} in:\n{self.text}")
        return self.text

    def type(self, text: str) -> None:
        """Type as a person would."""
        os.write(self._fd, text.encode())

    def wait(self) -> int:
        """Read to the end; return the exit code."""
        deadline = Deadline("the end of the program")
        while deadline.left:
            if not select.select([self._fd], [], [], deadline.left)[0]:
                continue
            try:
                self.text += os.read(self._fd, 65536).decode()
            except OSError:  # EIO: nobody has the terminal open any more
                break
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code

    def close(self) -> None:
        """Close the terminal, and kill what is left in it."""
        os.close(self._fd)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def terminal() -> Any:
    opened: list[Terminal] = []

    def make(library: str, function: str, conninfo: str = "") -> Terminal:
        opened.append(Terminal(library, function, conninfo))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_ctrl_c_means_sigterm(terminal: Any) -> None:
    """C22: Ctrl-C ends a worker that waits, with the FATAL line and code 1, and the caller gets the code."""
    life = terminal("functions", "wait_for_ever")
    life.read_until("ready")
    life.type("\x03")
    assert life.wait() == 1
    assert FATAL in life.text
    assert "code 1" in life.text


def test_ctrl_c_works_before_unblocking(terminal: Any) -> None:
    """C21: a worker that never unblocks its signals can still be left with Ctrl-C in a terminal."""
    life = terminal("functions", "never_unblock")
    life.read_until("ready")
    life.type("\x03")
    assert life.wait() == 1


def test_there_is_no_host(terminal: Any) -> None:
    """C33: a request says that there is no host; settings, activity and the database are there."""
    life = terminal("functions", "in_terminal")
    assert life.wait() == 0
    assert "{'naptime': 3}" in life.text
    assert "HostNotRunning: this worker runs without a host" in life.text


def test_debugger_works(terminal: Any) -> None:
    """A breakpoint() in the worker's function talks to the terminal."""
    life = terminal("functions", "break_here")
    life.read_until("(Pdb) ")
    life.type("p secret * 2\n")
    life.read_until("84")
    life.type("c\n")
    assert life.wait() == 0
    assert "went on" in life.text


def test_ctrl_c_cancels_a_query_first(terminal: Any, server: Server) -> None:
    """C22: Ctrl-C during a query cancels the query, as in psql; the next one ends the worker."""
    life = terminal("dbfunctions", "cancel_then_wait", server.conninfo)
    life.read_until("backend ")
    server.wait_until("SELECT count(*) = 1 FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(601)'")
    life.type("\x03")
    life.read_until("QueryCanceled")
    life.type("\x03")
    assert life.wait() == 1
    assert FATAL in life.text
