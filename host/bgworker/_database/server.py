"""The life of the embedded PostgreSQL: made, started, adopted, lost, started again, stopped.

PostgreSQL is the host's child, not ours (``_process.birth``), so that it survives this
process; its exit is told to us by the host. What this process starts for itself, initdb, is
an ordinary child. Nothing here connects to the server: the watch does.

    IDLE ──start──> INITIALISING (initdb) ──> BORN (clone, not yet executed) ──> RUNNING
      ^                  │                      │                                  │
      └──── backoff ─────┴──────────────────────┴──── exit of the server ──────────┘
    IDLE ──> OCCUPIED (another server in the directory) ──its exit──> IDLE
"""

from __future__ import annotations

import enum
import json
import os
import signal
import time
from typing import Final, Protocol

from bgworker._database import cluster, logfile
from bgworker._database.backoff import Backoff
from bgworker._database.enter import Entry, enter
from bgworker._database.initdb import Initdb
from bgworker._database.lockfile import LOCK_FILE, SOCKET_LOCK_FILE, EmptyLocks, LockFile, is_server_of, parent_of, read_lock_file
from bgworker._database.phases import Phase
from bgworker._database.places import SOCKET_NAME, open_directory, remove_socket_directory
from bgworker._database.plan import EmbeddedSettings, Plan, prepare
from bgworker._database.waits import READ, Timer, Waits
from bgworker._process.birth import clone_parent
from bgworker.errors import HostError

#: How long a server of a dead host may take to end before it is called an obstacle.
LEFT_OVER_GRACE: Final = 5.0
#: A server that was up for so long is restarted as if it had never failed.
_STABLE_AFTER: Final = 5.0
_STOP_SIGNALS: Final = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class State(enum.Enum):
    """Where the server is in its life."""

    #: No process; perhaps a timer for the next try.
    IDLE = enum.auto()
    #: initdb runs.
    INITIALISING = enum.auto()
    #: Cloned; not known yet to have become PostgreSQL.
    BORN = enum.auto()
    #: PostgreSQL runs, ready or not.
    RUNNING = enum.auto()
    #: Another server runs in the data directory.
    OCCUPIED = enum.auto()
    #: Stopped for good.
    STOPPED = enum.auto()


class ServerOwner(Protocol):
    """Who drives the server and hears of it."""

    def server_process(self, pid: int | None) -> None:
        """The host's child that is PostgreSQL, or none."""

    def server_running(self, socket_directory: str) -> None:
        """It has been started or adopted: it answers as soon as it has recovered."""

    def server_down(self, phase: Phase, detail: str) -> None:
        """It does not run; the detail says why and what happens next."""

    def server_stopped(self) -> None:
        """A requested stop is done."""

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Write a line to the host's log."""


