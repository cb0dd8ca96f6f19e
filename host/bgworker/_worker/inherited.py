"""Puts off what a clone of the loader inherits, before any code of the worker runs.

A clone is a copy of a process that was to live on: its exit callbacks would remove the
loader's temporary files, its signal handlers act for another process, its log streams are
buffered for a file. A process that was executed afresh has none of it, and nothing here
harms it.
"""

from __future__ import annotations

import atexit
import io
import os
import signal
import sys
import threading
from typing import Any, TextIO

from bgworker._process import own_signals
from bgworker._worker.interrupts import BLOCKED


def reset_signals() -> None:
    """Block what a worker starts with blocked (C21), and give every signal its default action."""
    own_signals.set_mask(BLOCKED)
    own_signals.reset_dispositions()


def stop_alarm() -> None:
    """Stop the alarm clock that an import has set, and forget an alarm that is waiting blocked."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # which drops a pending one (sigaction(2))
    signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)


def reset_exit_callbacks() -> None:
    """Forget the loader's exit callbacks, those of weakref.finalize (temporary directories) among them."""
    atexit._clear()
    weakref = sys.modules.get("weakref")
    if weakref is not None:
        # The two attributes that finalize keeps of the process: who is to be called, and that atexit knows (cleared above).
        finalize: Any = weakref.finalize
        getattr(finalize, "_registry", {}).clear()
        finalize._registered_with_atexit = False
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        getattr(util, "_finalizer_registry", {}).clear()
        atexit.register(util._exit_function)


def reset_random() -> None:
    """Give the clone random numbers of its own; the standard library does so itself, NumPy's global generator does not."""
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def reset_streams() -> None:
    """Make the standard streams UTF-8, line-buffered, and unable to fail on an odd character."""
    # Both names of each: what a plugin has put in place of sys.stdout was meant for another process.
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = _line_buffered(getattr(sys, f"__{name}__"), fd)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if sys.stdin is None or sys.stdin.closed or sys.stdin is not sys.__stdin__:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, "r", closefd=False), encoding="utf-8")


def _line_buffered(stream: TextIO | None, fd: int) -> TextIO:
    try:
        # PYTHONUNBUFFERED leaves out the buffer: then a print() is two writes, and lines of threads and children mix.
        if isinstance(stream, io.TextIOWrapper) and isinstance(stream.buffer, io.BufferedWriter) and stream.fileno() == fd:
            # The same object: log handlers made in the loader keep writing through it.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=False)
            return stream
    except (OSError, ValueError):
        pass  # closed or detached by a plugin
    return open(fd, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def keep_to_this_process(*fds: int) -> None:
    """Keep our descriptors out of programs that the worker starts."""
    for fd in fds:
        if fd >= 0:
            os.set_inheritable(fd, False)


def reset_process() -> None:
    """Do all of it but the descriptors, which the caller knows."""
    reset_signals()
    reset_exit_callbacks()
    reset_random()
    reset_streams()
    assert threading.current_thread() is threading.main_thread()
