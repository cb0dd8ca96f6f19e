"""A loader's configuration put into effect: at the start, at a reload, an upgrade, and when a loader is replaced.

``loaders`` keeps the processes and ``reload`` carries out what becomes of each worker; this room
says what else comes with it: settings, plugins, the launcher, and what whoever asked is told.
Functions of the host. Imported by the composition root alone.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bgworker._control.protocol import Message
from bgworker._core.states import Origin, Phase, ShutdownMode, SlotState
from bgworker._host import reload as reloading
from bgworker._host.callers import signal_worker
from bgworker._host.loaders import Ask
from bgworker._spec import BackgroundWorker, BgWorkerStartTime, printable
from bgworker.errors import HostError, NoFreeSlot, RegistrationError

if TYPE_CHECKING:
    from bgworker._host.host import Host

LAUNCHER_NAME: Final = "bgworker launcher"
#: Answers a request with its result, or with what is wrong.
Answer = Callable[[dict[str, Any] | HostError], None]


def reload(host: Host, done: Answer | None = None) -> None:
    """Read the configuration anew in a fresh loader, then put it into effect; a failure changes nothing."""
    # Where the kernel does not tell that the socket is gone, this is how an operator gets it back.
    host.server.renew()
    if host.machine.shutdown is not None:
        if done is not None:
            done(RegistrationError("could not reload: the host is shutting down"))
        return

    if (refusal := _refusal(host, "reload")) is not None:
        if done is not None:
            done(refusal)
        return

    def over(failure: HostError | None) -> None:
        host.service.ready()
        if done is not None:
            done(failure or host.reloaded)

    host.service.reloading()
    host.loaders.reload(over)


def upgrade(host: Host, done: Answer) -> None:
    """Load the plugins anew and take the new loader, with the configuration in force; no process is restarted for it."""
    if host.machine.shutdown is not None:
        done(RegistrationError("could not upgrade: the host is shutting down"))
        return
    if (refusal := _refusal(host, "upgrade")) is not None:
        done(refusal)
        return
    host.loaders.reload(lambda failure: done(failure or host.reloaded), Ask.UPGRADE)


def plan(host: Host, done: Answer) -> None:
    """Find out what a reload would do, in a fresh loader that is dropped afterwards."""
    if host.machine.shutdown is not None:
        done(RegistrationError("could not plan a reload: the host is shutting down"))
        return
    if (refusal := _refusal(host, "plan a reload")) is not None:
        done(refusal)
        return

    def answer(failure: HostError | None) -> None:
        if failure is not None or host.loaders.candidate is None:
            done(failure or HostError("could not plan a reload: its loader is gone"))
            return
        ready = host.loaders.candidate.ready
        done(_planned(host, reloading.plan(host, ready), ready))

    host.loaders.reload(answer, Ask.PLAN)


def _refusal(host: Host, what: str) -> HostError | None:
    """Return why no loader can be asked for anything now, if so."""
    if not host.reexec.is_running:
        return None
    detail = "Its loader is being replaced, which takes a moment."
    return HostError(f"could not {what}: the host is executing itself anew", detail, "Try again in a second.")


def _planned(host: Host, made: reloading.Plan, message: Message) -> dict[str, Any]:
    """Return what taking a loader does, as clients are told."""
    old, new = host.plugins, message["plugins"]
    return {
        **made.view(),
        "settings": reloading.changed_settings(host.settings, message["settings"]),
        "plugins": {"added": [p for p in new if p not in old], "removed": [p for p in old if p not in new]},
        "warnings": [*message["warnings"], *reloading.without_effect(host.fixed, message["fixed"])],
    }


def loader_ready(host: Host, message: Message, is_new_configuration: bool) -> None:
    """Take a loader into use, and its configuration if that is a new one."""
    host.preloaded = frozenset(message["preloaded"])
    # Without a library in memory every worker is executed, and a spare is of no use.
    host.births.spares.want(host.spare_workers if host.preloaded and host.machine.shutdown is None else 0)
    host.python_path = message["python_path"]
    known = {broken["name"] for broken in host.broken_plugins} | host.loaders.current.excluded.keys()
    host.broken_plugins = message["broken_plugins"]
    if is_new_configuration:
        _take(host, message)
    else:
        # New code of the same configuration, that nobody has asked this loader to take: nothing else would tell.
        _tell_broken(host, [broken for broken in host.broken_plugins if broken["name"] not in known])
    host.births.loader_is_ready()


def _tell_broken(host: Host, plugins: list[dict[str, Any]]) -> None:
    for broken in plugins:
        host.log("ERROR", f'plugin "{broken["name"]}" is broken and was left out', broken["error"])


def _take(host: Host, message: Message) -> None:
    if host.machine.shutdown is not None:
        return  # it was still loading when the shutdown began
    is_reload, host.is_loaded = host.is_loaded, True
    host.fixed = host.fixed or message["fixed"]
    made = reloading.plan(host, message, is_upgrade=host.loaders.current.is_upgrade)
    told = _planned(host, made, message)
    host.settings, host.plugins = message["settings"], message["plugins"]
    host.rejected = message["rejected"]
    for rejected in host.rejected:
        host.log("ERROR", f'background worker "{printable(rejected["bgw_name"])}" is not registered', rejected["error"])
    for warning in told["warnings"]:
        host.log("WARNING", warning)
    _tell_broken(host, host.broken_plugins)
    reloading.carry_out(host, made)
    if message["has_launcher_hooks"]:
        _register_launcher(host)
    if host.database is None and not is_reload:
        host.apply(host.machine.set_phase(Phase.RECOVERY_FINISHED, "", time.monotonic()))
    # A program that is not ours would die of SIGHUP, and has no settings.
    readers = [pid for pid, process in host.births.by_pid.items() if process.worker.command is None]
    if is_reload:
        # Settings changed for everybody: each worker re-reads them when it chooses (C25).
        for pid in readers:
            signal_worker(pid, signal.SIGHUP, whole_session=False)
        host.log("LOG", f"configuration reloaded: {reloading.summary(told['changes'])}")
    if not is_reload:
        host.service.ready()
    host.reloaded = {**told, "signalled": len(readers)}
    if host.database is not None:
        host.apply(host.machine.set_phase(host.database.phase, host.database.detail, time.monotonic()))
    host.tell_state()


def is_wrong(host: Host, errors: list[HostError]) -> None:
    """The first loader found errors that only the plugins could see: nothing is started, exit code 2."""
    for error in errors:
        host.log("FATAL", error.message_primary, error.message_detail, error.message_hint)
        if host.log_to == "files":
            # Whoever has just typed `bgworker run` does not look for the reason in a file.
            sys.stderr.write("".join(f"{printable(line)}\n" for line in error.lines()))
    host.shutdown.fatal_exit_code = 2
    host.begin_shutdown(ShutdownMode.FAST, "shutting down because the configuration has errors")


def _register_launcher(host: Host) -> None:
    if any(slot.origin is Origin.BUILTIN and slot.state is not SlotState.FREE for slot in host.machine.slots):
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
        host.register(launcher, Origin.BUILTIN, None)
    except NoFreeSlot as error:
        host.log(
            "WARNING",
            f"hooks bgworker_ready and bgworker_event do not run: {error.message_primary}",
            error.message_detail,
            error.message_hint,
        )
