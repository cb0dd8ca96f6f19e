"""How a process ended: the wait status decoded, put into words, and called a crash or not.

Pure functions and one record. Used by the machine; the host shows ``Exit`` as ``last_exit``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from bgworker._spec import printable

__all__ = ["Exit", "clean", "decode", "ended_text", "outcome", "read_exit"]

#: Longest piece of foreign text (a worker's last line, an error) inside a reason.
MAX_FOREIGN_TEXT: Final = 200

#: Follows the outcome in the reason of an end that somebody asked for; views tell by it that it is no failure.
AS_ASKED: Final = ", as asked: "

#: What strsignal() says on Linux, for the signals that end a process; others show their number alone.
SIGNAL_TEXTS: Final = {
    1: "Hangup",
    2: "Interrupt",
    3: "Quit",
    4: "Illegal instruction",
    5: "Trace/breakpoint trap",
    6: "Aborted",
    7: "Bus error",
    8: "Floating point exception",
    9: "Killed",
    10: "User defined signal 1",
    11: "Segmentation fault",
    12: "User defined signal 2",
    13: "Broken pipe",
    14: "Alarm clock",
    15: "Terminated",
    24: "CPU time limit exceeded",
    25: "File size limit exceeded",
    31: "Bad system call",
}


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of one life of a worker."""

    #: Exit code, or None when a signal ended the process.
    code: int | None
    #: Signal number, or None when the process exited by itself.
    signal: int | None
    #: Monotonic time at which the host learned of it.
    at: float
    #: ``exit 1: last line``, ``crash: signal 9 (Killed)``, ``exit 0``, ``exit 3 (success)``, ``failed to start: ...``,
    #: ``stuck: ...``, or ``exit 1, as asked: who``.
    reason: str
    #: C31 applies: the function was running, nobody asked for the exit, and it was neither code 0 nor 1.
    is_crash: bool
    #: The host asked for it: the intent, never the code, decides what follows (design section 8, point 6).
    was_requested: bool
    #: Who asked for it and what for, as ``reasons`` words it; empty if nobody did.
    asked: str = ""
    #: The function was running and ended with code 0 or one of success_exit_codes.
    is_success: bool = False
    #: The process ended before it had called the function, and nobody asked for it.
    is_failed_start: bool = False


def decode(waitstatus: int) -> tuple[int | None, int | None]:
    """Return (code, signal) of a wait status, one of them None.

    Raises:
        ValueError: The status says stopped or continued, which is no end.
    """
    # The encoding of wait(2): low seven bits the signal, 0x80 the core flag, next byte the code;
    # 0x7f in the low byte is "stopped" (and 0xffff "continued"), which only a caller's mistake brings here.
    signal = waitstatus & 0x7F
    if signal == 0x7F:
        raise ValueError(f"wait status {waitstatus:#x} is not the end of a process")
    return ((waitstatus >> 8) & 0xFF, None) if signal == 0 else (None, signal)


def outcome(code: int | None, signal: int | None) -> str:
    """Return the end in a few words: ``exit 1`` or ``signal 9 (Killed)``."""
    if signal is None:
        return f"exit {code}"
    return f"signal {signal} ({SIGNAL_TEXTS[signal]})" if signal in SIGNAL_TEXTS else f"signal {signal}"


def clean(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Return foreign text fit for a reason: on one line, inert, bounded, without its final period."""
    text = printable(text.strip()).rstrip(".")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def read_exit(
    waitstatus: int,
    now: float,
    tail: str,
    *,
    failure: str,
    has_started: bool,
    was_requested: bool,
    asked: str = "",
    success_codes: Collection[int] = (),
    is_command: bool = False,
) -> Exit:
    """Return the record of a process's end.

    Args:
        waitstatus: From wait(2), undecoded.
        now: Monotonic.
        tail: Its last line on stderr, or empty.
        failure: What is already known of a start that failed or of a worker that hangs, or empty.
        has_started: Whether this life said that it started.
        was_requested: Whether the host asked this process to go.
        asked: Who asked, where somebody did: the cause of such an end, whatever the process says of it.
        success_codes: Exit codes that count as 0.
        is_command: Whether it was a program of somebody's, whose exit codes mean what its author chose, and which shares
            no memory: nothing it does is a crash.
    """
    code, signal = decode(waitstatus)
    reason = outcome(code, signal)
    is_success = has_started and not failure and (code == 0 or code in success_codes)
    if was_requested and asked:
        # Between the outcome and foreign text stands a colon, so nothing that a worker prints can read like this.
        reason += f"{AS_ASKED}{clean(asked)}"
    elif is_success and code != 0:
        reason += " (success)"
    # After success the last line on stderr is noise, not a cause.
    elif code != 0 and tail.strip():
        reason += f": {clean(tail)}"
    # An end before the start is a failed start, however violent: it waits its restart time, and since
    # no function of the worker has run, nothing that workers share can be damaged.
    # Neither is the end of a worker that hung: the host told it to go, and how it then went says nothing.
    is_crash = has_started and not failure and not was_requested and not is_success and code != 1 and not is_command
    is_failed_start = not has_started and not was_requested
    # The three ends are told apart by their first words, wherever the reason is shown.
    if failure:
        reason = failure
    elif is_failed_start:
        reason = f"failed to start: {reason}"
    elif is_crash:
        reason = f"crash: {reason}"
    return Exit(code, signal, now, reason, is_crash, was_requested, asked if was_requested else "", is_success, is_failed_start)


def ended_text(name: str, pid: int | None, code: int | None, signal: int | None) -> str:
    """Return the log line of an end, word for word as PostgreSQL's LogChildExit has it."""
    who = f'background worker "{name}"' + (f" (PID {pid})" if pid is not None else "")
    if signal is None:
        return f"{who} exited with exit code {code}"
    # strsignal() itself says "Unknown signal N" here.
    return f"{who} was terminated by signal {signal}: {SIGNAL_TEXTS.get(signal, f'Unknown signal {signal}')}"
