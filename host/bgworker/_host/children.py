"""The host's children: which has exited or been stopped, whose it was, and what it has left behind.

Looks at each before it is reaped, and hands its end to the room that it belongs to: a helper,
PostgreSQL, a spare, a worker, or a stray that nobody knew. Imported by the composition root alone.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from bgworker._host import workers
from bgworker._host.helper_process import HelperProcess
from bgworker._host.stopped import StoppedChildren
from bgworker._host.strays import Strays
from bgworker._process import injection, reap

if TYPE_CHECKING:
    from bgworker._host.host import Host


class Children:
    """Everybody whose exit the kernel tells the host.

    Args:
        host: Whose children they are.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.strays = Strays()
        self.stopped = StoppedChildren(host.log)
        self._may_have_more_exits = False

    @property
    def has_more_to_do(self) -> bool:
        """Whether exits or strays were left for the next turn."""
        return self._may_have_more_exits or self.strays.is_looking

    def helpers(self) -> list[HelperProcess]:
        """Return every helper there is."""
        host = self._host
        helpers = [host.output.collector, *host.loaders.processes()]
        if host.database is not None:
            helpers.append(host.database.process)
        return helpers

    def reap(self) -> None:
        """Reap those who have exited, as many as one turn has time for."""
        count = 0
        for pid in reap.exited_children():
            count += 1
            self._exited(pid, time.monotonic())
        self._may_have_more_exits = count >= reap.EXITS_PER_TURN
        self._end_strays()

    def _exited(self, pid: int, now: float) -> None:
        host = self._host
        helper = next((h for h in self.helpers() if h.pid == pid), None)
        if helper is not None:
            helper.end_session()
            helper.exited(reap.reap(pid), now)
            return
        if pid in host.reexec.pids:
            host.reexec.rehearsed(pid, reap.reap(pid))
            return
        if host.database is not None and pid == host.database.postgres_pid:
            host.database.postgres_exited(pid, reap.reap(pid))
            return
        if pid in host.births.spares:
            reap.reap(pid)
            host.births.spares.ended(pid, now)
            return
        if pid in host.births.by_pid:
            injection.point("host.exit")
            # What it left in its process group goes with it, while its pid still guards the group's number.
            reap.signal_session(pid)
        status, usage = reap.reap_with_usage(pid)
        if pid not in host.births.by_pid and self.strays.child_ended(pid):
            return
        process = host.births.exited(pid, status)
        if process is not None:
            self.strays.worker_ended(pid)
            process.usage = usage
            workers.exited(host, process, status, now)
        elif host.database is not None:
            # PostgreSQL may end before the database process has named it.
            host.database.postgres_exited(pid, status)

    def _end_strays(self) -> None:
        if not self.strays.is_looking:
            return
        births = self._host.births
        helpers = {helper.pid for helper in self.helpers() if helper.pid is not None}
        for pid in self.strays.look({*births.by_pid, *births.spares.pids(), *helpers, *self._host.reexec.pids}):
            self._host.log("LOG", f"killed process {pid}: it was left behind by a background worker that has ended")

    def look_for_stopped(self, signals: set[int], now: float) -> None:
        """Look at who must not stay stopped, when the kernel has told of a child or somebody's time is over."""
        due = self.stopped.next_deadline()
        if signal.SIGCHLD not in signals and (due is None or now < due):
            return
        host = self._host
        children = [("collector process", host.output.collector.pid)]
        if host.database is not None:
            children += [("database process", host.database.process.pid), ("PostgreSQL", host.database.postgres_pid)]
        self.stopped.look([(name, pid) for name, pid in children if pid is not None], now)
