"""Exit codes and last words: what a worker leaves with, however its function ends."""

from __future__ import annotations

import signal

import pytest
from tests.integration.worker.driving import PlayedHost


@pytest.mark.parametrize("code", [0, 1, 2, 3, 42, 119, 120, 121, 127, 128, 254, 255])
def test_exit_code_is_kept(host: PlayedHost, code: int) -> None:
    """C29: sys.exit with 0 to 255 is the worker's exit code."""
    life = host.start("leave", ["exit", code])
    assert life.wait() == code
    assert life.read("err") == ""


@pytest.mark.parametrize("code", [256, 257, 512, -1, -256, 2**40])
def test_exit_code_out_of_range_is_a_failure(host: PlayedHost, code: int) -> None:
    """C29: a code that eight bits cannot hold is 1 with a warning, never a silent 0."""
    life = host.start("leave", ["exit", code])
    assert life.wait() == 1
    assert f'WARNING:  background worker "tested" asked for exit code {code}\n' in life.read("err")


@pytest.mark.parametrize(("how", "code", "text"), [(["exit"], 0, ""), (["exit", None], 0, ""), ("return", 0, "")])
def test_quiet_ends(host: PlayedHost, how: object, code: int, text: str) -> None:
    """C29: returning anything, sys.exit() and sys.exit(None) are code 0."""
    life = host.start("leave", how)
    assert life.wait() == code
    assert life.read("err") == text


def test_exit_with_a_text_prints_it(host: PlayedHost) -> None:
    """C30: sys.exit with an object prints it and is code 1."""
    life = host.start("leave", ["exit", "no queue here"])
    assert life.wait() == 1
    assert life.read("err") == "no queue here\n"


@pytest.mark.parametrize(("how", "name"), [("raise", "ValueError: no such order"), ("interrupt", "KeyboardInterrupt")])
def test_exception_is_code_one_with_traceback(host: PlayedHost, how: str, name: str) -> None:
    """C32: an uncaught exception is exit code 1, its traceback in the log, without the runtime's own frames."""
    life = host.start("leave", how)
    assert life.wait() == 1
    log = life.read("err")
    assert log.startswith("Traceback (most recent call last):\n")
    assert log.rstrip().endswith(name)
    assert 'functions.py"' in log
    assert "_worker" not in log


@pytest.mark.parametrize(("how", "signum"), [("abort", signal.SIGABRT), ("quit", signal.SIGQUIT), ("segfault", signal.SIGSEGV)])
def test_deadly_signals_stay_deadly(host: PlayedHost, how: str, signum: signal.Signals) -> None:
    """C31: a crash reaches the host as its signal; a fault shows where in Python it happened."""
    life = host.start("leave", how)
    assert life.wait() == -signum
    if how != "quit":
        assert 'functions.py", line' in life.read("err")


def test_closed_stdout_is_no_exit_code(host: PlayedHost) -> None:
    """C29: a broken stdout at the last flush does not turn into Python's exit code 120."""
    life = host.start("close_stdout")
    assert life.wait() == 0
    assert life.read("out").startswith("first\n")


def test_reader_that_went_away_is_no_exit_code(host: PlayedHost) -> None:
    """C29: with nobody at the other end of the log pipes, the worker still ends with its own code."""
    life = host.bear()
    life.close_output()
    life.assign("write_to_nobody")
    life.expect_started()
    assert life.wait() == 0


def test_closed_streams_are_no_exit_code(host: PlayedHost) -> None:
    """C29: a worker that closes its streams ends with code 0."""
    assert host.start("close_streams").wait() == 0


def test_traceback_survives_missing_streams(host: PlayedHost) -> None:
    """C32: the traceback is written even when sys.stderr has been taken away."""
    life = host.start("no_streams")
    assert life.wait() == 1
    assert "ValueError: without streams" in life.read("err")


def test_full_pipe_delays_the_exit_but_keeps_the_code(host: PlayedHost) -> None:
    """C29: with nobody emptying stdout the exit comes all the same, with its code, and stderr is not lost."""
    life = host.start("fill_stdout")
    assert life.wait() == 0
    assert life.read("err") == "stderr still works"


def test_last_words_without_newline_arrive(host: PlayedHost) -> None:
    """C32: what is buffered without a newline is written before the process ends."""
    life = host.start("last_words")
    assert life.wait() == 0
    assert life.read("out") == "no newline on stdout"
    assert life.read("err") == "no newline on stderr"


def test_terminated_by_hand_is_code_one(host: PlayedHost) -> None:
    """C22: a worker that raises Terminated itself ends with the FATAL line and code 1."""
    life = host.start("leave", "terminated")
    assert life.wait() == 1
    assert life.read("err") == 'FATAL:  terminating background worker "tested" due to administrator command\n'


def test_executor_finishes_its_work(host: PlayedHost) -> None:
    """C29: a function that returns while an executor still works loses nothing of that work."""
    life = host.start("leave_threads")
    assert life.read("out") == "work done\n"
    assert life.wait() == 0


def test_failed_worker_does_not_wait_for_its_threads(host: PlayedHost) -> None:
    """C32: after an exception the worker ends at once, whatever its threads do."""
    life = host.start("fail_with_threads")
    assert life.wait() == 1
