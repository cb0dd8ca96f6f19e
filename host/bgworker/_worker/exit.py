"""The way out of a worker: one exit code, nothing lost that was printed, then ``os._exit``.

Python's own exit must not be reached. It answers a broken log pipe with code 120, it lets
``sys.exit(256)`` become 0, and it may wait for ever; the host reads codes as PostgreSQL's
postmaster does: 0 done, 1 start again later, anything else a crash (C29-C31).

============================================  ==========================================
the function                                  exit code
============================================  ==========================================
returns, or ``sys.exit()``                    0
``sys.exit(n)``, n in 0 to 255                n
``sys.exit(n)``, any other integer            1, and a WARNING that names n
``sys.exit(object)``                          1, the object printed
raises an exception                           1, with the traceback (C32)
the default SIGTERM handler has run           1, with the FATAL line (C22), however it ends
============================================  ==========================================
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from bgworker._process import injection, own_signals
from bgworker._worker.interrupts import Ending, Terminated, ending_by_administrator
from bgworker._worker.log import say, write
from bgworker.errors import HostError

if TYPE_CHECKING:
    from bgworker._worker.runtime import Runtime

#: How long the last words may take when nobody empties the pipe; the collector's replacement needs less.
FLUSH_TIMEOUT: Final = 2.0
_OUR_FOLDER: Final = os.path.dirname(__file__)


def call(runtime: Runtime, body: Callable[[], None]) -> int:
    """Run the worker's function to its end; return the exit code it comes to, with everything said that there is to say."""
    interrupts = runtime.interrupts
    error: BaseException | None = None
    try:
        try:
            body()
        finally:
            interrupts.leave()
    # Whatever a worker raises ends here; SIGTERM may still raise Terminated in the line above.
    except BaseException as raised:
        interrupts.leave()
        error = raised
    return conclude(runtime, error)


def conclude(runtime: Runtime, error: BaseException | None) -> int:
    """Return the exit code for what ended the worker, and write its last lines."""
    name = runtime.worker.bgw_name
    ending = runtime.interrupts.ending
    if isinstance(error, Terminated):
        ending = ending or error.ending or ending_by_administrator(name)
        if error.__cause__ is not None:  # what was leaving a block that held the signal back
            report(error.__cause__)
        code = 1
    else:
        code = _code_of(name, error)
    if ending is None:
        if error is not None and code != 0:
            _tell_host(runtime, error)
        return code
    say("FATAL", *ending.lines())
    _say_to_host(runtime, ending.for_host)
    return 1


def _tell_host(runtime: Runtime, error: BaseException) -> None:
    """Say why over the channel: the host's reason for a restart must not wait for what the collector reads."""
    if isinstance(error, SystemExit):
        text = "" if isinstance(error.code, int) else _text_of(error.code)
    elif isinstance(error, HostError):
        text = error.message_primary
    else:
        # An exception's first line says it; psycopg's further ones quote the statement.
        said = _text_of(error).strip()
        text = f"{type(error).__name__}: {said.splitlines()[0]}" if said else type(error).__name__
    _say_to_host(runtime, text)


def _say_to_host(runtime: Runtime, text: str) -> None:
    if text:
        try:
            runtime.channel.send({"type": "exiting", "error": text[:500]})
        # The host is gone, or the author closed the descriptor: the exit goes on.
        except BaseException:
            pass


def _code_of(name: str, error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        report(error)
        return 1
    code = error.code
    if code is None:
        return 0
    if not isinstance(code, int):
        write(f"{_text_of(code)}\n")
        return 1
    if 0 <= code <= 255:
        return int(code)
    # The kernel keeps eight bits: 256 would arrive as 0, and the worker would be forgotten as done.
    say(
        "WARNING",
        f'background worker "{name}" asked for exit code {code}',
        "Exit codes are 0 to 255; it exits with code 1 instead.",
    )
    return 1


def _text_of(value: object) -> str:
    try:
        return str(value)
    # An author's __str__ may raise anything.
    except BaseException:
        return object.__repr__(value)


def report(error: BaseException) -> None:
    """Write an exception's traceback to standard error, without our own frames above the worker's function."""
    error.__traceback__ = _trimmed(error.__traceback__)
    hook = sys.excepthook
    if hook is not sys.__excepthook__:
        try:
            hook(type(error), error, error.__traceback__)
        # An author's hook failed: the traceback is printed all the same.
        except BaseException:
            pass
        else:
            return
    try:
        text = "".join(traceback.format_exception(error))
    # No memory, no stack, or an exception that cannot be printed.
    except BaseException:
        text = f"{type(error).__name__}: the traceback cannot be shown\n"
    if isinstance(error, HostError):
        # A traceback ends in the primary; what to do about it stands in the other two.
        text += "".join(f"{line}\n" for line in error.lines()[1:])
    write(text)


def _trimmed(frames: TracebackType | None) -> TracebackType | None:
    rest = frames
    while rest is not None and os.path.dirname(rest.tb_frame.f_code.co_filename) == _OUR_FOLDER:
        rest = rest.tb_next
    return rest or frames


def join_threads() -> None:
    """Wait for the threads that are not daemons, as Python does when a program ends.

    Only after the function returned: a worker that failed or was told to end does not wait for threads that nobody stops.
    """
    # The one way that also ends the idle threads of executors (concurrent.futures registers with it).
    shutdown: Callable[[], None] | None = getattr(threading, "_shutdown", None)
    if shutdown is not None:
        shutdown()


def finish(runtime: Runtime, code: int) -> NoReturn:
    """Run the exit callbacks, close what is open, and leave."""
    for step in (_run_exit_callbacks, runtime.close_connection, _shut_logging):
        try:
            step()
        # Authors' code, and an exit that has begun: nothing may stop it.
        except BaseException as error:
            report(error)
    injection.point("worker.exit")
    leave(code)


def _run_exit_callbacks() -> None:
    atexit._run_exitfuncs()


def _shut_logging() -> None:
    # Our start has cleared the loader's exit callbacks, logging's among them; twice does no harm.
    logging: Any = sys.modules.get("logging")
    if logging is not None:
        logging.shutdown()


class _TooLong(BaseException):
    pass


def leave(code: int) -> NoReturn:
    """Write out what is buffered, as far as somebody takes it, and end the process."""
    try:
        streams = (sys.stdout, sys.__stdout__, sys.stderr, sys.__stderr__)
        for stream in dict.fromkeys(stream for stream in streams if stream is not None):
            _flush(stream)
    finally:
        os._exit(code)


def _flush(stream: Any) -> None:
    # Blocking writes to a full pipe end only with a signal; making the pipe non-blocking would concern
    # everybody else who holds it, a child of the worker for one.
    try:
        with_alarm = threading.current_thread() is threading.main_thread()
        if with_alarm:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)  # forgets one that is pending already
            signal.signal(signal.SIGALRM, _on_alarm)
            own_signals.unblock((signal.SIGALRM,))
            signal.setitimer(signal.ITIMER_REAL, FLUSH_TIMEOUT)
        stream.flush()
        if with_alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
    # Closed, broken, full, or not a stream at all: the exit goes on.
    except BaseException:
        pass


def _on_alarm(_signum: int, _frame: FrameType | None) -> None:
    raise _TooLong


__all__ = ["FLUSH_TIMEOUT", "Ending", "call", "conclude", "finish", "join_threads", "leave", "report"]
