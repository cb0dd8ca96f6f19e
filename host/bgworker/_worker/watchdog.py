"""What a worker with a ``watchdog`` tells its host: that it moves, and that it waits.

The host decides who is stuck; the worker only has to be heard. It says "moving" and "idle" over
its channel, at most four times in each span of the watchdog, and a worker without the key says
nothing. Told that it is stuck, by SIGTRAP, it writes where in Python it is to its log: a handler
in C, which also runs while the main thread is inside a C function and holds the GIL. It does not
run in a process that is stopped or inside the kernel, or whose C code blocks SIGTRAP.
"""

from __future__ import annotations

import faulthandler
import signal
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from bgworker._worker.channel import Channel

#: Notices in each span of the watchdog; the host allows for what it has not heard (WATCHDOG_SLACK).
_NOTICES: Final = 4


class Watchdog:
    """The worker's end of its watchdog.

    Args:
        channel: Leads to the host.
        span: The worker's ``watchdog``, in seconds; None for a worker that has none.
    """

    def __init__(self, channel: Channel, span: float | None) -> None:
        self._channel = channel
        self._every = None if span is None else span / _NOTICES
        self._said_at = time.monotonic()
        #: The host knows that the main thread waits on the latch; whatever else goes on then, the worker is not stuck.
        self._is_idle = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Be ready to say where in Python this process is; called before the host is told that the worker starts."""
        if self._every is not None:
            # Chained to nothing: the default action of SIGTRAP is the end of the process.
            faulthandler.register(signal.SIGTRAP, file=2, all_threads=True, chain=False)
            self._said_at = time.monotonic()

    def moves(self) -> None:
        """Take note of progress, and tell the host unless it has heard of some a moment ago. Any thread."""
        # While the host knows of a wait it has no deadline, and must not be given one that the wait would outlast.
        if self._every is not None and not self._is_idle and time.monotonic() - self._said_at >= self._every:
            self._say("moving")

    def wait_ends(self) -> None:
        """Take note that it has something to do."""
        if self._is_idle:
            self._is_idle = False
            self._say("moving")
        else:
            self.moves()

    def until_idle(self) -> float | None:
        """Return the seconds after which a wait must be told to the host; None when that needs not be, or has been done."""
        if self._every is None or self._is_idle:
            return None
        return max(self._said_at + self._every - time.monotonic(), 0.0)

    def waits(self) -> None:
        """Tell the host of a wait that has taken so long that it must know."""
        if self.until_idle() == 0.0:
            self._is_idle = True
            self._say("idle")

    def _say(self, what: str) -> None:
        self._said_at = time.monotonic()
        self._channel.notice({"type": what})

    def beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have each turn of an event loop count as progress: what hangs there is a loop that does not turn."""
        if self._every is not None:
            self.moves()
            self._timer = loop.call_later(self._every, self.beat, loop)

    def stop_beating(self) -> None:
        """End that."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
