"""The host: the only composition root. Turns events into the machine's inputs and its effects into calls.

One thread, trusted code only. Each turn waits until something happens or is due, then
handles shutdown, reload, exits, and whatever the sockets brought; then compares what should
run with what runs and starts the difference. Nothing here blocks, reads what others can
write, opens a file after start-up, or raises out of a turn because of a peer.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from bgworker._config.model import Configuration
from bgworker._control.protocol import Message
from bgworker._control.server import ControlServer, Peer
from bgworker._control.socket_name import SocketName
from bgworker._core import effects as fx
from bgworker._core.scope import CrashScope, Segment
from bgworker._core.slots import Slot, SlotMachine
from bgworker._core.states import Origin, Phase, ShutdownMode, SlotState
from bgworker._host import reload as reloading
from bgworker._host import requests, rights
from bgworker._host import scale as scaling
from bgworker._host.births import Births, Life, WorkerProcess
from bgworker._host.callers import Caller, Callers, signal_worker
from bgworker._host.data_directory import HostLocks, make_run_directory
from bgworker._host.database import DatabaseWatch
from bgworker._host.helper_process import HelperProcess
from bgworker._host.loaders import Ask, Loaders
from bgworker._host.memory import MemoryWatch
from bgworker._host.news import News
from bgworker._host.notify_events import NotifyEvents
from bgworker._host.output import Output
from bgworker._host.program_notices import ProgramNotices
from bgworker._host.schedules import Schedules
from bgworker._host.segments import Segments
from bgworker._host.service import Service
from bgworker._host.status import Finished, code_view, slot_view, timestamp
from bgworker._host.stopped import StoppedChildren
from bgworker._host.strays import Strays
from bgworker._host.waits import Waits, slot_record
from bgworker._host.wake_on import WakeUps
from bgworker._loop import Loop
from bgworker._process import injection, reap
from bgworker._process.identity import OwnIdentity
from bgworker._process.lifeline import Lifeline
from bgworker._shm.table import ActivityTable, SlotTable
from bgworker._spec import BackgroundWorker, BgWorkerStartTime, printable
from bgworker._version import __version__
from bgworker.errors import HostError, NoFreeSlot, RegistrationError

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2)
#: How long the helpers get to finish after the last worker, in seconds.
_HELPER_STOP_TIMEOUT: Final = 5.0
#: Connections that PostgreSQL gets beyond one per slot: the database process, psql, a listener, superuser reserve.
_SPARE_CONNECTIONS: Final = 16
#: Of a host that ended because an essential worker did (design section 7).
_ESSENTIAL_EXIT_CODE: Final = 7
LAUNCHER_NAME: Final = "bgworker launcher"


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
    ) -> None:
        settings = configuration.host
        self.data_directory, self._config_path, self._log_to = data_directory, config_path, log_to
        self.started_at = time.monotonic()
        self.exit_code: int | None = None
        self.loop = Loop(_SIGNALS)
        self._schedules = Schedules(self.loop, lambda: self.apply(self.machine.clock_was_set(time.monotonic())))
        self.machine = SlotMachine(
            settings.max_worker_processes,
            shutdown_timeout=settings.shutdown_timeout,
            start_timeout=settings.start_timeout,
            crash_scope=CrashScope(settings.crash_scope),
            draw=random.random,
            timetable=self._schedules,
        )
        self.segments = Segments(settings.max_shared_memory)
        self._restart_after_crash = settings.restart_after_crash
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
        self._preloaded: frozenset[str] = frozenset()
        self._python_path: list[str] = []
        #: Those of the loader in use.
        self._plugins: list[str] = []
        self._slot_lines: dict[int, str] = {}
        #: What the last reload has changed.
        self._reloaded: dict[str, Any] = {}
        #: What the host took from workers.toml at its start, as digests.
        self._fixed: dict[str, str] = {}
        self._may_have_more_exits = False
        self._strays = Strays()
        self._stopped = StoppedChildren(self.log)
        self._is_loaded = False
        self._spare_workers = min(settings.spare_workers, settings.max_worker_processes)
        self._stop_helpers_by: float | None = None
        self._fatal_exit_code = 0

        #: Looked up now: the loop must not wait for a database of users.
        self.own_identity = OwnIdentity.of_this_process()
        self._slot_table = SlotTable(settings.max_worker_processes)
        self._activity_table = ActivityTable(settings.max_worker_processes)
        self._access = access
        #: What clients get that may not view: nobody writes it.
        self._blank_table = ActivityTable(settings.max_worker_processes)
        self._service = Service(self._service_status)
        self._lifeline = Lifeline()
        self._locks = locks
        fds = (self._lifeline.read_fd, locks.workers_fd)
        self.output = Output(self.loop, fds, data_directory, log_to, settings)
        self.records = self.output.records
        self._news = News(self.machine, self.callers, self.records)
        self.askers = self._news.askers
        self._loaders = Loaders(
            self.loop,
            fds,
            self._loader_configuration,
            settings.load_timeout,
            config_text,
            self._loader_ready,
            self._loader_gone,
            self._loader_answers,
            self._configuration_is_wrong,
            self.log,
            self.output.loader_fds,
            lambda message: reloading.problem_of(self, message),
        )
        self.births = Births(self.loop, self._loaders.send, self._worker_born, self._birth_failed, self._worker_says)
        self._notify_events = NotifyEvents(self.callers)
        self._memory = MemoryWatch(self.machine.slots)
        self._wake_ups = WakeUps(self.machine.slots, self.births.by_pid)
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
        name = SocketName(data_directory, group, lambda: make_run_directory(data_directory, group), self.log)
        self._server = ControlServer(self.loop, name, self._client_came, self._greeting, self._admits)
        self._program_notices = ProgramNotices(
            self.loop, data_directory, self.births.by_pid, self._activity_table, self._worker_says
        )

    # -- what others ask ------------------------------------------------------------

    @property
    def has_database(self) -> bool:
        """Whether workers.toml has a [database]."""
        return self.database is not None

    @property
    def state(self) -> str:
        """The host's state as status shows it."""
        if self.machine.shutdown is not None:
            return "stopping"
        if not self._is_loaded or self.machine.phase is Phase.STARTING:
            return "starting"
        return "run" if self.machine.phase is Phase.RECOVERY_FINISHED else "consistent"

    def log(self, level: str, message: str, detail: str = "", hint: str = "") -> None:
        """Write one entry of the host's log."""
        self.records.log(level, message, detail, hint)

    def status_line(self, request_id: Any) -> bytes:
        """Return the reply to a status request, newline included, from parts encoded once per change."""
        host = {
            "pid": os.getpid(),
            "state": self.state,
            "started_at": timestamp(self.started_at),
            "data_directory": self.data_directory,
            "max_worker_processes": len(self.machine.slots),
            "crash_count": self.crash_count,
            "version": __version__,
            "database": None if self.database is None else self.database.view(),
        }
        slots = ",".join(self._slot_line(slot) for slot in self.machine.slots if slot.state is not SlotState.FREE)
        rest = {"finished": self.finished.view(), "broken_plugins": self.broken_plugins, "rejected": self.rejected}
        text = (
            f'{{"id":{json.dumps(request_id)},"result":{{"format":1,"host":{json.dumps(host)},'
            f'"slots":[{slots}],{json.dumps(rest)[1:]}}}\n'
        )
        return text.encode("utf-8", "replace")

    def _slot_line(self, slot: Slot) -> str:
        line = self._slot_lines.get(slot.slotno)
        if line is None:
            line = self._slot_lines[slot.slotno] = json.dumps(slot_view(slot, self._code_of(slot)), ensure_ascii=False)
        return line

    def _code_of(self, slot: Slot) -> dict[str, str]:
        process = None if slot.pid is None else self.births.by_pid.get(slot.pid)
        return {} if process is None else process.code

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
            self._news.notify(key, worker, self.callers.to_notify(worker.bgw_notify_pid, caller))
        self.apply(effects)
        if worker.wake_on:
            self.update_channels()
        return slot

    def launch_due(self) -> None:
        """Launch what is due without waiting for the end of the turn."""
        self.apply(self.machine.tick(time.monotonic()))

    def signal(self, pid: int, signum: int, *, whole_session: bool) -> None:
        """Signal a worker that has not been reaped."""
        if pid in self.births.by_pid:
            signal_worker(pid, signum, whole_session=whole_session)

    def is_launcher(self, caller: Caller) -> bool:
        """Whether the caller is the launcher of this host."""
        if caller.worker is None:
            return False
        return self.machine.slots[caller.worker.life.slotno].origin is Origin.BUILTIN

    def reload(self, done: Callable[[dict[str, Any] | HostError], None] | None = None) -> None:
        """Read the configuration anew in a fresh loader, then put it into effect; a failure changes nothing."""
        # Where the kernel does not tell that the socket is gone, this is how an operator gets it back.
        self._server.renew()
        if self.machine.shutdown is not None:
            if done is not None:
                done(RegistrationError("could not reload: the host is shutting down"))
            return

        def over(failure: HostError | None) -> None:
            self._service.ready()
            if done is not None:
                done(failure or self._reloaded)

        self._service.reloading()
        self._loaders.reload(over)

    def upgrade(self, done: Callable[[dict[str, Any] | HostError], None]) -> None:
        """Load the plugins anew and take the new loader, with the configuration in force; no process is restarted for it."""
        if self.machine.shutdown is not None:
            done(RegistrationError("could not upgrade: the host is shutting down"))
            return
        self._loaders.reload(lambda failure: done(failure or self._reloaded), Ask.UPGRADE)

    def plan(self, done: Callable[[dict[str, Any] | HostError], None]) -> None:
        """Find out what a reload would do, in a fresh loader that is dropped afterwards."""
        if self.machine.shutdown is not None:
            done(RegistrationError("could not plan a reload: the host is shutting down"))
            return

        def answer(failure: HostError | None) -> None:
            if failure is not None or self._loaders.candidate is None:
                done(failure or HostError("could not plan a reload: its loader is gone"))
                return
            ready = self._loaders.candidate.ready
            done(self._planned(reloading.plan(self, ready), ready))

        self._loaders.reload(answer, Ask.PLAN)

    def _planned(self, made: reloading.Plan, message: Message) -> dict[str, Any]:
        """Return what taking a loader does, as clients are told."""
        old, new = self._plugins, message["plugins"]
        return {
            **made.view(),
            "settings": reloading.changed_settings(self.settings, message["settings"]),
            "plugins": {"added": [p for p in new if p not in old], "removed": [p for p in old if p not in new]},
            "warnings": [*message["warnings"], *reloading.without_effect(self._fixed, message["fixed"])],
        }

    def begin_shutdown(self, mode: ShutdownMode, why: str = "") -> None:
        """Begin a shutdown, or make the running one stricter; ``why`` when nobody asked for it."""
        if why:
            self.log("LOG", why)
        # The machine must know what a smart shutdown waits for before it begins one.
        self._count_live_handles(mode)
        self.apply(self.machine.begin_shutdown(mode, time.monotonic()))
        self.births.spares.want(0)
        self._loaders.cancel_reload(RegistrationError("could not reload: the host is shutting down"))
        self._stopped.hurry()
        if mode is ShutdownMode.IMMEDIATE and self.database is not None:
            self.database.stop("immediate", time.monotonic())
            if self._stop_helpers_by is not None:
                # A fast shutdown waits for PostgreSQL already; it waits no longer than an immediate one now.
                self._stop_helpers_by = min(self._stop_helpers_by, time.monotonic() + _HELPER_STOP_TIMEOUT)
        self._tell_state()

    # -- the loop -------------------------------------------------------------------

    def run(self) -> int:
        """Run until shut down; return the exit code."""
        self.log("LOG", f"starting bgworker {__version__} (PID {os.getpid()}) on data directory {self.data_directory}")
        while self.exit_code is None:
            signals = self.loop.turn(self._deadline())
            self._take_signals(signals)
            self._reap()
            now = time.monotonic()
            self._look_for_stopped(signals, now)
            self.apply(self.machine.tick(now))
            for slotno, generation, why in self._memory.too_big(now):
                self.apply(self.machine.recycle(slotno, generation, why, now))
            self.waits.expire(now)
            self._ensure_helpers(now)
            self._finish_shutdown(now)
            self._service.tick(now)
        return self.exit_code

    def _deadline(self) -> float | None:
        times = [
            self.machine.next_deadline(),
            self.waits.next_deadline(),
            self._loaders.next_deadline(),
            self.births.hung_since(),
            self.births.spares_due_at(),
            self._stop_helpers_by,
            self._stopped.next_deadline(),
            self.output.collector.next_deadline(),
            self._service.next_deadline(),
            self._memory.next_deadline(),
            self._server.next_deadline(),
            0.0 if self._may_have_more_exits or self._strays.is_looking else None,
            self.database.next_deadline() if self.database is not None else None,
        ]
        return min((t for t in times if t is not None), default=None)

    def _ensure_helpers(self, now: float) -> None:
        self.output.collector.ensure(now)
        self._loaders.ensure(now)
        if self.database is not None:
            self.database.ensure(now)
        hung = self.births.hung_since()
        if hung is not None and now >= hung:
            self.log("WARNING", "the loader does not answer; starting another", "Running workers are not touched.")
            self._loaders.replace_hung()
            self.births.loader_is_gone()
        self.births.ensure_spares(now)
        self._server.ensure(now)

    def _take_signals(self, signals: set[int]) -> None:
        if signal.SIGQUIT in signals:
            self.begin_shutdown(ShutdownMode.IMMEDIATE)
        elif signals & {signal.SIGTERM, signal.SIGINT}:
            if self.machine.shutdown is not None and self.machine.shutdown >= ShutdownMode.FAST:
                self.begin_shutdown(ShutdownMode.IMMEDIATE)
            else:
                self.begin_shutdown(ShutdownMode.FAST)
        elif signal.SIGHUP in signals:
            if self._has_lost_terminal():
                self.begin_shutdown(ShutdownMode.FAST, "the terminal is gone, shutting down")
            else:
                self.reload()

    @staticmethod
    def _has_lost_terminal() -> bool:
        """Whether SIGHUP means that the terminal which this host ran on has vanished."""
        return any(_is_dead_terminal(fd) for fd in (0, 1, 2))

    def _reap(self) -> None:
        count = 0
        for pid in reap.exited_children():
            count += 1
            now = time.monotonic()
            helper = next((h for h in self._helpers() if h.pid == pid), None)
            if helper is not None:
                helper.end_session()
                helper.exited(reap.reap(pid), now)
                continue
            if self.database is not None and pid == self.database.postgres_pid:
                self.database.postgres_exited(pid, reap.reap(pid))
                continue
            if pid in self.births.spares:
                reap.reap(pid)
                self.births.spares.ended(pid, now)
                continue
            if pid in self.births.by_pid:
                injection.point("host.exit")
                # What it left in its process group goes with it, while its pid still guards the group's number.
                reap.signal_session(pid)
            status, usage = reap.reap_with_usage(pid)
            if pid not in self.births.by_pid and self._strays.child_ended(pid):
                continue
            process = self.births.exited(pid, status)
            if process is not None:
                self._strays.worker_ended(pid)
                process.usage = usage
                self._worker_exited(process, status, now)
            elif self.database is not None:
                # PostgreSQL may end before the database process has named it.
                self.database.postgres_exited(pid, status)
        self._may_have_more_exits = count >= reap.EXITS_PER_TURN
        self._end_strays()

    def _end_strays(self) -> None:
        if not self._strays.is_looking:
            return
        known = {
            *self.births.by_pid,
            *self.births.spares.pids(),
            *(helper.pid for helper in self._helpers() if helper.pid is not None),
        }
        for pid in self._strays.look(known):
            self.log("LOG", f"killed process {pid}: it was left behind by a background worker that has ended")

    def _look_for_stopped(self, signals: set[int], now: float) -> None:
        """Look at who must not stay stopped, when the kernel has told of a child or somebody's time is over."""
        due = self._stopped.next_deadline()
        if signal.SIGCHLD not in signals and (due is None or now < due):
            return
        children = [("collector process", self.output.collector.pid)]
        if self.database is not None:
            children += [("database process", self.database.process.pid), ("PostgreSQL", self.database.postgres_pid)]
        self._stopped.look([(name, pid) for name, pid in children if pid is not None], now)

    def _helpers(self) -> list[HelperProcess]:
        helpers = [self.output.collector, *self._loaders.processes()]
        if self.database is not None:
            helpers.append(self.database.process)
        return helpers

    def _finish_shutdown(self, now: float) -> None:
        """Stop the helpers after the last worker, PostgreSQL after them, the collector last."""
        if self.machine.shutdown is None or not self.machine.is_drained:
            return
        if self._stop_helpers_by is None:
            self._stop_helpers_by = now + _HELPER_STOP_TIMEOUT
            self._loaders.stop()
            if self.database is not None:
                self.database.stop("immediate" if self.machine.shutdown is ShutdownMode.IMMEDIATE else "fast", now)
        if self.database is not None:
            self.database.ensure_stop()
        others = [h for h in self._helpers() if h is not self.output.collector and h.pid is not None]
        postgres = self.database.postgres_pid if self.database is not None else None
        if now >= self._stop_helpers_by:
            self._stop_helpers_by = now + 1.0
            if self.database is not None and postgres is not None:
                if self.database.is_given_time(now):
                    # With the database process, which waits for it; the other helpers have had theirs.
                    others = [h for h in others if h is not self.database.process]
                    self._stop_helpers_by = self.database.stop_by if not others else self._stop_helpers_by
                else:
                    self.database.end_postgres(now)
            self._strays.give_up()
            # The collector comes last: what the others have said on their way out is still to be written.
            for helper in others or ([self.output.collector] if postgres is None else []):
                helper.kill()
            return
        if others or postgres is not None or self.births.spares.is_leaving or self._strays.is_looking or self._strays.killed:
            return
        if self.output.collector.is_wanted:
            self.output.collector.is_wanted = False
            self.log("LOG", "host is shut down")
            self._stop_helpers_by = now + _HELPER_STOP_TIMEOUT
            self.output.collector.send({"type": "stop"})
        if self.output.collector.pid is None:
            self.exit_code = self._fatal_exit_code

    def close(self) -> None:
        """Give back everything of this host's own; called once, after ``run`` or instead of it."""
        self.records.flush_to_stderr()
        self._server.close()
        self._program_notices.close()
        self._service.close()
        self._schedules.close()
        self.loop.close()
        self._slot_table.close()
        self._activity_table.close()
        self._blank_table.close()
        self.segments.close()
        self.output.close()
        self._lifeline.close()
        self._locks.close()

    # -- effects of the machine -----------------------------------------------------

    def apply(self, effects: Sequence[fx.Effect]) -> None:
        """Do what the machine decided, in its order."""
        for effect in effects:
            match effect:
                case fx.Launch(slotno, generation, attempt):
                    self._launch(Life(slotno, generation, attempt))
                case fx.Signal(_slotno, _generation, pid, signum, whole_session):
                    self.signal(pid, signum, whole_session=whole_session)
                case fx.Abandon(slotno, generation, attempt):
                    self.births.abandon(Life(slotno, generation, attempt))
                case fx.Publish(slotno):
                    self._publish(self.machine.slots[slotno])
                case fx.Started():
                    self._memory.started(self.machine.slots[effect.slotno], time.monotonic())
                    self._news.started(effect)
                case fx.Exited():
                    self.crash_count += effect.exit.is_crash
                    self._news.exited(effect)
                case fx.Forgotten():
                    self._forget(effect)
                case fx.Reinitialise(others, segments):
                    self._reinitialise(others, segments)
                case fx.Log(level, message, detail, hint):
                    self.log(level, message, detail, hint)

    def _launch(self, life: Life) -> None:
        worker = self.machine.slots[life.slotno].worker
        assert worker is not None
        is_preloaded = worker.bgw_library_name in self._preloaded or worker.bgw_library_name == "bgworker"
        # What the loader has imported it has imported as the host's user, with the host's environment.
        kind = "preloaded" if is_preloaded and not worker.needs_own_interpreter else "exec"
        try:
            self.births.request(life, kind, worker)
        except OSError as error:
            self._birth_failed(life, f"could not make its pipes: {error.strerror}")

    def _publish(self, slot: Slot) -> None:
        self._slot_lines.pop(slot.slotno, None)
        self._service.changed()
        self._slot_table.write(slot.slotno, slot_record(slot))
        if slot.state is not SlotState.FREE:  # else Forgotten follows, and with it the reason
            self.waits.slot_changed(slot, self.finished.reason)

    def _reinitialise(self, others: int, segments: Iterable[Segment]) -> None:
        """Give up memory that a crash has made worthless; end the host if it is not to go on after that (C31)."""
        self.segments.drop(segments)
        if others and not self._restart_after_crash and self.machine.shutdown is None:
            self._fatal_exit_code = 1
            self.begin_shutdown(ShutdownMode.FAST, "shutting down because restart_after_crash is off")

    def _forget(self, effect: fx.Forgotten) -> None:
        key = (effect.slotno, effect.generation)
        if effect.origin is not Origin.BUILTIN:
            self.finished.add(effect.slotno, effect.generation, effect.worker, effect.origin, effect.last_exit, effect.reason)
        self.waits.slot_changed(self.machine.slots[effect.slotno], self.finished.reason)
        self._news.finished(effect)
        self.callers.forget(key)
        self.registrars.pop(key, None)
        self._count_live_handles()
        if effect.worker.wake_on:
            self.update_channels()
        if effect.worker.essential and effect.has_failed and self.machine.shutdown is None:
            self._fatal_exit_code = _ESSENTIAL_EXIT_CODE
            name = printable(effect.worker.bgw_name)
            self.begin_shutdown(
                ShutdownMode.FAST, f'shutting down because essential background worker "{name}" failed: {effect.reason}'
            )

    def _tell_state(self) -> None:
        self._news.host_is(self.state)
        if self.machine.shutdown is not None:
            self._service.stopping()
        self._service.changed()

    def _service_status(self) -> str:
        """Return the host in one line, as the service manager shows it."""
        states = [slot.state for slot in self.machine.slots if slot.state is not SlotState.FREE]
        down = len(states) - states.count(SlotState.STARTED)
        return f"{self.state}; {states.count(SlotState.STARTED)} workers started" + (f", {down} not" if down else "")

    # -- workers --------------------------------------------------------------------

    def _worker_born(self, process: WorkerProcess) -> None:
        life, pid = process.life, process.pid
        assert pid is not None
        injection.point("host.born")
        assert process.connection is not None
        slot = self.machine.slots[life.slotno]
        grants = rights.OWNER if slot.origin is Origin.BUILTIN else rights.WORKER
        is_confined = not self.own_identity.is_user(process.worker.user)
        caller = Caller(process.connection, pid, process, grants=grants, is_confined=is_confined)
        self.callers.add(caller)
        process.caller = caller
        self.apply(self.machine.born(*life, pid, time.monotonic()))
        is_wanted = (slot.generation, slot.attempt) == (life.generation, life.attempt) and slot.state is SlotState.LAUNCHING
        if not is_wanted or slot.worker is None or process.is_abandoned:
            # It has no assignment and blocks its signals; without its channel it leaves.
            process.connection.close()
            process.close_log_fds()
            return
        worker = slot.worker
        self._wake_ups.changed()
        # First what somebody waits for; until the collector is told, what the worker prints waits in its pipes.
        own = {"mark": self._strays.mark_for(pid), "notify_socket": self._program_notices.begin(process)}
        process.connection.send(self._assignment(slot, worker) | own)
        self.output.attach(process, worker, is_static=slot.origin is not Origin.DYNAMIC)

    def _assignment(self, slot: Slot, worker: BackgroundWorker) -> Message:
        data = worker.to_dict()
        if slot.origin is Origin.BUILTIN:
            data["bgw_main_arg"] = {"done": sorted(self.ready_done), "load": sorted(self._loaders.exec_only)}
        database = None
        if self.database is not None and worker.is_database_worker:
            database = self.database.for_worker()
        return {
            "type": "assign",
            "slot": slot.slotno,
            "generation": slot.generation,
            "worker": data,
            "settings": self.settings,
            "database": database,
            "python_path": self._python_path,
            "host_pid": os.getpid(),
            "host_version": __version__,
            "max_worker_processes": len(self.machine.slots),
        }

    def _birth_failed(self, life: Life, reason: str) -> None:
        self.apply(self.machine.birth_failed(*life, reason, time.monotonic()))

    def _worker_says(self, process: WorkerProcess, message: Message) -> None:
        kind = message.get("type")
        now = time.monotonic()
        if kind == "started":
            process.code = code_view(message.get("code"))
            self.apply(self.machine.started(*process.life, now))
        elif kind == "start_failed":
            error = message.get("error")
            text = error.get("message_primary") if isinstance(error, dict) else None
            self.apply(self.machine.start_failed(*process.life, printable(str(text or "no reason given"))[:500], now))
        elif kind == "waiting":
            reason = printable(str(message.get("reason") or "waits, and does not say for what"))
            self.apply(self.machine.waits(*process.life, reason, now))
        elif kind == "ready":
            self.apply(self.machine.ready(*process.life, now))
        elif kind in ("moving", "idle"):
            self.apply(self.machine.moved(*process.life, kind == "idle", now))
        elif kind == "exiting":
            process.last_words = str(message.get("error", ""))
        elif kind == "connected":
            if self._wake_ups.connected(process, message.get("database")):
                self.update_channels()
        elif process.caller is not None:
            requests.serve(self, process.caller, message)

    def _worker_exited(self, process: WorkerProcess, status: int, now: float) -> None:
        if process.caller is not None:
            self._forget_caller(process.caller)
        self.output.ended(process, status)
        self._wake_ups.changed()
        if process.database:
            self.update_channels()
        if process.was_spare and process.is_unassigned:
            # Killed while it was nobody's: the registration has lost nothing but a moment.
            self.births.spares.postpone_after_failure(now)
            self.apply(self.machine.lost(*process.life, status, now))
        else:
            self._news.ends(process)
            self.apply(self.machine.exited(*process.life, status, now, process.last_words))

    # -- clients --------------------------------------------------------------------

    def _admits(self, uid: int, gid: int, others: frozenset[int] | None) -> bool:
        return self._access is not None and self._access.admits(uid, gid, others)

    def _grants_of(self, peer: Peer) -> rights.Grants:
        return rights.OWNER if peer.is_owner or self._access is None else self._access.grants

    def _greeting(self, peer: Peer) -> tuple[Message, Sequence[int]]:
        activity = self._activity_table if rights.Right.VIEW in self._grants_of(peer).rights else self._blank_table
        message = {"bgworker": 1, "version": __version__, "pid": os.getpid(), "max_worker_processes": len(self.machine.slots)}
        return message, (self._slot_table.read_only_fd, activity.read_only_fd)

    def _client_came(self, peer: Peer) -> None:
        caller = Caller(peer.connection, peer.pid, grants=self._grants_of(peer), uid=peer.uid, open_pidfd=peer.open_pidfd)
        self.callers.add(caller)

        def closed() -> None:
            self._forget_caller(caller)
            self._count_live_handles()

        peer.on_request = lambda message: requests.serve(self, caller, message)
        peer.on_close = closed

    def _forget_caller(self, caller: Caller) -> None:
        self.callers.discard(caller)
        self.waits.discard_owner(caller)
        if self.database is not None:
            self.database.openings.over(caller)

    def _count_live_handles(self, mode: ShutdownMode | None = None) -> None:
        """Tell the machine how many connections hold a handle of a worker that is still registered (design 8.4)."""
        if ShutdownMode.SMART not in (mode, self.machine.shutdown):
            return
        slots = self.machine.slots
        count = sum(
            any(slots[n].generation == g and slots[n].state is not SlotState.FREE for n, g in caller.handles)
            for caller in self.callers.clients()
        )
        self.apply(self.machine.set_live_handles(count, time.monotonic()))

    # -- loader ---------------------------------------------------------------------

    def _loader_configuration(self) -> tuple[Message, list[int]]:
        message = {"type": "configure", "config_path": self._config_path}
        return message, [self._slot_table.read_only_fd, self._activity_table.fd]

    def _loader_answers(self, message: Message) -> None:
        if message["type"] == "born":
            self.births.born(message["birth"], message["pid"])
        else:
            self.births.failed(message["birth"], message["error"])

    def _loader_gone(self) -> None:
        self.births.loader_is_gone()

    def _loader_ready(self, message: Message, is_new_configuration: bool) -> None:
        self._preloaded = frozenset(message["preloaded"])
        # Without a library in memory every worker is executed, and a spare is of no use.
        self.births.spares.want(self._spare_workers if self._preloaded and self.machine.shutdown is None else 0)
        self._python_path = message["python_path"]
        self.broken_plugins = message["broken_plugins"]
        if is_new_configuration:
            self._take_configuration(message)
        self.births.loader_is_ready()

    def _take_configuration(self, message: Message) -> None:
        if self.machine.shutdown is not None:
            return  # it was still loading when the shutdown began
        is_reload, self._is_loaded = self._is_loaded, True
        self._fixed = self._fixed or message["fixed"]
        made = reloading.plan(self, message, is_upgrade=self._loaders.current.is_upgrade)
        told = self._planned(made, message)
        self.settings, self._plugins = message["settings"], message["plugins"]
        self.rejected = message["rejected"]
        for rejected in self.rejected:
            self.log("ERROR", f'background worker "{printable(rejected["bgw_name"])}" is not registered', rejected["error"])
        for warning in told["warnings"]:
            self.log("WARNING", warning)
        for broken in self.broken_plugins:
            self.log("ERROR", f'plugin "{broken["name"]}" is broken and was left out', broken["error"])
        reloading.carry_out(self, made)
        if message["has_launcher_hooks"]:
            self._register_launcher()
        if self.database is None and not is_reload:
            self.apply(self.machine.set_phase(Phase.RECOVERY_FINISHED, "", time.monotonic()))
        # A program that is not ours would die of SIGHUP, and has no settings.
        readers = [pid for pid, process in self.births.by_pid.items() if process.worker.command is None]
        if is_reload:
            # Settings changed for everybody: each worker re-reads them when it chooses (C25).
            for pid in readers:
                signal_worker(pid, signal.SIGHUP, whole_session=False)
            self.log("LOG", f"configuration reloaded: {reloading.summary(told['changes'])}")
        if not is_reload:
            self._service.ready()
        self._reloaded = {**told, "signalled": len(readers)}
        if self.database is not None:
            self.apply(self.machine.set_phase(self.database.phase, self.database.detail, time.monotonic()))
        self._tell_state()

    def _configuration_is_wrong(self, errors: list[HostError]) -> None:
        """The first loader found errors that only the plugins could see: nothing is started, exit code 2."""
        for error in errors:
            self.log("FATAL", error.message_primary, error.message_detail, error.message_hint)
            if self._log_to == "files":
                # Whoever has just typed `bgworker run` does not look for the reason in a file.
                sys.stderr.write("".join(f"{printable(line)}\n" for line in error.lines()))
        self._fatal_exit_code = 2
        self.begin_shutdown(ShutdownMode.FAST, "shutting down: the configuration has errors")

    def _register_launcher(self) -> None:
        if any(slot.origin is Origin.BUILTIN and slot.state is not SlotState.FREE for slot in self.machine.slots):
            return
        launcher = BackgroundWorker(
            bgw_name=LAUNCHER_NAME,
            bgw_type=LAUNCHER_NAME,
            bgw_library_name="bgworker",
            bgw_function_name="launcher_main",
            bgw_start_time=BgWorkerStartTime.BgWorkerStart_RecoveryFinished,
            bgw_restart_time=1.0,
        )
        try:
            self.register(launcher, Origin.BUILTIN, None)
        except NoFreeSlot as error:
            self.log(
                "WARNING",
                f"hooks bgworker_ready and bgworker_event do not run: {error.message_primary}",
                error.message_detail,
                error.message_hint,
            )

    # -- database -------------------------------------------------------------------

    def update_channels(self) -> None:
        """Have the database process listen where registered workers want to be woken, and nowhere else."""
        self._wake_ups.changed()
        if self.database is not None:
            self.database.listen(self._wake_ups.wanted())

    def _database_changed(self) -> None:
        assert self.database is not None
        if self._is_loaded:
            self.apply(self.machine.set_phase(self.database.phase, self.database.detail, time.monotonic()))
        self._tell_state()

    def _database_notifies(self, message: Message) -> None:
        """Take what the database process hears, or that it hears nothing."""
        match message["type"]:
            case "notify":
                self._wake_ups.notified(message["database"], message["channel"], message["payload"])
                self._notify_events.heard(message["database"], message["channel"], message["payload"])
            case "gap":
                self._wake_ups.heard_again(message["database"], message["channels"])
            case "deaf":
                self._wake_ups.deaf(message["database"])


def _is_dead_terminal(fd: int) -> bool:
    """Whether the descriptor is a terminal that has hung up. It answers isatty() with no; a pipe hangs up without harm."""
    poll = select.poll()
    poll.register(fd, 0)
    try:
        return stat.S_ISCHR(os.fstat(fd).st_mode) and any(events & select.POLLHUP for _fd, events in poll.poll(0))
    except OSError:
        return False
