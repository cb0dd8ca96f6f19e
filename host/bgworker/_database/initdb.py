"""initdb: makes the data directory under a passing name, as a child of this process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Final

from bgworker._database import cluster
from bgworker._database.conninfo import one_line
from bgworker._database.enter import Entry, enter
from bgworker._database.plan import Plan
from bgworker._database.waits import READ, Waits
from bgworker.errors import HostError

_MAX_OUTPUT: Final = 65_536


class Initdb:
    """One run of initdb.

    Args:
        waits: The process's selector.
        plan: As whom and where.
        done: Called once, with the error if it failed.

    Raises:
        HostError: It cannot be started as things are.
        OSError: The kernel refused.
    """

    def __init__(self, waits: Waits, plan: Plan, done: Callable[[Plan, HostError | None], None]) -> None:
        self._waits = waits
        self._plan = plan
        self._done = done
        self._path = cluster.new_directory(os.path.dirname(plan.pg_directory), plan.identity)
        self._output = b""
        # One pipe for its output, whose end is the end of initdb and of what it has started; one for an exec that fails.
        self._output_fd, output_fd = os.pipe()
        self._error_fd, error_fd = os.pipe()
        try:
            self._pid = self._fork(output_fd, error_fd)
        except BaseException:
            os.close(self._output_fd)
            os.close(self._error_fd)
            cluster.discard(self._path)
            raise
        finally:
            os.close(output_fd)
            os.close(error_fd)
        waits.watch(self._output_fd, READ, self._read)

    def _fork(self, output_fd: int, error_fd: int) -> int:
        entry = Entry(
            self._plan.binaries.program("initdb"),
            cluster.initdb_arguments(self._path),
            self._plan.environment(),
            self._plan.identity,
            self._plan.ways(self._path),
            output_fd=output_fd,
            death_signal=signal.SIGKILL,
            parent=os.getpid(),
        )
        pid = os.fork()
        if pid == 0:
            enter(entry, error_fd)
        return pid

    def kill(self) -> None:
        """End it and whatever it has started; ``done`` is called as at any end."""
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(self._pid, signal.SIGKILL)  # not in a session of its own yet; not reaped, so it is still it

    def _read(self, _events: int) -> None:
        if data := os.read(self._output_fd, _MAX_OUTPUT):
            self._output = (self._output + data)[-_MAX_OUTPUT:]
            return
        self._waits.forget(self._output_fd)
        os.close(self._output_fd)
        with open(self._error_fd, "rb") as pipe:
            errors = pipe.read()
        _pid, status = os.waitpid(self._pid, 0)
        if errors:
            self._failed(HostError(*json.loads(errors)))
        elif status != 0:
            self._failed(HostError("could not make the data directory: initdb failed", f"{self._why(status)}."))
        else:
            self._complete()

    def _complete(self) -> None:
        try:
            cluster.complete(self._path, self._plan.pg_directory, self._plan.identity)
        except OSError as error:
            self._failed(HostError(f"could not make the data directory: {error}"))
        except HostError as error:
            self._failed(error)
        else:
            self._done(self._plan, None)

    def _failed(self, error: HostError) -> None:
        cluster.discard(self._path)
        self._done(self._plan, error)

    def _why(self, status: int) -> str:
        lines = self._output.decode("utf-8", "replace").splitlines()
        telling = [line for line in lines if any(word in line for word in ("error:", "FATAL:", "PANIC:", "ERROR:"))]
        code = os.waitstatus_to_exitcode(status)
        return one_line("\n".join(telling[:3] or lines[-3:])) or (
            f"it ended with signal {-code}" if code < 0 else f"its exit code was {code}"
        )
