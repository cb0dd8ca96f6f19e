"""What a face says when it is used at the wrong moment, and the checks that say it.

A leaf of this room: imports nothing of it. Every face of ``bgworker.worker``,
``bgworker.spi`` and ``bgworker.aio`` may use it.
"""

from __future__ import annotations

import sys
import threading

from bgworker.errors import HostError


class UsageError(HostError, RuntimeError):
    """A worker's own code called a face where that cannot work; its author must act."""

    code = "usage"


def refuse_in_event_loop(name: str, twin: str) -> None:
    """Refuse a blocking call in a thread that runs an asyncio event loop.

    Args:
        name: The call, as the author wrote it.
        twin: What to use instead.

    Raises:
        UsageError: An event loop is running in this thread.
    """
    # Nothing can be running in a process that never imported asyncio; importing it costs 30 ms.
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise UsageError(
            f"{name} would block the event loop",
            "It waits without giving the other tasks a turn.",
            f"Use {twin} in an async worker.",
        )


def refuse_outside_main_thread(name: str) -> None:
    """Refuse what belongs to the main thread: the latch and the database connection are the process's own.

    Raises:
        UsageError: This is another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError(
            f"{name} can be used in the worker's main thread only",
            "A worker has one latch and one database connection, and Python runs signal handlers in the main thread.",
            "Let the thread do its own waiting, and set_latch() when it has something for the main thread.",
        )
