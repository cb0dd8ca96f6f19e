"""``bgworker exec``: one worker's function in this terminal, same runtime, no host, and a debugger that works.

What differs from a worker process: there is no slot, so requests raise HostNotRunning; the
standard streams stay the terminal's; Ctrl-C cancels a running query and else means SIGTERM;
the call returns the exit code and leaves the process alive.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bgworker._spec import BackgroundWorker
from bgworker._worker import exit as exits
from bgworker._worker import library, runtime
from bgworker._worker.assignment import Assignment, extend_path, make_runtime
from bgworker._worker.channel import Channel
from bgworker._worker.interrupts import Interrupts
from bgworker._worker.latch import Latch
from bgworker._worker.main import body
from bgworker._worker.runtime import DatabaseFacts
from bgworker._worker.slot_view import SlotView
from bgworker.errors import HostNotRunning

if TYPE_CHECKING:
    from bgworker._plugins.manager import PluginHost

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def run_in_terminal(
    worker: BackgroundWorker,
    *,
    settings: dict[str, Any] | None = None,
    database: DatabaseFacts | None = None,
    python_path: Sequence[str] = (),
    plugins: PluginHost | None = None,
) -> int:
    """Run a worker's function here and return the exit code it would have had; its last lines are on standard error.

    Args:
        worker: The registration.
        settings: Raw ``[settings]`` tables of workers.toml.
        database: How the database is reached; None without one.
        python_path: Put in front of sys.path.
        plugins: Plugins that are loaded already.

    Raises:
        PluginError: The library cannot be loaded, or has no such function.
    """
    latch = Latch()
    interrupts = Interrupts(latch, is_terminal=True)
    absence = HostNotRunning(
        "this worker runs without a host",
        "It was started in a terminal, so it has no slot, and nobody to ask.",
        'Start it under a host with "bgworker register" or in workers.toml.',
    )
    channel = Channel(-1, -1, latch, interrupts, SlotView(-1), absence=absence)
    assignment = Assignment(worker, 0, 0, settings or {}, database, tuple(python_path))
    this = make_runtime(assignment, latch, interrupts, channel, plugins=plugins)
    extend_path(assignment.python_path)
    function = library.resolve(worker.bgw_library_name, worker.bgw_function_name)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = [(signum, signal.getsignal(signum)) for signum in _HANDLED]
    runtime.install(this)
    try:
        interrupts.block()
        interrupts.install()
        latch.arm()
        return exits.call(this, lambda: body(this, function))
    finally:
        this.close_connection()
        runtime.install(None)
        signal.set_wakeup_fd(-1)
        interrupts.uninstall()
        for signum, handler in handlers:
            signal.signal(signum, handler)
        # Last: what was blocked while the worker left reaches the caller's handlers.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        latch.close()
