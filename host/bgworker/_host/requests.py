"""What clients and workers may ask: one function per method, in a fixed table.

No name that arrives is ever looked up anywhere but in this table. A method gets the host,
the caller, the request's id and its parameters; it returns the result, or nothing when the
answer comes later. A request never blocks: waits are remembered and answered when they end.
"""

from __future__ import annotations

import difflib
import os
import shlex
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bgworker._control.protocol import Message, reply
from bgworker._core import reasons
from bgworker._core.slots import Slot
from bgworker._core.states import Origin, ShutdownMode, SlotState
from bgworker._host import rights, waits
from bgworker._host import scale as scaling
from bgworker._host.after import check_after
from bgworker._host.callers import Caller
from bgworker._host.status import exit_view
from bgworker._spec import is_number, printable, sanity_check, worker_from_dict
from bgworker.errors import ConfigurationError, HostError, PermissionDenied, ProtocolError, RegistrationError, WorkerNotFound

if TYPE_CHECKING:
    from bgworker._host.host import Host

Params = dict[str, Any]
#: Answered later, or answered by the method itself.
LATER: Final = object()
#: Unanswered waits of one caller: one for each worker that it could have registered, and no host's memory in them.
MAX_WAITS: Final = 4096
#: Longest name of anything in a request, in characters; names of workers are shorter.
_MAX_NAME: Final = 1000
#: Waits longer than a year are answered as if they had no end.
_LONGEST_WAIT: Final = 366 * 86_400.0


def serve(host: Host, caller: Caller, message: Message) -> None:
    """Serve one message of a caller; whatever it holds, the caller gets an answer and the host goes on."""
    request_id = message.get("id")
    if not isinstance(request_id, int | str) or isinstance(request_id, bool):
        # Not sent back: what can be read as JSON (1e400 is infinite) cannot always be written as JSON.
        caller.refuse(
            None, ProtocolError("request has no usable id", message_hint="Give each request an id: a whole number or a string.")
        )
        return
    try:
        method, params = message.get("method"), message.get("params", {})
        if not isinstance(method, str) or method not in METHODS:
            raise ProtocolError(
                f'"{printable(str(method))[:60]}" is not a method', message_hint=f"The methods are {', '.join(sorted(METHODS))}."
            )
        if not isinstance(params, dict):
            raise ProtocolError("params is not an object")
        rights.check(caller, method, lambda: _is_about_own(host, caller, method, params))
        result = METHODS[method](host, caller, request_id, params)
        if result is not LATER:
            caller.reply(request_id, result)
    except HostError as error:
        caller.refuse(request_id, error)
    # A mistake of ours in one request costs this request. The host's own contradictions (AssertionError) stay deadly.
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError):
        import traceback  # not before: every import holds up a host that executes itself anew

        host.log(
            "ERROR", f'internal error while serving request "{printable(str(message.get("method")))[:60]}"', traceback.format_exc()
        )
        caller.refuse(request_id, HostError("internal error of the host", "The request was given up; the host's log says where."))


def _text(params: Params, key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f'parameter "{key}" is missing or not a string')
    if len(value) > _MAX_NAME:
        raise ProtocolError(f'parameter "{key}" is too long', f"It has {len(value)} characters, at most {_MAX_NAME} are allowed.")
    return value


def find(host: Host, name: str) -> Slot:
    """Return the one slot in use that answers to a name, a slot number or slot.generation.

    Raises:
        WorkerNotFound: None does, or several do.
    """
    in_use = [slot for slot in host.machine.slots if slot.state is not SlotState.FREE and slot.worker is not None]
    found = [slot for slot in in_use if slot.worker is not None and slot.worker.bgw_name == name]
    if not found:
        head, dot, tail = name.partition(".")
        if head.isascii() and head.isdigit() and (not dot or (tail.isascii() and tail.isdigit())):
            found = [slot for slot in in_use if slot.slotno == int(head) and (not dot or slot.generation == int(tail))]
    if len(found) == 1:
        return found[0]
    shown = printable(name)
    if found:
        handles = ", ".join(f"{slot.slotno}.{slot.generation}" for slot in found)
        raise WorkerNotFound(
            f'background worker name "{shown}" is ambiguous',
            f"It is the name of {handles}.",
            "Name one by its slot.generation.",
        )
    if (over := host.finished.find(name)) is not None:
        raise _finished_error(host, over)
    names = [slot.worker.bgw_name for slot in in_use if slot.worker is not None]
    names += [str(view["bgw_name"]) for view in host.finished.view()]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'The nearest is "{printable(near[0])}".' if near else "List the workers with: bgworker status --all"
    raise WorkerNotFound(f'background worker "{shown}" does not exist', message_hint=hint)


