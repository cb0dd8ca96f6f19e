"""The host's view of the database: the database process kept running, and what it last said.

The host itself never talks to a database. PostgreSQL, when embedded, is the host's own
child: it survives a restart of the database process and cannot survive the host.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from bgworker._config.model import DatabaseSettings
from bgworker._control.protocol import Message
from bgworker._core.codec import expect
from bgworker._core.states import Phase
from bgworker._host.helper_process import HelperProcess
from bgworker._host.loaders import describe_status
from bgworker._host.openings import Openings
from bgworker._loop import Loop
from bgworker._process import reap

#: How long PostgreSQL gets for each kind of shutdown, in seconds. Fast: it writes a checkpoint, which takes as long as
#: the disk does; pg_ctl waits as long (its -t). Immediate: its own limit until it kills its children (SIGKILL_CHILDREN_AFTER_SECS).
_STOP_TIMEOUTS: Final = {"fast": 60.0, "immediate": 5.0}
#: How long it is asked to end at once (SIGQUIT) before it is killed: that limit of its own twice over, in seconds.
_QUIT_TIMEOUT: Final = 10.0
_PHASES: Final = {
    "starting": Phase.STARTING,
    "unreachable": Phase.STARTING,
    "consistent": Phase.CONSISTENT,
    "recovery_finished": Phase.RECOVERY_FINISHED,
}
#: What is written as it is. ``phase`` follows from its name; the openings are asked again.
_CARRIED: Final = (
    "_phase_name", "detail", "_url", "_conninfo", "_direct_conninfo", "_is_pooled", "postgres_pid", "_channels",
)  # fmt: skip


class DatabaseWatch:
    """Runs the database process and keeps its last words.

    Args:
        loop: The host's loop.
        settings: The [database] table.
        data_directory: Of the host; an embedded PostgreSQL lives in its ``pg``.
        max_connections: What an embedded PostgreSQL must be able to take.
        fds: Lifeline and lock.
        on_change: Called when the phase or its detail has changed.
        on_notify: Called with notifications, gaps, and databases in which nothing is heard.
        log: Writes a log line.
    """

    def __init__(
        self,
        loop: Loop,
        settings: DatabaseSettings,
        data_directory: str,
        max_connections: int,
        fds: tuple[int, int],
        on_change: Callable[[], None],
        on_notify: Callable[[Message], None],
        log: Callable[..., None],
    ) -> None:
        self._settings = settings
        self._data_directory = data_directory
        self._max_connections = max_connections
        self._on_change = on_change
        self._on_notify = on_notify
        self._log = log
        self.kind = "embedded" if settings.url == "embedded" else "external"
        self.phase = Phase.STARTING
        self._phase_name = "starting"
        self.detail = "it has not been asked yet"
        self._url = ""
        self._conninfo = ""
        self._direct_conninfo = ""
        self._is_pooled = False
        self.postgres_pid: int | None = None
        #: Channels by database, as they were wanted last; the empty name is the database that the URL itself names.
        self._channels: dict[str, list[str]] = {}
        #: Why nothing is heard, by database, in words.
        self._deaf: dict[str, str] = {}
        self._is_stopping = False
        self._is_immediate = False
        #: Monotonic time at which PostgreSQL's shutdown is cut short.
        self.stop_by = 0.0
        #: What the log has been told of the shutdown.
        self._last_said = ""
        self._is_postgres_told = False
        self.process = HelperProcess(
            loop,
            "database process",
            "bgworker._database",
            fds,
            self._configure,
            self._says,
            self._exited,
            on_nonsense=lambda problem: log("WARNING", "the database process sent nonsense and is replaced", f"It sent {problem}."),
        )

        self.openings = Openings(self.process.send)

    def carry(self) -> dict[str, Any]:
        """Return what the database process has said, which stays true until the next one says otherwise."""
        return {name: getattr(self, name) for name in _CARRIED}

    def resume(self, carried: Mapping[str, Any]) -> None:
        """Take back what ``carry`` has told of."""
        expect(carried, _CARRIED, "what is known of the database")
        for name in _CARRIED:
            setattr(self, name, carried[name])
        self.phase = _PHASES[self._phase_name]

    def ensure(self, now: float) -> None:
        """Start the database process if it should run and does not."""
        self.process.ensure(now)

    def next_deadline(self) -> float | None:
        """Return when ``ensure`` has something to do."""
        return self.process.next_deadline()

    def view(self) -> dict[str, Any]:
        """Return what status shows; there is no password in it."""
        detail = "; ".join([*([self.detail] if self.detail else []), *self._deaf.values()])
        return {"kind": self.kind, "phase": self._phase_name, "detail": detail, "url": self._url}

    def for_worker(self) -> dict[str, Any]:
        """Return what a database worker needs in order to connect."""
        return {
            "kind": self.kind,
            "conninfo": self._conninfo,
            "role": None,
            "direct_conninfo": self._direct_conninfo,
            "is_pooled": self._is_pooled,
        }

    def listen(self, channels: dict[str, list[str]]) -> None:
        """Say on which channels of which databases notifications are wanted; replaces what was wanted before."""
        if channels != self._channels:
            self._channels = channels
            self._deaf = {database: reason for database, reason in self._deaf.items() if database in channels}
            self._send_channels()

    def stop(self, mode: str, now: float) -> None:
        """Shut an embedded PostgreSQL down ("fast" or "immediate"), and the database process after it."""
        if self._is_stopping and (mode == "fast" or self._is_immediate):
            return
        self._is_stopping = True
        self._is_immediate = mode == "immediate"
        self.openings.refuse_all("the host is shutting down")
        self._is_postgres_told = False
        self.stop_by = now + _STOP_TIMEOUTS[mode]
        if self.postgres_pid is not None:
            self._phase_name = "unreachable"
            self.detail = f"PostgreSQL (PID {self.postgres_pid}) is shutting down"
        self.process.is_wanted = False
        self.process.send({"type": "stop", "mode": mode})

    def is_given_time(self, now: float) -> bool:
        """Whether a PostgreSQL that still runs, longer than the other helpers may, is waited for; says so in the log."""
        if now < self.stop_by:
            self._say(
                "LOG",
                f"waiting for PostgreSQL (PID {self.postgres_pid}) to shut down",
                f"It writes what it has in memory to disk, and gets {self.stop_by - now:.0f} s more.",
                "A second SIGTERM ends it at once; the next start then begins with a recovery.",
            )
            return True
        self._say(
            "WARNING",
            f"PostgreSQL (PID {self.postgres_pid}) has not shut down in time; ending it at once",
            "The next start begins with a recovery, which brings back everything that was committed.",
        )
        return False

    def end_postgres(self, now: float) -> None:
        """End a PostgreSQL whose time is over: SIGQUIT each time this is called, and SIGKILL when that has had no effect.

        SIGQUIT is the postmaster's own way to end its sessions. After SIGKILL these find it dead by themselves.
        """
        assert self.postgres_pid is not None
        if now < self.stop_by + _QUIT_TIMEOUT:
            reap.signal_child(self.postgres_pid, signal.SIGQUIT)
            return
        self._say(
            "WARNING",
            f"PostgreSQL (PID {self.postgres_pid}) does not answer to SIGQUIT either; killing it",
            "The next start begins with a recovery, which brings back everything that was committed.",
        )
        reap.signal_child(self.postgres_pid, signal.SIGKILL)

    def _say(self, level: str, message: str, detail: str, hint: str = "") -> None:
        if message != self._last_said:
            self._last_said = message
            self._log(level, message, detail, hint)

    def ensure_stop(self) -> None:
        """Shut PostgreSQL down by signal when the database process, whose work that is, is not there to do it."""
        if self._is_stopping and self.process.pid is None and self.postgres_pid is not None and not self._is_postgres_told:
            self._is_postgres_told = True
            # The postmaster's own fast shutdown: a crash would cost the next start a recovery.
            reap.signal_child(self.postgres_pid, signal.SIGQUIT if self._is_immediate else signal.SIGINT)

    def postgres_exited(self, pid: int, status: int) -> None:
        """Pass the exit of a child on; the database process knows which one it was."""
        if pid == self.postgres_pid:
            self.postgres_pid = None
        self.process.send({"type": "child_exited", "pid": pid, "status": status})

    def _configure(self) -> None:
        self.process.send(
            {
                "type": "configure",
                "kind": self.kind,
                **msgspec.to_builtins(self._settings),
                "data_directory": self._data_directory,
                "max_connections": self._max_connections,
                "postgres_pid": self.postgres_pid,
                # What a predecessor of this process has found out; it stays true until there is news.
                "phase": self._phase_name,
            }
        )
        self._send_channels()
        self.openings.ask_again()

    def _send_channels(self) -> None:
        self.process.send({"type": "listen", "channels": self._channels})

    def _says(self, message: Message) -> None:
        match message["type"]:
            case "postgres":
                self.postgres_pid = message["pid"]
            case "phase":
                if message["phase"] not in _PHASES or self._is_stopping:
                    return  # what it was before the stop is no news any more
                self._phase_name = message["phase"]
                self.phase = _PHASES[message["phase"]]
                self.detail = message["detail"]
                self._url = message["url"] or self._url
                self._conninfo = message["conninfo"] or self._conninfo
                self._direct_conninfo = message["direct_conninfo"]
                self._is_pooled = message["is_pooled"]
                self._on_change()
            case "log":
                self._log(message["level"], message["message"], message.get("detail", ""), message.get("hint", ""))
            case "database_opened":
                self.openings.answered(message)
            case "notify":
                self._on_notify(message)
            case "gap":
                self._deaf.pop(message["database"], None)
                self._on_notify(message)
            case "deaf":
                if message["database"] in self._channels:
                    words = f'wake_on is not heard in database "{message["name"]}": {message["reason"]}'
                    self._deaf[message["database"]] = words
                self._on_notify(message)

    def _exited(self, status: int | None) -> None:
        # PostgreSQL goes on; so do the workers. The phase stays what it was last known to be.
        self._deaf.clear()
        self._on_notify({"type": "deaf", "database": None})
        if self.process.is_wanted and not self.process.is_parting and status is not None:
            self._log(
                "WARNING",
                f"database process ended ({describe_status(status)}); starting another",
                "PostgreSQL and the workers are not touched.",
            )