class EmbeddedServer:
    """One data directory's server, kept running until it is stopped."""

    def __init__(self, waits: Waits, owner: ServerOwner, settings: EmbeddedSettings) -> None:
        self._waits = waits
        self._owner = owner
        self._settings = settings
        self._state = State.IDLE
        self._backoff = Backoff(0.1, 30.0)
        self._timer: Timer | None = None
        self._initdb: Initdb | None = None
        self._pid: int | None = None
        self._socket_directory = ""
        #: Our server has been reaped, and none was started since: what lies in its socket directory is nobody's.
        self._has_exited = False
        #: Names the process for ever, unlike the pid; -1 where the system has no such thing.
        self._pid_fd = -1
        #: Read end of the start-up child's error pipe, and what came out of it.
        self._error_fd = -1
        self._errors = b""
        self._log_fd = -1
        #: Where this start's lines begin in the log.
        self._log_start = 0
        self._ready_at: float | None = None
        self._stop_mode: str | None = None
        self._last_complaint = ""
        self._empty_locks = EmptyLocks()

    # --- starting ---

    def begin(self, pid: int | None) -> None:
        """Start the server, or adopt the one that runs as the host's child."""
        if pid is None:
            self._start()
            return
        try:
            lock = self._lock_file()
            # Until the server has written its file, the place is where every start would put it.
            place = lock.socket_directory if lock and lock.pid == pid else ""
            self._adopt(pid, place or prepare(self._settings, self._note).socket_directory)
        except (OSError, HostError) as error:
            # It runs, and nobody knows where: its exit would still be told, and then all starts over.
            self._pid, self._state = pid, State.RUNNING
            self._owner.server_down(Phase.UNREACHABLE, f"PostgreSQL (PID {pid}) runs, but its socket was not found: {error}")

    def _start(self) -> None:
        self._timer = None
        try:
            plan = prepare(self._settings, self._note)
            self._socket_directory = plan.socket_directory
            if plan.is_new:
                self._initialise(plan)
            else:
                self._launch(plan)
        except HostError as error:
            self._failed(error)
        except (OSError, RuntimeError) as error:  # RuntimeError: a second thread, see birth
            self._failed(HostError(f"could not start the embedded PostgreSQL: {error}"))

    def _initialise(self, plan: Plan) -> None:
        self._state = State.INITIALISING
        self._owner.server_down(Phase.STARTING, "the data directory is being made (initdb)")
        self._initdb = Initdb(self._waits, plan, self._initialised)

    def _initialised(self, plan: Plan, error: HostError | None) -> None:
        self._initdb = None
        if self._stop_mode is not None:
            self._stopped()
        elif error is not None:
            self._failed(error)
        else:
            self._start()  # decided anew, from what is there now

    def _launch(self, plan: Plan) -> None:
        environment = plan.environment()
        directory_fd = open_directory(plan.pg_directory, {plan.identity.uid})
        try:
            if self._is_taken(directory_fd, plan, environment):
                return
            self._clear_empty_locks(directory_fd, plan)
            cluster.write_settings(directory_fd, self._settings.max_connections, plan.identity)
        finally:
            os.close(directory_fd)
        self._open_log()
        entry = Entry(
            plan.binaries.program("postgres"),
            cluster.server_arguments(plan.pg_directory, plan.socket_directory),
            environment,
            plan.identity,
            plan.ways(plan.pg_directory),
            output_fd=self._log_fd,
            # Its immediate shutdown: nothing to save, since everything committed is in the log.
            death_signal=signal.SIGQUIT,
            parent=os.getppid(),
        )
        self._has_exited = False
        self._errors = b""
        self._error_fd, error_fd = os.pipe()
        try:
            pid = clone_parent()
            if pid == 0:
                enter(entry, error_fd)
        except BaseException:
            self._close_error_pipe()
            raise
        finally:
            os.close(error_fd)
        self._state = State.BORN
        self._watch_process(pid)
        self._owner.server_down(Phase.STARTING, "PostgreSQL is starting")
        self._waits.watch(self._error_fd, READ, self._executed)

    def _is_taken(self, directory_fd: int, plan: Plan, environment: dict[str, str]) -> bool:
        """Look for a server that runs in the directory already; adopt it or wait for its end."""
        lock = read_lock_file(directory_fd)
        if lock is None:
            return False
        match is_server_of(lock.pid, directory_fd):
            case True if parent_of(lock.pid) == os.getppid():
                # Born by a predecessor of ours that died before it could tell the host.
                self._adopt(lock.pid, lock.socket_directory or plan.socket_directory)
                return True
            case True:
                self._wait_for_other(lock.pid)
                return True
            case False:
                # Stale, and the pid may be somebody else's by now. PostgreSQL skips its test of that for one pid, the
                # "grandparent" of pg_ctl; its other test, whether processes of the old server still use its shared
                # memory, stays - which is why the file must not be removed.
                environment["PG_GRANDPARENT_PID"] = str(lock.pid)
        return False

    def _clear_empty_locks(self, directory_fd: int, plan: Plan) -> None:
        socket_fd = open_directory(plan.socket_directory, {plan.identity.uid})
        try:
            for name in self._empty_locks.clear([(directory_fd, LOCK_FILE), (socket_fd, SOCKET_LOCK_FILE)]):
                self._owner.log(
                    "LOG", f'removed empty lock file "{name}"', "PostgreSQL was killed before it could write its PID there."
                )
        finally:
            os.close(socket_fd)

    def _open_log(self) -> None:
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd = -1
        self._log_fd = logfile.open_log(self._settings.data_directory)
        self._log_start = logfile.position(self._log_fd)

    def _watch_process(self, pid: int) -> None:
        self._pid = pid
        try:
            self._pid_fd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._pid_fd = -1
        self._owner.server_process(pid)

    def _executed(self, _events: int) -> None:
        """The error pipe has spoken, or was closed by the exec (or by a death before it)."""
        if data := os.read(self._error_fd, 65_536):
            self._errors += data
            return
        self._close_error_pipe()
        if self._errors:
            return  # the child is about to exit, and its exit brings this error up
        self._run()

    def _adopt(self, pid: int, socket_directory: str) -> None:
        self._open_log()
        self._errors = b""
        self._socket_directory = socket_directory
        self._watch_process(pid)
        self._owner.log("LOG", f"adopted the running embedded PostgreSQL (PID {pid})")
        self._run()

    def _run(self) -> None:
        self._state = State.RUNNING
        if self._stop_mode is not None:
            self._signal(_STOP_SIGNALS[self._stop_mode])
        else:
            self._owner.server_running(self._socket_directory)

    def _lock_file(self) -> LockFile | None:
        path = os.path.join(os.path.realpath(self._settings.data_directory), cluster.DIRECTORY_NAME)
        directory_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return read_lock_file(directory_fd)
        finally:
            os.close(directory_fd)

    def is_open(self) -> bool:
        """Whether it is worth while to connect: during a long recovery each attempt would be a FATAL line in the server's log."""
        try:
            lock = self._lock_file()
        except (OSError, HostError):
            return True  # the connection will tell
        return lock is not None and lock.pid == self._pid and lock.is_open

    def ready(self) -> None:
        """The watch has found the server read-write."""
        if self._ready_at is None:
            self._ready_at = time.monotonic()
            self._last_complaint = ""
            self._owner.log("LOG", f"embedded PostgreSQL (PID {self._pid}) is ready to accept connections")

    # --- another server ---

    def _wait_for_other(self, pid: int) -> None:
        """Wait for the end of a server that somebody else runs here: PostgreSQL's host has died, or an administrator works."""
        self._state = State.OCCUPIED
        try:
            other_fd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._failed(self._occupied(pid))  # try again later
            return
        try:
            # One that was stopped when its host died still has that host's SIGQUIT before it.
            signal.pidfd_send_signal(other_fd, signal.SIGCONT)
        except OSError:
            pass  # it has just ended, or is another user's

        def ended(_events: int) -> None:
            self._waits.forget(other_fd)
            os.close(other_fd)
            if self._state is State.OCCUPIED:
                self._cancel_timer()
                self._start()

        self._waits.watch(other_fd, READ, ended)
        self._timer = self._waits.call_after(LEFT_OVER_GRACE, lambda: self._complain(self._occupied(pid)))
        self._owner.server_down(Phase.STARTING, f"waiting for the end of PostgreSQL (PID {pid}), which an earlier host left behind")

    def _occupied(self, pid: int) -> HostError:
        return HostError(
            f"another PostgreSQL server (PID {pid}) runs in the data directory",
            "It was not started by this host. The embedded server starts as soon as that one has ended.",
            f"Stop it, for example with: kill -INT {pid}",
        )

    # --- failing ---

    def child_exited(self, pid: int, status: int) -> None:
        """The host has reaped one of its children."""
        if pid != self._pid:
            return
        if self._error_fd >= 0:
            # Its exit has overtaken its complaint. The child is dead, so the pipe ends.
            while data := os.read(self._error_fd, 65_536):
                self._errors += data
        self._close_error_pipe()
        if self._pid_fd >= 0:
            os.close(self._pid_fd)
            self._pid_fd = -1
        self._pid = None
        self._has_exited = True
        self._owner.server_process(None)
        if self._stop_mode is not None:
            self._stopped()
            return
        if self._ready_at is not None and time.monotonic() - self._ready_at > _STABLE_AFTER:
            self._backoff.reset()
        self._ready_at = None
        self._failed(self._start_error() or HostError(describe_exit(pid, status), self._last_words()))

    def _start_error(self) -> HostError | None:
        return HostError(*json.loads(self._errors)) if self._errors else None

    def _last_words(self) -> str:
        words = logfile.last_words(self._log_fd, self._log_start) if self._log_fd >= 0 else ""
        return f"{words}." if words else ""

    def _failed(self, error: HostError) -> None:
        """Say what is wrong, and try again after a while, whatever it is: what is missing may be installed meanwhile."""
        self._state = State.IDLE
        delay = self._backoff.next()
        self._complain(error, f"; next try in {delay:.1f} s (try {self._backoff.failures + 1})")
        self._timer = self._waits.call_after(delay, self._start)

    def _complain(self, error: HostError, then: str = "") -> None:
        self._owner.server_down(Phase.UNREACHABLE, as_detail(error) + then)
        if error.message_primary != self._last_complaint:
            self._last_complaint = error.message_primary
            self._owner.log("ERROR", error.message_primary, error.message_detail, error.message_hint)

    def _note(self, message: str, detail: str) -> None:
        self._owner.log("LOG", message, detail)

    # --- stopping ---

    def stop(self, mode: str) -> None:
        """Shut the server down ("fast" or "immediate") and start it no more; a second, harder call overrides the first."""
        self._stop_mode = mode
        self._cancel_timer()
        match self._state:
            case State.INITIALISING:
                assert self._initdb is not None
                self._initdb.kill()
            case State.BORN:
                pass  # it may not have its signal handlers yet: told as soon as it is executed, see _run()
            case State.RUNNING:
                self._signal(_STOP_SIGNALS[mode])
            case State.IDLE | State.OCCUPIED | State.STOPPED:
                self._stopped()

    def _signal(self, signum: int) -> None:
        assert self._pid is not None
        try:
            if self._pid_fd >= 0:
                signal.pidfd_send_signal(self._pid_fd, signum)
            else:
                os.kill(self._pid, signum)
        except ProcessLookupError:
            pass  # it has exited: the host is about to tell

    def _stopped(self) -> None:
        is_ours = self._has_exited and self._state is not State.OCCUPIED
        self._state = State.STOPPED
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd = -1
        if self._socket_directory:
            # A server that was killed has left its socket; one that somebody else runs here still has it.
            remove_socket_directory(self._socket_directory, leftovers=(SOCKET_NAME, SOCKET_LOCK_FILE) if is_ours else ())
        self._owner.server_stopped()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_error_pipe(self) -> None:
        if self._error_fd >= 0:
            self._waits.forget(self._error_fd)
            os.close(self._error_fd)
            self._error_fd = -1


def describe_exit(pid: int, status: int) -> str:
    """Return how the server ended, in the words used for every child."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"embedded PostgreSQL (PID {pid}) exited with exit code {code}"
    return f"embedded PostgreSQL (PID {pid}) was terminated by signal {-code}: {signal.strsignal(-code) or 'not known'}"


def as_detail(error: HostError) -> str:
    """Return an error as the one sentence that a phase's detail has room for."""
    parts = [error.message_primary, error.message_detail, f"hint: {error.message_hint}" if error.message_hint else ""]
    return "; ".join(part.strip().rstrip(".") for part in parts if part.strip())