def _finished_error(host: Host, over: dict[str, Any]) -> WorkerNotFound:
    """Return the error for a worker that holds no slot any more, with why not."""
    name, reason = str(over["bgw_name"]), printable(str(over["reason"]))
    words = shlex.quote(printable(name))
    way_back = f"Start it with: bgworker start {words}. " if name in host.static else ""
    if reason.startswith(reasons.BY_SCALE):
        of, _, number = printable(name).rpartition("-")
        way_back = f"Bring it back with: bgworker scale {shlex.quote(of)} {number}. "
    return WorkerNotFound(
        f'background worker "{printable(name)}" is finished',
        f"{reason[:1].upper()}{reason[1:]}." if reason else "",
        f"{way_back}How it came to that: bgworker why {words}",
    )


def _handle(text: str) -> tuple[int, int]:
    slotno, _dot, generation = text.partition(".")
    if not (slotno.isascii() and slotno.isdigit() and generation.isascii() and generation.isdigit()) or len(text) > 30:
        raise ProtocolError(f'"{printable(text)[:40]}" is not a handle', "A handle is written slot.generation.")
    return int(slotno), int(generation)


def _handle_or_find(host: Host, text: str) -> tuple[int, int]:
    try:
        slotno, generation = _handle(text)
    except ProtocolError:
        slot = find(host, text)
        return slot.slotno, slot.generation
    if slotno >= len(host.machine.slots):
        raise WorkerNotFound(f'handle "{printable(text)}" names a slot that does not exist')
    return slotno, generation


def _is_about_own(host: Host, caller: Caller, method: str, params: Params) -> bool:
    """Whether the worker that the request names is the caller itself, or was registered by it; also one that is over."""
    try:
        if method in ("wait", "last_exit"):
            slotno, generation = _handle_or_find(host, _text(params, "handle"))
        elif method == "terminate":
            slotno, generation = _handle_or_find(host, _text(params, "name"))
        elif method in ("find", "restart", "start", "signal"):
            slot = find(host, _text(params, "name"))
            slotno, generation = slot.slotno, slot.generation
        else:
            return False
    except WorkerNotFound:
        if rights.Right.VIEW in caller.grants.rights:
            raise
        return False  # it may not know what there is, nor what is near
    key = (slotno, generation)
    if caller.worker is None:
        return key in caller.registered
    own = caller.worker.life[:2]
    slot = host.machine.slots[slotno]
    is_over = slot.generation != generation or slot.state is SlotState.FREE
    return is_over or key == own or host.registrars.get(key) == own


