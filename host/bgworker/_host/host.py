"""The host: the only composition root. Puts the rooms together and turns the loop.

One thread, trusted code only. Each turn waits until something happens or is due, then
handles shutdown, reload, exits, and whatever the sockets brought; then compares what should
run with what runs and starts the difference. Nothing here blocks, reads what others can
write, opens a file after start-up, or raises out of a turn because of a peer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bgworker._baggage import Baggage
from bgworker._config.model import Configuration
from bgworker._control.protocol import Message
from bgworker._control.server import ControlServer
from bgworker._control.socket_name import SocketName
from bgworker._core import effects as fx
from bgworker._core.codec import read
from bgworker._core.scope import CrashScope
from bgworker._core.slots import Slot, SlotMachine
from bgworker._core.states import Origin, Phase, ShutdownMode
from bgworker._host import clients, configuring, rights, signals, workers
from bgworker._host import effects as effects_of_machine
from bgworker._host import reload as reloading
from bgworker._host import scale as scaling
from bgworker._host.births import Births
from bgworker._host.callers import Caller, Callers, signal_worker
from bgworker._host.children import Children
from bgworker._host.data_directory import HostLocks, make_run_directory
from bgworker._host.database import DatabaseWatch
from bgworker._host.loaders import Loaders
from bgworker._host.memory import MemoryWatch
from bgworker._host.news import News
from bgworker._host.notify_events import NotifyEvents
from bgworker._host.output import Output
from bgworker._host.program_notices import ProgramNotices
from bgworker._host.reexec import Reexec
from bgworker._host.schedules import Schedules
from bgworker._host.segments import Segments
from bgworker._host.service import Service
from bgworker._host.shutdown import Shutdown
from bgworker._host.status import Finished, summary
from bgworker._host.status_line import StatusLine
from bgworker._host.waits import Waits
from bgworker._host.wake_on import WakeUps
from bgworker._loop import Loop
from bgworker._process.identity import OwnIdentity
from bgworker._process.lifeline import Lifeline
from bgworker._shm.table import ActivityTable, SlotTable
from bgworker._spec import BackgroundWorker
from bgworker.errors import HostError

#: Connections that PostgreSQL gets beyond one per slot: the database process, psql, a listener, superuser reserve.
_SPARE_CONNECTIONS: Final = 16


class Host:
    """One host life on one data directory.

    Args:
        data_directory: Absolute, prepared and locked.
        config_path: workers.toml, or None.
        config_text: Its text as it was when ``configuration`` was made of it.
        configuration: The checked configuration.
        locks: Held for this host.
        log_to: "files", "stderr" or "both".
        access: Who may connect besides the host's user and root.
        carried: What this very host has left to itself before it executed itself anew; None for one that starts.
        baggage: The descriptors of that.
    """

    def __init__(
        self,
        data_directory: str,
        config_path: str | None,
        config_text: str | None,
        configuration: Configuration,
        locks: HostLocks,
        log_to: str,
        access: rights.Access | None = None,
        carried: Mapping[str, Any] | None = None,
        baggage: Baggage | None = None,
    ) -> None:
        settings, self.configuration = configuration.host, configuration
        self.data_directory, self.config_path, self.log_to = data_directory, config_path, log_to
        self.started_at = time.monotonic()
        self.loop = Loop(signals.HANDLED)
        self.schedules = Schedules(self.loop, lambda: self.apply(self.machine.clock_was_set(time.monotonic())))
        self.machine = SlotMachine(
            settings.max_worker_processes,
            shutdown_timeout=settings.shutdown_timeout,
            start_timeout=settings.start_timeout,
            crash_scope=CrashScope(settings.crash_scope),
            draw=random.random,
            timetable=self.schedules,
        )
        self.segments = Segments(settings.max_shared_memory)
        self.restart_after_crash = settings.restart_after_crash
        self.crash_count = 0
        self.finished = Finished()
        self.waits = Waits()
        self.callers = Callers()
        self.ready_done: set[str] = set()
        #: Which worker has registered a registration; a worker's next life may go on with what it began.
        self.registrars: dict[tuple[int, int], tuple[int, int]] = {}
        self.settings: dict[str, Any] = {}
        self.static: dict[str, reloading.Static] = {}
        #: Numbers of instances that are not the file's.
        self.scaled: dict[str, scaling.Scaled] = {}
        self.broken_plugins: list[dict[str, Any]] = []
        self.rejected: list[dict[str, Any]] = []
        #: Libraries that the loader in use has in memory, the workers' path, and its plugins.
        self.preloaded: frozenset[str] = frozenset()
        self.python_path: list[str] = []
        self.plugins: list[str] = []
        #: What the last reload has changed.
        self.reloaded: dict[str, Any] = {}
        #: What the host took from workers.toml at its start, as digests.
        self.fixed: dict[str, str] = {}
        self.is_loaded = False
        self.spare_workers = min(settings.spare_workers, settings.max_worker_processes)
        self.status = StatusLine(self)
        self.children = Children(self)
        self.shutdown = Shutdown(self)

        #: Looked up now: the loop must not wait for a database of users.
        self.own_identity = OwnIdentity.of_this_process() if carried is None else read(OwnIdentity, carried["about"]["identity"])
        self.access = access
        self._have_tables(settings.max_worker_processes, carried, baggage)
        self.service = Service(lambda: summary(self.state, self.machine.slots))
        self.lifeline = Lifeline() if carried is None or baggage is None else Lifeline.resume(carried["lifeline"], baggage)
        self.locks = locks
        fds = (self.lifeline.read_fd, locks.workers_fd)
        pipes = None if carried is None or baggage is None else list(map(baggage.unpack, carried["output"]["pipes"]))
        self.output = Output(self.loop, fds, data_directory, log_to, settings, pipes)
        self.records = self.output.records
        self.news = News(self.machine, self.callers, self.records)
        self.askers = self.news.askers
        self.loaders = Loaders(
            self.loop,
            fds,
            self._loader_configuration,
            settings.load_timeout,
            config_text,
            lambda message, is_new: configuring.loader_ready(self, message, is_new),
            lambda: self.births.loader_is_gone(),
            lambda message: self.births.answered(message),
            lambda errors: configuring.is_wrong(self, errors),
            self.log,
            self.output.loader_fds,
            lambda message: reloading.problem_of(self, message),
        )
        self.births = Births(
            self.loop,
            self.loaders.send,
            lambda process: workers.born(self, process),
            lambda life, reason: workers.birth_failed(self, life, reason),
            lambda process, message: workers.says(self, process, message),
        )
        self._notify_events = NotifyEvents(self.callers)
        self.memory = MemoryWatch(self.machine.slots)
        self.wake_ups = WakeUps(self.machine.slots, self.births.by_pid)
        self.database: DatabaseWatch | None = None
        if configuration.database is not None:
            self.database = DatabaseWatch(
                self.loop,
                configuration.database,
                data_directory,
                settings.max_worker_processes + _SPARE_CONNECTIONS,
                fds,
                self._database_changed,
                self._database_notifies,
                self.log,
            )
        group = access.gid if access is not None else None
        self.socket_name = SocketName(
            data_directory,
            group,
            lambda: make_run_directory(data_directory, group),
            self.log,
            None if carried is None else carried["socket_name"],
            baggage,
        )
        self.server = ControlServer(
            self.loop,
            self.socket_name,
            lambda peer: clients.came(self, peer),
            lambda peer: clients.greeting(self, peer),
            lambda uid, gid, others: clients.admits(self, uid, gid, others),
            lambda: self.program_notices.renew(),
        )
        self.program_notices = ProgramNotices(
            self.loop,
            data_directory,
            self.births.by_pid,
            self.activity_table,
            lambda process, message: workers.says(self, process, message),
            self.log,
            None if carried is None else carried["notices"],
            baggage,
        )
        self.reexec = Reexec(self)

    def _have_tables(self, count: int, carried: Mapping[str, Any] | None, baggage: Baggage | None) -> None:
        if carried is not None and baggage is not None:
            slots, activities, blank = carried["tables"]
            self.slot_table = SlotTable.resume(slots, baggage)
            self.activity_table = ActivityTable.resume(activities, baggage)
            self.blank_table = ActivityTable.resume(blank, baggage)
            return
        self.slot_table = SlotTable(count)
        self.activity_table = ActivityTable(count)
        #: What clients get that may not view: nobody writes it.
        self.blank_table = ActivityTable(count)

    # -- what the rooms and the requests ask ----------------------------------------

    @property
    def has_database(self) -> bool:
        """Whether workers.toml has a [database]."""
        return self.database is not None

    @property
    def state(self) -> str:
        """The host's state as status shows it."""
        if self.machine.shutdown is not None:
            return "stopping"
        if not self.is_loaded or self.machine.phase is Phase.STARTING:
            return "starting"
        return "run" if self.machine.phase is Phase.RECOVERY_FINISHED else "consistent"

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Write one entry of the host's log."""
        self.records.log(level, message, detail, hint)

    def status_line(self, request_id: Any) -> bytes:
        """Return the reply to a status request, newline included."""
        return self.status.encode(request_id)

    def apply(self, effects: Sequence[fx.Effect]) -> None:
        """Do what the machine decided, in its order."""
        effects_of_machine.apply(self, effects)

    def register(self, worker: BackgroundWorker, origin: Origin, caller: Caller | None) -> Slot:
        """Register a checked worker.

        Raises:
            NoFreeSlot: Every slot is taken (C14).
            RegistrationError: The host is shutting down.
        """
        slot, effects = self.machine.register(worker, origin, time.monotonic())
        key = (slot.slotno, slot.generation)
        if caller is not None:
            caller.note_registered(key)
            if caller.worker is not None:
                self.registrars[key] = caller.worker.life[:2]
        if worker.bgw_notify_pid:
            self.news.notify(key, worker, self.callers.to_notify(worker.bgw_notify_pid, caller))
        self.apply(effects)
        if worker.wake_on:
            self.update_channels()
        return slot

    def signal(self, pid: int, signum: int, *, whole_session: bool) -> None:
        """Signal a worker that has not been reaped."""
        if pid in self.births.by_pid:
            signal_worker(pid, signum, whole_session=whole_session)

    def is_launcher(self, caller: Caller) -> bool:
        """Whether the caller is the launcher of this host."""
        if caller.worker is None:
            return False
        return self.machine.slots[caller.worker.life.slotno].origin is Origin.BUILTIN

    def reload(self, done: configuring.Answer | None = None) -> None:
        """Read the configuration anew in a fresh loader, then put it into effect; a failure changes nothing."""
        configuring.reload(self, done)

    def upgrade(self, done: Callable[[dict[str, Any] | HostError], None]) -> None:
        """Load the plugins anew and take the new loader, with the configuration in force; no process is restarted for it."""
        configuring.upgrade(self, done)

    def plan(self, done: Callable[[dict[str, Any] | HostError], None]) -> None:
        """Find out what a reload would do, in a fresh loader that is dropped afterwards."""
        configuring.plan(self, done)

    def begin_shutdown(self, mode: ShutdownMode, why: str = "") -> None:
        """Begin a shutdown, or make the running one stricter; ``why`` when nobody asked for it."""
        self.shutdown.begin(mode, why)

    def update_channels(self) -> None:
        """Have the database process listen where registered workers want to be woken, and nowhere else."""
        self.wake_ups.changed()
        if self.database is not None:
            self.database.listen(self.wake_ups.wanted())

    def tell_state(self) -> None:
        """Tell everybody who wants to know the host's state."""
        self.news.host_is(self.state)
        if self.machine.shutdown is not None:
            self.service.stopping()
        self.service.changed()

    # -- the loop -------------------------------------------------------------------

    def go_on(self) -> None:
        """Do what a host has to that has just executed itself anew, before it turns its loop."""
        # Times of day have become monotonic instants by a clock that may have been set meanwhile, and nobody watches it yet.
        self.apply(self.machine.clock_was_set(time.monotonic()))
        self.wake_ups.go_on()
        # The name may have gone while nobody watched it.
        self.server.renew()

    def run(self) -> int:
        """Run until shut down; return the exit code."""
        while self.shutdown.exit_code is None:
            came = self.loop.turn(self._deadline())
            signals.take(self, came)
            self.children.reap()
            now = time.monotonic()
            self.children.look_for_stopped(came, now)
            self.apply(self.machine.tick(now))
            for slotno, generation, why, hint in self.memory.too_big(now):
                self.apply(self.machine.recycle(slotno, generation, why, now, hint))
            self.waits.expire(now)
            self._ensure_helpers(now)
            self.shutdown.go_on(now)
            self.service.tick(now)
            self.reexec.tick(now)
        return self.shutdown.exit_code

    def _deadline(self) -> float | None:
        times = [
            self.machine.next_deadline(),
            self.waits.next_deadline(),
            self.loaders.next_deadline(),
            self.births.hung_since(),
            self.births.spares_due_at(),
            self.shutdown.stop_helpers_by,
            self.children.stopped.next_deadline(),
            self.output.collector.next_deadline(),
            self.service.next_deadline(),
            self.memory.next_deadline(),
            self.server.next_deadline(),
            0.0 if self.children.has_more_to_do else None,
            self.database.next_deadline() if self.database is not None else None,
            self.reexec.next_deadline(),
        ]
        return min((t for t in times if t is not None), default=None)

    def _ensure_helpers(self, now: float) -> None:
        self.output.collector.ensure(now)
        self.loaders.ensure(now)
        if self.database is not None:
            self.database.ensure(now)
        hung = self.births.hung_since()
        if hung is not None and now >= hung:
            self.log("WARNING", "the loader does not answer; starting another", "Running workers are not touched.")
            self.loaders.replace_hung()
            self.births.loader_is_gone()
        self.births.ensure_spares(now)
        self.server.ensure(now)

    def close(self) -> None:
        """Give back everything of this host's own; called once, after ``run`` or instead of it."""
        self.records.flush_to_stderr()
        self.server.close()
        self.program_notices.close()
        self.service.close()
        self.schedules.close()
        self.loop.close()
        self.slot_table.close()
        self.activity_table.close()
        self.blank_table.close()
        self.segments.close()
        self.output.close()
        self.lifeline.close()
        self.locks.close()

    # -- what the helpers are told, and what they say --------------------------------

    def _loader_configuration(self) -> tuple[Message, list[int]]:
        message = {"type": "configure", "config_path": self.config_path}
        return message, [self.slot_table.read_only_fd, self.activity_table.fd]

    def _database_changed(self) -> None:
        assert self.database is not None
        if self.is_loaded:
            self.apply(self.machine.set_phase(self.database.phase, self.database.detail, time.monotonic()))
        self.tell_state()

    def _database_notifies(self, message: Message) -> None:
        """Take what the database process hears, or that it hears nothing."""
        match message["type"]:
            case "notify":
                self.wake_ups.notified(message["database"], message["channel"], message["payload"])
                self._notify_events.heard(message["database"], message["channel"], message["payload"])
            case "gap":
                self.wake_ups.heard_again(message["database"], message["channels"])
            case "deaf":
                self.wake_ups.deaf(message["database"])
