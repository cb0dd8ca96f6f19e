"""The database process put together: the host's messages in, server, watch, listeners and openings driven, messages out.

A database problem is
never an exception here: it is a phase with a detail. What is an exception is a mistake of
ours; it ends the process, the host starts another, and PostgreSQL does not notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from bgworker._control.protocol import Message
from bgworker._database.cluster import SUPERUSER
from bgworker._database.conninfo import Parameters, keyword_string, parse, public_url, with_defaults
from bgworker._database.phases import Phase
from bgworker._database.plan import EmbeddedSettings
from bgworker._database.server import EmbeddedServer, as_detail
from bgworker._database.waits import READ, Waits
from bgworker._process.helper import HelperChannel
from bgworker.errors import ConfigurationError

if TYPE_CHECKING:
    from bgworker._database.external import ExternalServer
    from bgworker._database.listen import Listeners
    from bgworker._database.openings import Answer, Openings
    from bgworker._database.watch import Watch

#: The embedded server's database that is always there; the watch stays in it, so that any other can be dropped.
_MAINTENANCE_DATABASE: Final = "postgres"
#: A server that answers within this time is never reported as starting.
_QUIET_START: Final = 0.5


class DatabaseProcess:
    """The one object of the program."""

    def __init__(self, channel: HelperChannel) -> None:
        self._channel = channel
        self._waits = Waits()
        self._server: EmbeddedServer | None = None
        self._external: ExternalServer | None = None
        self._watch: Watch | None = None
        self._listeners: Listeners | None = None
        self._openings: Openings | None = None
        #: For the workers, and for our own connections; the same without a ``direct_url``.
        self._parameters: Parameters = {}
        self._direct: Parameters = {}
        self._url = ""
        self._name = ""
        self._phase = Phase.STARTING
        self._wanted: dict[str, list[str]] = {}
        self._last_phase_message: Message = {}
        self._last_failures: dict[str, str] = {}
        self._is_configured = False
        self._data_directory = ""

    def run(self) -> None:
        """Serve the host until it says stop, closes the channel or dies."""
        self._waits.watch(self._channel.fileno(), READ, self._receive)
        # No data ever comes out of the lifeline: it is ready when the host is dead.
        self._waits.watch(self._channel.lifeline_fd, READ, lambda _events: self._waits.end())
        self._waits.run()

    # --- messages in ---

    def _receive(self, _events: int) -> None:
        try:
            messages = self._channel.receive()
        except EOFError:
            self._waits.end()
            return
        for message, _fds in messages:
            self._handle(message)

    def _handle(self, message: Message) -> None:
        match message.get("type"):
            case "configure" if not self._is_configured:
                self._is_configured = True
                self._configure(message)
            case "child_exited":
                if self._server is not None:
                    self._server.child_exited(int(message["pid"]), int(message["status"]))
            case "listen":
                self._listen(message["channels"])
            case "open_database":
                self._open_database(message)
            case "close_database":
                if self._openings is not None:
                    self._openings.close(int(message["id"]))
            case "stop":
                self._stop(str(message.get("mode", "fast")))
            case other:
                self.log("WARNING", f'database process ignored a message of type "{other}"')

    def _configure(self, message: Message) -> None:
        self._data_directory = str(message["data_directory"])
        if message["kind"] == "embedded":
            user = message.get("user")
            self._name = str(message.get("name") or _MAINTENANCE_DATABASE)
            settings = EmbeddedSettings(str(message["data_directory"]), self._name, user, int(message["max_connections"]))
            self._server = EmbeddedServer(self._waits, self, settings)
            self._server.begin(message.get("postgres_pid"))
            # psycopg takes longer to import than PostgreSQL to start; both happen at once this way.
            self._waits.call_after(0.0, self._import_psycopg)
            return
        try:
            given = parse(message["url"])
            direct = parse(message["direct_url"], "database direct_url") if message.get("direct_url") else None
            # parse() needs psycopg, too, and says so where it is missing.
            from bgworker._database.external import ExternalServer
        except ConfigurationError as error:
            self.report(Phase.UNREACHABLE, f"{as_detail(error)}; mend it and start the host again")
            self.log("ERROR", error.message_primary, error.message_detail, error.message_hint)
            return
        self._url = public_url(given)
        self._parameters = with_defaults(given)
        self._direct = self._parameters if direct is None else with_defaults(direct)
        self._external = ExternalServer(self._waits, self, self._parameters, None if direct is None else self._direct)
        self._begin_watch(self._direct)
        # Not after a restart of this process: the host still knows the phase, and connecting anew is no loss of it. The
        # server itself is asked, and what it says, or does not say within connect_timeout, is the next report.
        if message.get("phase", Phase.STARTING.value) == Phase.STARTING.value:
            self._waits.call_after(_QUIET_START, self._say_connecting)

    def _say_connecting(self) -> None:
        if not self._last_phase_message:
            self.report(Phase.STARTING, "connecting to the server")

    def _listen(self, channels: Mapping[str, Any]) -> None:
        self._wanted = {str(database): [str(name) for name in names] for database, names in channels.items()}
        if self._listeners is not None:
            self._listeners.want(self._wanted)

    def _open_database(self, message: Message) -> None:
        # Without psycopg no worker can connect, so none of them asks; one that was told before we knew is refused here.
        if not self._import_psycopg() or self._openings is None:
            error = "database cannot be reached: package psycopg is not installed"
            answer = {"error": error, "sqlstate": "", "detail": "", "hint": 'pip install "bgworker[postgres]"'}
            self._channel.send({"type": "database_opened", "id": message["id"], **answer})
            return
        self._openings.open(int(message["id"]), str(message["database"]), str(message["worker"]))

    def _stop(self, mode: str) -> None:
        # Our own connections go first: a fast shutdown has nobody to wait for then.
        if self._watch is not None:
            self._watch.end()
        if self._external is not None:
            self._external.end()
        if self._listeners is not None:
            self._listeners.end()
        if self._openings is None:
            self._stop_server(mode)
        elif mode == "immediate":
            self._openings.end()
            self._stop_server(mode)
        else:
            # Nobody may come by again to close what is open.
            self._openings.finish(lambda: self._stop_server(mode))

    def _stop_server(self, mode: str) -> None:
        if self._server is not None:
            self._server.stop(mode if mode == "immediate" else "fast")
        else:
            self.server_stopped()

    # --- connections ---

    def _import_psycopg(self) -> bool:
        """Make the parts that connect; False, with the phase saying so, if psycopg is not installed."""
        if self._watch is not None:
            return True
        try:
            from bgworker._database.journal import Journal
            from bgworker._database.listen import Listeners
            from bgworker._database.openings import Openings
            from bgworker._database.watch import Watch, embedded_pace, external_pace
        except ImportError as error:
            missing = ConfigurationError(
                "database cannot be reached: package psycopg is not installed", f"{error}.", 'pip install "bgworker[postgres]"'
            )
            self.report(Phase.UNREACHABLE, as_detail(missing))
            self.log("ERROR", missing.message_primary, missing.message_detail, missing.message_hint)
            return False
        if self._server is not None:
            self._watch = Watch(self._waits, self.report, embedded_pace(self._server.is_open), database=self._name)
        else:
            assert self._external is not None
            external = self._external
            self._watch = Watch(self._waits, external.watch_says, external_pace(), connected=external.watch_connected)
        self._listeners = Listeners(self._waits, self, self._parameters_for)
        self._listeners.want(self._wanted)
        self._openings = Openings(self._waits, self, Journal(self._data_directory))
        return True

    def _begin_watch(self, parameters: Parameters) -> None:
        if self._import_psycopg():
            assert self._watch is not None
            self._watch.begin(parameters)

    def _parameters_for(self, database: str) -> Parameters:
        """Return where to LISTEN for a database; an empty name is the url's own."""
        return {**self._direct, "dbname": database} if database else self._direct

    def ask_again_every(self, interval: float | None) -> None:
        """Pass it to the watch (ExternalOwner)."""
        if self._watch is not None:
            self._watch.ask_again_every(interval)

    # --- the embedded server's news (ServerOwner) ---

    def server_process(self, pid: int | None) -> None:
        """Tell the host which child of its is PostgreSQL."""
        self._channel.send({"type": "postgres", "pid": pid})

    def server_running(self, socket_directory: str) -> None:
        """Connect as soon as it answers."""
        where = {"host": socket_directory, "port": "5432", "user": SUPERUSER}
        self._url = public_url({"user": SUPERUSER, "dbname": self._name, "host": socket_directory})
        self._parameters = self._direct = {**where, "dbname": self._name, "connect_timeout": "10"}
        self._begin_watch({**self._direct, "dbname": _MAINTENANCE_DATABASE})

    def server_down(self, phase: Phase, detail: str) -> None:
        """Give up the connections and say why."""
        if self._watch is not None:
            self._watch.end()
        self.report(phase, detail)

    def server_stopped(self) -> None:
        """Answer the host's stop; nothing is left to do."""
        self._channel.send({"type": "stopped"})
        self._waits.end()

    # --- the listeners' news (ListenOwner) ---

    def notified(self, database: str, channel: str, payload: str) -> None:
        """Pass a notification to the host."""
        self._channel.send({"type": "notify", "database": database, "channel": channel, "payload": payload})

    def gap(self, database: str, channels: list[str]) -> None:
        """Tell the host that notifications may have been missed."""
        self._last_failures.pop(database, None)
        self._channel.send({"type": "gap", "database": database, "channels": channels})

    def listener_failed(self, database: str, reason: str, delay: float) -> None:
        """Tell the host, and log it, once for each reason."""
        name = database or self._direct.get("dbname", "")
        self._channel.send({"type": "deaf", "database": database, "name": name, "reason": reason})
        if self._last_failures.get(database) != reason:
            self._last_failures[database] = reason
            self.log(
                "WARNING",
                f'could not listen for notifications in database "{name}": {reason}',
                f"It is tried again in {delay:.1f} s, and then less and less often.",
            )

    # --- the openings' news (OpeningsOwner) ---

    def opening_answered(self, request: int, answer: Answer) -> None:
        """Tell the host, and through it the worker, whether the database lets it in now."""
        said = {"error": answer.error, "sqlstate": answer.sqlstate, "detail": answer.detail, "hint": answer.hint}
        self._channel.send({"type": "database_opened", "id": request, **said})

    # --- messages out ---

    def report(self, phase: Phase, detail: str) -> None:
        """Tell the host the phase, if it is news, and act on it."""
        self._phase = phase
        route = self._external.route if self._external is not None else None
        has_sessions = route is None or route.has_sessions
        if self._listeners is not None:
            self._listeners.set_possible(phase is Phase.RECOVERY_FINISHED and has_sessions)
            if phase is Phase.CONSISTENT and self._listeners.is_wanted:
                detail += "; wake_on cannot work here, LISTEN needs a primary"
        if self._openings is not None:
            if phase in (Phase.CONSISTENT, Phase.RECOVERY_FINISHED):
                elsewhere = {"dbname": _MAINTENANCE_DATABASE} if self._server is not None else {}
                self._openings.begin({**self._direct, **elsewhere})
            else:
                self._openings.pause()
        if phase is Phase.RECOVERY_FINISHED and self._server is not None:
            self._server.ready()
        conninfo = keyword_string(self._parameters)
        message: Message = {
            "type": "phase",
            "phase": phase.value,
            "detail": detail,
            "url": self._url,
            "conninfo": conninfo,
            # For what needs a session of its own; empty where nothing leads to one.
            "direct_conninfo": keyword_string(self._direct) if has_sessions else "",
            "is_pooled": route is not None and route.is_pooled,
        }
        if message != self._last_phase_message:
            self._last_phase_message = message
            self._channel.send(message)

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Write a line to the host's log."""
        self._channel.send({"type": "log", "level": level, "message": message, "detail": detail, "hint": hint})
