"""_core/exits.py: wait statuses decoded and worded."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from bgworker._core.exits import MAX_FOREIGN_TEXT, SIGNAL_TEXTS, clean, decode, ended_text, outcome, read_exit


def an_exit(status: int, **keywords: object):
    options = {"tail": "", "failure": "", "has_started": True, "was_requested": False, **keywords}
    return read_exit(status, 5.0, options.pop("tail"), **options)


def test_decodes_every_exit_code() -> None:
    """An exit code is read as the standard library reads it."""
    for status in range(0, 256 << 8, 1 << 8):
        assert decode(status) == (os.waitstatus_to_exitcode(status), None)


def test_decodes_every_signal() -> None:
    """A fatal signal is read as the standard library reads it, with and without a core dump."""
    for signum in range(1, 65):
        assert decode(signum) == decode(signum | 0x80) == (None, -os.waitstatus_to_exitcode(signum))


@pytest.mark.parametrize("status", [0x137F, 0xFFFF])
def test_refuses_what_is_no_end(status: int) -> None:
    """A stopped or continued process has not ended; taking it for an end would free its slot."""
    with pytest.raises(ValueError, match="not the end"):
        decode(status)


@pytest.mark.skipif(sys.platform != "linux", reason="the texts are Linux's")
def test_signal_texts_are_those_of_the_system() -> None:
    """The room's own table says what strsignal() says."""
    assert {number: signal.strsignal(number) for number in SIGNAL_TEXTS} == SIGNAL_TEXTS


def test_outcome() -> None:
    """The short form of an end names code or signal."""
    assert outcome(0, None) == "exit 0"
    assert outcome(None, 9) == "signal 9 (Killed)"
    assert outcome(None, 40) == "signal 40"


@pytest.mark.parametrize(
    ("status", "tail", "reason"),
    [
        (0, "", "exit 0"),
        (0, "a last warning", "exit 0"),
        (1 << 8, "", "exit 1"),
        (1 << 8, "connection refused\n", "exit 1: connection refused"),
        (1 << 8, "  \n", "exit 1"),
        (2 << 8, "no such table", "crash: exit 2: no such table"),
        (9, "", "crash: signal 9 (Killed)"),
        (11, "about to fail.", "crash: signal 11 (Segmentation fault): about to fail"),
    ],
)
def test_reason_of_an_exit(status: int, tail: str, reason: str) -> None:
    """The reason is the worker's last line if it failed and wrote one, else the code or signal."""
    assert an_exit(status, tail=tail).reason == reason


def test_reason_of_a_failed_start() -> None:
    """An end before the start is a failed start; what the worker said of it beats its last line."""
    assert an_exit(1 << 8, has_started=False, tail="x").reason == "failed to start: exit 1: x"
    assert an_exit(1 << 8, has_started=False, tail="x", failure="failed to start: no y").reason == "failed to start: no y"
    assert an_exit(15, has_started=False, was_requested=True).reason == "signal 15 (Terminated)"


def test_programs_do_not_crash() -> None:
    """C31: a command shares no memory and its codes are its own: however it ends, it waits its bgw_restart_time."""
    for status in (2 << 8, 127 << 8, signal.SIGKILL, signal.SIGSEGV):
        end = an_exit(status, is_command=True)
        assert not end.is_crash
        assert end.reason == outcome(end.code, end.signal)


def test_codes_above_1_and_signals_are_crashes() -> None:
    """C31: code 0 and 1 are orderly ends, every other code and every signal is a crash."""
    assert [code for code in range(256) if not an_exit(code << 8).is_crash] == [0, 1]
    assert all(an_exit(signum).is_crash for signum in range(1, 65))


@pytest.mark.parametrize("status", [0, 1 << 8, 2 << 8, 9, 11])
def test_no_crash_before_the_start_or_on_request(status: int) -> None:
    """Design 8.6: an exit that the host asked for is no crash, and neither is a failed start."""
    assert not an_exit(status, was_requested=True).is_crash
    assert an_exit(status, was_requested=True).was_requested
    assert not an_exit(status, has_started=False).is_crash


def test_an_end_that_was_asked_for_says_by_whom() -> None:
    """Design 8.6: the reason of a requested exit is who asked for it; nothing that a process prints reads like it."""
    end = an_exit(1 << 8, was_requested=True, asked="restart requested", tail="ValueError: x")
    assert (end.reason, end.asked) == ("exit 1, as asked: restart requested", "restart requested")
    assert an_exit(9, was_requested=True, asked="terminated by an operator").reason == (
        "signal 9 (Killed), as asked: terminated by an operator"
    )
    assert an_exit(1 << 8, tail=", as asked: no").reason == "exit 1: , as asked: no"
    assert an_exit(1 << 8, asked="nobody").asked == ""


def test_foreign_text_is_made_harmless() -> None:
    """What a worker wrote reaches a reason inert, on one line and bounded."""
    assert clean("\x1b[31mred\nline two. ") == "?[31mred?line two"
    assert len(clean("x" * 10_000)) == MAX_FOREIGN_TEXT
    assert "\x1b" not in an_exit(1 << 8, tail="\x1b]0;title\x07").reason


def test_ended_text_is_postgresqls() -> None:
    """Child exits read as in PostgreSQL's log, also without a known pid or signal text."""
    assert ended_text("x", 7, 1, None) == 'background worker "x" (PID 7) exited with exit code 1'
    assert ended_text("x", 7, None, 9) == 'background worker "x" (PID 7) was terminated by signal 9: Killed'
    assert ended_text("x", None, None, 40) == 'background worker "x" was terminated by signal 40: Unknown signal 40'