def ping(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Answer, which shows that the host's loop turns."""
    return {}


def status(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Return the object of design section 7; encoded from parts that are kept."""
    caller.connection.send_line(host.status_line(request_id))
    return LATER


def register(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Register a dynamic background worker (C03, C33)."""
    worker = rights.passed_on(caller, worker_from_dict(params.get("worker")))
    worker = sanity_check(worker, is_dynamic=True, has_database=host.has_database)
    rights.check_registration(caller, worker)
    rights.check_identity(host.own_identity, worker)
    if params.get("if_absent"):
        for slot in host.machine.slots:
            if slot.state is not SlotState.FREE and slot.worker is not None and slot.worker.bgw_name == worker.bgw_name:
                return {"handle": f"{slot.slotno}.{slot.generation}"}
    check_after(host, worker)
    slot = host.register(worker, Origin.DYNAMIC, caller)
    # The turn's end launches it. The answer comes first: a worker that is told to begin takes the processor from the host.
    return {"handle": f"{slot.slotno}.{slot.generation}"}


def terminate(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Terminate a worker (C35); one that has gone already is no error when named by its handle."""
    name = _text(params, "name")
    slotno, generation = _handle_or_find(host, name)
    by_operator = bool(params.get("by_operator"))
    # A program may hold the handle of a host before this one; a person has mistyped it.
    if by_operator and not 1 <= generation <= host.machine.slots[slotno].generation:
        raise WorkerNotFound(
            f"there is no background worker {printable(name)}, and never was one",
            message_hint="List the workers with: bgworker status --all",
        )
    if host.machine.slots[slotno].generation == generation:
        host.askers.note((slotno, generation), caller)
        host.apply(host.machine.terminate(slotno, generation, time.monotonic(), by_operator=by_operator))
    return {"handle": f"{slotno}.{generation}"}


def start(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Bring a restart forward, or revive a static worker that has finished."""
    name = _text(params, "name")
    try:
        slot = find(host, name)
    except WorkerNotFound:
        static = host.static.get(name)
        if static is None:
            raise
        # As it is configured now: a reload may have changed it while it was down, and the next one must find it.
        slot = host.register(static.worker, Origin.STATIC, None)
        static.slotno, static.generation = slot.slotno, slot.generation
        host.finished.discard(name)
    # One that is new starts at once by itself, unless it has a schedule.
    host.apply(host.machine.start(slot.slotno, slot.generation, time.monotonic()))
    return {"handle": f"{slot.slotno}.{slot.generation}"}


def restart(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Stop a worker and start it again, whatever its restart time and exit code."""
    slot = find(host, _text(params, "name"))
    host.askers.note((slot.slotno, slot.generation), caller)
    host.apply(host.machine.restart(slot.slotno, slot.generation, time.monotonic()))
    return {"handle": f"{slot.slotno}.{slot.generation}"}


def send_signal(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Send a signal to a worker's process."""
    slot = find(host, _text(params, "name"))
    name = _text(params, "signal").upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name not in signal.Signals.__members__:
        raise ProtocolError(
            f'"{printable(name)[:40]}" is not a signal', message_hint="Use a name as kill -l lists it, such as SIGUSR1."
        )
    if slot.pid is None:
        raise WorkerNotFound(f'background worker "{find_name(slot)}" has no process to signal', slot.reason)
    host.signal(slot.pid, signal.Signals[name], whole_session=False)
    return {"handle": f"{slot.slotno}.{slot.generation}", "pid": slot.pid}


def find_name(slot: Slot) -> str:
    """Return the slot's worker's name for a message."""
    return printable(slot.worker.bgw_name) if slot.worker else ""


def find_worker(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Resolve a name to a handle."""
    slot = find(host, _text(params, "name"))
    return {"handle": f"{slot.slotno}.{slot.generation}", "bgw_name": find_name(slot), "pid": slot.pid}


def wait(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Answer when the worker has started, or has gone (C36, C37)."""
    text = _text(params, "handle")
    slotno, generation = _handle_or_find(host, text)
    target, timeout = params.get("for"), params.get("timeout")
    if target not in ("startup", "shutdown"):
        raise ProtocolError('parameter "for" must be "startup" or "shutdown"')
    if timeout is not None and not (is_number(timeout) and timeout >= 0):
        raise ProtocolError('parameter "timeout" must be seconds, or null')
    if host.waits.count_of(caller) >= MAX_WAITS:
        raise HostError(
            "too many unanswered waits", f"A connection may have {MAX_WAITS}.", "Let some end, or close the connection."
        )
    slot = host.machine.slots[slotno]
    end = waits.answer(slot, generation, target, host.finished.reason(slotno, generation))
    if end is not None:
        return end
    name = slot.worker.bgw_name if slot.worker is not None else text
    deadline = None if timeout is None or timeout > _LONGEST_WAIT else time.monotonic() + timeout
    host.waits.add(wait_of(caller, request_id, slotno, generation, target, deadline, f'background worker "{printable(name)}"'))
    return LATER


def wait_of(
    caller: Caller, request_id: Any, slotno: int, generation: int, target: str, deadline: float | None, describe: str
) -> waits.Wait:
    """Return the wait of a caller, which is answered over its connection."""
    return waits.Wait(
        caller,
        slotno,
        generation,
        target,
        deadline,
        lambda result: caller.reply(request_id, result),
        lambda error: caller.refuse(request_id, error),
        describe,
        request_id,
    )


def last_exit(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Return how the worker's last life ended, or null."""
    slotno, generation = _handle_or_find(host, _text(params, "handle"))
    slot = host.machine.slots[slotno]
    if slot.generation == generation and slot.state is not SlotState.FREE:
        return {"last_exit": exit_view(slot.last_exit)}
    return {"last_exit": exit_view(host.finished.last_exit(slotno, generation))}


def reload(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Read the configuration anew; answered when it is in effect, or with what is wrong with it."""
    _check_is_meant(host, params)
    host.reload(_answer(caller, request_id))
    return LATER


def plan(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Say what a reload would do, and do nothing."""
    _check_is_meant(host, params)
    host.plan(_answer(caller, request_id))
    return LATER


def _check_is_meant(host: Host, params: Params) -> None:
    """Refuse a request that means another file than the one that this host reads.

    Raises:
        ConfigurationError: It does; a reload would not look at that file.
    """
    meant = params.get("config_path")
    if meant is None or meant == host.config_path:
        return
    if not isinstance(meant, str):
        raise ProtocolError('parameter "config_path" is not a string')
    runs = f'"{printable(host.config_path)}"' if host.config_path is not None else "no configuration file"
    raise ConfigurationError(
        f'this host does not run "{printable(meant)[:200]}"',
        f"It runs {runs}.",
        "Leave out -c. What a host would make of another file is printed by: bgworker check -c FILE",
    )


def scale(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Have another number of instances of a static worker."""
    count = params.get("count")
    if not isinstance(count, int) or isinstance(count, bool):
        raise ProtocolError('parameter "count" is missing or not a whole number')
    started, stopped = scaling.scale(host, caller, _text(params, "name"), count)
    return {"started": started, "stopped": stopped}


def upgrade(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Load the plugins anew; answered when births have the new code. Whoever asks restarts the workers, in his own order."""
    host.upgrade(_answer(caller, request_id))
    return LATER


def reexec(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Execute the host anew, as it is installed now; answered by the host that goes on, or with what is wrong."""
    _refuse_to_workers(caller, "execute its host anew", "reexec")
    host.reexec.begin(caller, request_id)
    return LATER


def _refuse_to_workers(caller: Caller, what: str, command: str) -> None:
    # The launcher has every right of the host's user, and runs plugins' hooks.
    if caller.worker is not None:
        raise RegistrationError(
            f"a background worker cannot {what}", message_hint=f"From outside, an operator can: bgworker {command}"
        )


def _answer(caller: Caller, request_id: Any) -> Callable[[dict[str, Any] | HostError], None]:
    """Return what answers a request once its result, or what is wrong, is known."""

    def done(result: dict[str, Any] | HostError) -> None:
        if isinstance(result, HostError):
            caller.refuse(request_id, result)
        else:
            caller.reply(request_id, result)

    return done


def stop(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Shut the host down (C39); the connection closes when it is gone."""
    mode = params.get("mode", "fast")
    if mode not in ("smart", "fast", "immediate"):
        raise ProtocolError('parameter "mode" must be "smart", "fast" or "immediate"')
    _refuse_to_workers(caller, "stop its host", "stop")
    host.askers.note_shutdown(caller)
    caller.reply(request_id, {"mode": mode})
    # For the log: whoever finds the host down asks who wanted that.
    host.begin_shutdown(ShutdownMode[mode.upper()], f"shutting down because user id {caller.uid} (PID {caller.pid}) asked for it")
    return LATER


def events(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Subscribe to events from now on; with ``notifications`` also to what wakes workers."""
    notifications = params.get("notifications", False)
    if not isinstance(notifications, bool):
        raise ProtocolError('parameter "notifications" must be true or false')
    if notifications and caller.is_confined and caller.worker is not None and not caller.worker.worker.is_database_worker:
        raise PermissionDenied(
            'permission denied for "notifications": the worker has a user of its own and no database connection',
            "Notifications have payloads, which are the database's.",
            "Give it BGWORKER_BACKEND_DATABASE_CONNECTION, or leave notifications out.",
        )
    caller.is_subscribed = True
    host.callers.overhear(caller, notifications)
    return {}


def settings(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Return the raw settings tables as last accepted; for workers, which never open a file of the host."""
    if caller.worker is None:
        raise ProtocolError("only background workers may ask for settings")
    return {"settings": host.settings}


def ready_done(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Take the launcher's word that a plugin's bgworker_ready hook has run."""
    if not host.is_launcher(caller):
        raise ProtocolError("only the launcher may say this")
    host.ready_done.add(_text(params, "plugin"))
    return {}


def open_database(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Have a database that allows no connections opened for the worker's one connection (C18); for database workers."""
    worker = None if caller.worker is None else host.machine.slots[caller.worker.life.slotno].worker
    if worker is None or not worker.is_database_worker or host.database is None:
        raise PermissionDenied("only background workers with a database connection may ask for this")
    host.database.openings.ask(caller, request_id, _text(params, "database"), worker.bgw_name)
    return LATER


def close_database(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Take the worker's word that it has connected, or has given up."""
    if host.database is not None:
        host.database.openings.over(caller)
    return {}


def attach_segment(host: Host, caller: Caller, request_id: Any, params: Params) -> Any:
    """Give a worker the descriptor of a shared memory segment; the attachment is known before the worker can map it (C31)."""
    assert caller.worker is not None, "rights lets nobody else through"
    size = params.get("size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool)):
        raise ProtocolError('parameter "size" must be a whole number of bytes, or null')
    segment, size, fd = host.segments.open(_text(params, "name"), size)
    try:
        host.apply(host.machine.attach(*caller.worker.life, segment, time.monotonic()))
    except HostError:
        os.close(fd)
        raise
    result = {"name": segment.name, "size": size, "generation": segment.generation}
    caller.connection.hand_over(reply(request_id, result), fd)
    return LATER


METHODS: Final[dict[str, Callable[[Any, Caller, Any, Params], Any]]] = {
    "ping": ping,
    "status": status,
    "register": register,
    "terminate": terminate,
    "start": start,
    "restart": restart,
    "signal": send_signal,
    "find": find_worker,
    "wait": wait,
    "last_exit": last_exit,
    "reload": reload,
    "plan": plan,
    "upgrade": upgrade,
    "scale": scale,
    "reexec": reexec,
    "stop": stop,
    "events": events,
    "settings": settings,
    "ready_done": ready_done,
    "open_database": open_database,
    "close_database": close_database,
    "attach_segment": attach_segment,
}
