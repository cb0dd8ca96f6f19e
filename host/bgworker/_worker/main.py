"""A worker process from its birth to its end: blank, assigned, running, gone.

``run`` is entered in a clone of the loader, or in a fresh interpreter that the loader has
executed, with the descriptors in place. It never returns and never lets an exception out:
what is below it on the stack belongs to the loader.
"""

from __future__ import annotations

import copy
import faulthandler
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from bgworker._process import injection, mark
from bgworker._worker import exit as exits
from bgworker._worker import inherited, library, log_records, runtime, standby
from bgworker._worker.assignment import extend_path, make_runtime, read_assignment, take_name
from bgworker._worker.channel import Channel
from bgworker._worker.interrupts import Interrupts
from bgworker._worker.latch import Latch
from bgworker._worker.log import write
from bgworker._worker.slot_view import SlotView
from bgworker.errors import HostError, PluginError

if TYPE_CHECKING:
    from bgworker._plugins.manager import PluginHost
    from bgworker._worker.runtime import Runtime

#: What is sent of a traceback; the whole of it goes to the worker's log. One line of the channel holds 64 KiB.
_MAX_TRACEBACK: Final = 16_000


@dataclass(frozen=True)
class Boot:
    """What a blank worker is born with. Standard output and error are the log pipes already."""

    channel_fd: int
    lifeline_fd: int
    slot_table_fd: int
    activity_fd: int
    #: The loader's plugins; None in a process that was executed afresh.
    plugins: PluginHost | None = None
    #: Born ahead, for whichever worker comes: until then it is nobody's, and any signal ends it.
    is_spare: bool = False


def run(boot: Boot) -> NoReturn:
    """Wait for an assignment, carry it out, and leave. Signals are blocked on entry, or are blocked here."""
    try:
        _run(boot)
    # Nothing may unwind into the loader's frames. Reached by a fault of ours only, or a signal in the very last moment.
    except BaseException as error:
        exits.report(error)
    finally:
        os._exit(1)


def _run(boot: Boot) -> NoReturn:
    inherited.reset_process()
    inherited.keep_to_this_process(boot.channel_fd, boot.lifeline_fd, boot.slot_table_fd, boot.activity_fd)
    # A fault in C code then shows where in Python it happened; the signal still ends the process, and the host sees it.
    faulthandler.enable(file=2, all_threads=True)
    latch = Latch()
    interrupts = Interrupts(latch)
    channel = Channel(boot.channel_fd, boot.lifeline_fd, latch, interrupts, SlotView(boot.slot_table_fd))
    if boot.is_spare:
        standby.rehearse(boot.lifeline_fd, boot.plugins)
        standby.stand_by(boot.channel_fd, boot.lifeline_fd)
    message = channel.await_assignment()
    if message is None:
        os._exit(0)  # the host has no use for this process, or is dead
    assignment = read_assignment(message)
    if assignment.mark is not None:
        # Before the first line of the library: whatever it starts is known to be this worker's.
        mark.put_on(assignment.mark)
    if assignment.worker.command is not None:
        from bgworker._worker.command import execute

        if assignment.worker.instance:
            os.environ["BGWORKER_INSTANCE"] = str(assignment.worker.instance)
        execute(assignment.worker.command, channel, assignment.notify_socket if assignment.worker.says_when_ready else None)
    this = make_runtime(
        assignment, latch, interrupts, channel, lifeline_fd=boot.lifeline_fd, activity_fd=boot.activity_fd, plugins=boot.plugins
    )
    take_name(assignment.worker.bgw_name)
    extend_path(assignment.python_path)
    runtime.install(this)
    this.activity.start()
    _check_reach(this)
    function = _find_function(this)
    log_records.install()
    # After the import, which may have touched the mask, the handlers, the alarm clock and the wakeup descriptor.
    inherited.stop_alarm()
    interrupts.block()
    interrupts.install()
    latch.arm()
    exits.finish(this, exits.call(this, lambda: _start(this, function)))


def _start(this: Runtime, function: Callable[[Any], Any]) -> None:
    if this.worker.singleton:
        from bgworker._worker import singleton

        try:
            singleton.take_lock(this)
        except HostError as error:
            _fail_to_start(this, error)
    injection.point("worker.start")
    this.watchdog.start()
    this.channel.send({"type": "started", "code": library.code_of(this.worker.bgw_library_name, this.plugins)})
    body(this, function)


def _check_reach(this: Runtime) -> None:
    if this.worker.user is None or this.database is None:
        return
    from bgworker._worker.embedded import check_reach

    try:
        check_reach(this)
    except HostError as error:
        _fail_to_start(this, error)


def _find_function(this: Runtime) -> Callable[[Any], Any]:
    name = this.worker.bgw_library_name
    try:
        return library.resolve(name, this.worker.bgw_function_name, this.plugins)
    except PluginError as error:
        _fail_to_start(this, error)
    # A fault of ours, or metadata of a kind that nobody has thought of: the host must hear of it all the same.
    except Exception as error:
        failure = PluginError(f'could not load library "{name}": {type(error).__name__}: {error}')
        failure.__cause__ = error
        _fail_to_start(this, failure)


def body(this: Runtime, function: Callable[[Any], Any]) -> None:
    """Call the worker's function as what it turns out to be, and wait for what it leaves behind."""
    # By value (C11): what the function does to its argument does not show in my_bgworker_entry().
    result = function(copy.deepcopy(this.worker.bgw_main_arg))
    # Asked of the result and not of the function: a decorator in between may hide what it wraps.
    if isinstance(result, CoroutineType):
        from bgworker._worker.async_main import run_async

        run_async(this, result)
    exits.join_threads()


def _fail_to_start(this: Runtime, error: HostError) -> NoReturn:
    """Tell host and log why there is nothing to run (C10), and leave with code 1."""
    cause = error.__cause__ or error
    if cause is not error:
        exits.report(cause)
    write("".join(f"{line}\n" for line in [error.lines()[0].replace("ERROR", "FATAL", 1), *error.lines()[1:]]))
    text = "".join(traceback.format_exception(cause))
    this.interrupts.leave()
    this.channel.send({"type": "start_failed", "error": error.to_dict(), "traceback": text[-_MAX_TRACEBACK:]})
    exits.finish(this, 1)
