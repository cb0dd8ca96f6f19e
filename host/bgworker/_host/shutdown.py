"""The end of a host's life: the machine told to stop, then the helpers, PostgreSQL after them, the collector last.

Imported by the composition root alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from bgworker._core.states import ShutdownMode
from bgworker._host import clients
from bgworker.errors import RegistrationError

if TYPE_CHECKING:
    from bgworker._host.host import Host

#: How long the helpers get to finish after the last worker, in seconds.
_HELPER_STOP_TIMEOUT: Final = 5.0


class Shutdown:
    """What is left to be done until the host can end, and what it then says.

    Args:
        host: Which is to end.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        #: What the host's exit code will be, if nothing asked for its end.
        self.fatal_exit_code = 0
        #: Set when everything is done.
        self.exit_code: int | None = None
        #: When helpers that still run are ended; None before the last worker is gone.
        self.stop_helpers_by: float | None = None

    def begin(self, mode: ShutdownMode, why: str) -> None:
        """Begin a shutdown, or make the running one stricter."""
        host = self._host
        if why:
            host.log("LOG", why)
        host.reexec.cancel("the host is shutting down")
        # The machine must know what a smart shutdown waits for before it begins one.
        clients.count_live_handles(host, mode)
        host.apply(host.machine.begin_shutdown(mode, time.monotonic()))
        host.births.spares.want(0)
        host.loaders.cancel_reload(RegistrationError("the host is shutting down"))
        host.children.stopped.hurry()
        if mode is ShutdownMode.IMMEDIATE and host.database is not None:
            host.database.stop("immediate", time.monotonic())
            if self.stop_helpers_by is not None:
                # A fast shutdown waits for PostgreSQL already; it waits no longer than an immediate one now.
                self.stop_helpers_by = min(self.stop_helpers_by, time.monotonic() + _HELPER_STOP_TIMEOUT)
        host.tell_state()

    def go_on(self, now: float) -> None:
        """Stop the helpers after the last worker, PostgreSQL after them, the collector last."""
        host = self._host
        if host.machine.shutdown is None or not host.machine.is_drained:
            return
        if self.stop_helpers_by is None:
            self.stop_helpers_by = now + _HELPER_STOP_TIMEOUT
            host.loaders.stop()
            if host.database is not None:
                host.database.stop("immediate" if host.machine.shutdown is ShutdownMode.IMMEDIATE else "fast", now)
        if host.database is not None:
            host.database.ensure_stop()
        collector, strays = host.output.collector, host.children.strays
        others = [h for h in host.children.helpers() if h is not collector and h.pid is not None]
        postgres = host.database.postgres_pid if host.database is not None else None
        if now >= self.stop_helpers_by:
            self._end_helpers(now)
            return
        if others or postgres is not None or host.births.spares.is_leaving or strays.is_looking or strays.killed:
            return
        if collector.is_parting and collector.is_wanted:
            return  # the one after it writes what has been said since
        if collector.is_wanted:
            collector.is_wanted = False
            host.log("LOG", "host is shut down")
            self.stop_helpers_by = now + _HELPER_STOP_TIMEOUT
            collector.send({"type": "stop"})
        if collector.pid is None:
            self.exit_code = self.fatal_exit_code

    def _end_helpers(self, now: float) -> None:
        """End those whose time is over, and PostgreSQL if its own is."""
        host = self._host
        collector = host.output.collector
        others = [h for h in host.children.helpers() if h is not collector and h.pid is not None]
        postgres = host.database.postgres_pid if host.database is not None else None
        self.stop_helpers_by = now + 1.0
        if host.database is not None and postgres is not None:
            if host.database.is_given_time(now):
                # With the database process, which waits for it; the other helpers have had theirs.
                others = [h for h in others if h is not host.database.process]
                self.stop_helpers_by = host.database.stop_by if not others else self.stop_helpers_by
            else:
                host.database.end_postgres(now)
        host.children.strays.give_up()
        # The collector comes last: what the others have said on their way out is still to be written.
        for helper in others or ([collector] if postgres is None else []):
            helper.kill()
