"""The sentences that status, why and the log show: a cause, then the next act.

Pure: values in, text out. None of them counts down - an instant that passes is told by
``restart_at`` and ``kill_at``, and the sentence stays true until the state changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bgworker._core.record import Slot
from bgworker._core.states import Intent, Origin, Phase
from bgworker._core.timetable import MOST_COUNTED
from bgworker._spec import BackgroundWorker

# Causes: who asked. They are the first half of a reason, and with the exit in brackets the last word on a worker.
BY_OPERATOR = "terminated by an operator"
BY_HANDLE = "terminated through its handle"
BY_SCALE = "scaled away"
BY_SHUTDOWN = "stopped because the host shuts down"
BY_RESTART = "restart requested"
BY_START = "start requested"
BY_REPLACEMENT = "its registration was changed by a reload"

STARTS_AT_ONCE = "starts at once"
STAYS_DOWN = "stays down until it is started by name or the host restarts"
#: Of a worker that runs.
NOT_READY_YET = "started, not ready yet"
_FAILED_TO_START: Final = "failed to start: "

#: How many workers one sentence names.
MAX_NAMES: Final = 5


def seconds(value: float) -> str:
    """Return a duration as people write it: ``10 s``, ``0.1 s``."""
    return f"{value:g} s"


def sentence(reason: str) -> str:
    """Return a reason as a log line's detail: capitalised, with a period."""
    return f"{reason[:1].upper()}{reason[1:]}." if reason else ""


def join(cause: str, act: str) -> str:
    """Return cause and next act as one reason."""
    return f"{cause}; {act}" if cause else act


def phase_lost(needed: Phase) -> str:
    """Return the cause of a stop that a worker asked for with ``stop_when``."""
    return f"stopped because the database {'does not answer' if needed is Phase.CONSISTENT else 'is not read-write'}"


def failed_to_start(error: str) -> str:
    """Return the cause of every start that failed, however it did."""
    return f"{_FAILED_TO_START}{error}"


def is_failed_start(failure: str) -> bool:
    """Whether what is known of a failure is that the start failed; a worker can fail otherwise, by hanging."""
    return failure.startswith(_FAILED_TO_START)


def was_not_ready(timeout: float) -> str:
    """Return why a worker that runs counts as one that did not start."""
    return failed_to_start(f"it was not ready within {seconds(timeout)}")


def without_process(slot: Slot, intent: Intent, cause: str) -> str:
    """Return the last word on a worker that a wish ends while it has no process."""
    if intent is Intent.FORGET:
        awaited = "its next run" if slot.registration.schedule is not None else "its restart"
        ended = f"{cause} {f'while it waited for {awaited}' if slot.attempt else 'before it started'}"
        return after_termination(ended, slot, cause)
    return not_restarted(slot.cause) if slot.attempt else "not started because the host shuts down"


def awaited(live_handles: int, names: Sequence[str]) -> str:
    """Return whom a smart shutdown waits for; nothing if nobody."""
    parts = []
    if live_handles:
        parts.append(f"{live_handles} live handle{'s' if live_handles > 1 else ''} of connections")
    if names:
        parts.append(f"background worker{'s' if len(names) > 1 else ''} {listed(names)}")
    return " and ".join(parts)


def listed(names: Sequence[str]) -> str:
    """Return the names as one sentence has them: the first few, then that there are others."""
    return ", ".join([*names[:MAX_NAMES], *(["others"] if len(names) > MAX_NAMES else [])])


def count(number: int, noun: str) -> str:
    """Return ``1 worker`` or ``7 workers``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def scope(crash_scope: str, names: str, segments: Sequence[str]) -> str:
    """Return why a crash takes others down, and what becomes of them (C31)."""
    if crash_scope == "cluster":
        why = 'crash_scope is "cluster": a crash concerns every worker'
    else:
        quoted = [f'"{segment}"' for segment in segments]
        why = f"They share memory that it may have left half-written: segment{'s' if len(quoted) > 1 else ''} {listed(quoted)}"
    return f"{why}. They are {names}; those that restart start again when all of them are gone."


def stuck(watchdog: float) -> str:
    """Return the cause of the end of a worker that hung."""
    return f"stuck: no progress for {seconds(watchdog)}"


def too_old(max_age: float) -> str:
    """Return the cause of a restart by max_age."""
    return f"recycled: it has run for its max_age, {seconds(max_age)}"


def too_big(used: int, max_memory: int, age: float | None = None) -> str:
    """Return the cause of a restart by max_memory; the age where it is so short that no leak can be at work."""
    # The word "already" tells this from what max_memory is for; tui.health looks for it.
    early = "" if age is None else f" already {seconds(round(age, 1))} after its start"
    return f"recycled: it uses {megabytes(used)} of memory{early}, and its max_memory is {megabytes(max_memory)}"


def megabytes(count: int) -> str:
    """Return bytes as people write them: ``200M``, ``1.5M``, and ``200 bytes`` where somebody forgot the M."""
    if count < 1 << 16:
        return f"{count} byte{'s' if count != 1 else ''}"
    return f"{round(count / (1 << 20), 1):g}M"


def did_not_start(timeout: float) -> str:
    """Return why a launch was given up."""
    return failed_to_start(f"it did not start within {seconds(timeout)}")


def waits_for_phase(needed: Phase, phase: Phase, detail: str) -> str:
    """Return what a worker waits for that may not start in this phase, and what ends the wait."""
    detail = detail.strip().rstrip(".")
    if needed is Phase.CONSISTENT:
        return f"waits for the database to accept connections: {detail or 'it is starting'}; starts when it does"
    if phase is Phase.CONSISTENT:
        return f"waits for the database to be read-write: {detail or 'it is a standby'}; starts on promotion"
    return f"waits for the database to be read-write: {detail or 'it is starting'}; starts when it is"


def waits_for_workers(missing: Sequence[tuple[str, str]]) -> str:
    """Return what a worker waits for that comes after others.

    Args:
        missing: What is waited for, as ``after`` has it, and why it is not there; empty where it may still come by itself.
    """
    parts = []
    for each, absence in missing:
        name = each.rpartition(":")[0]
        parts.append(f"{each} ({name} {absence})" if absence else each)
    return f"waits for {listed(parts)}; starts when {'it is' if len(parts) == 1 else 'they are'}"


def held_for(names: Sequence[str]) -> str:
    """Return why a worker runs on while the host shuts down."""
    quoted = [f'"{name}"' for name in names]
    return f"the host shuts down; stopped when {listed(quoted)} {'is' if len(names) == 1 else 'are'} gone"


def launching(attempt: int, start_timeout: float) -> str:
    """Return the reason of a slot whose process is on its way."""
    tried = f", try {attempt}" if attempt > 1 else ""
    return f"is being launched{tried}; killed as a failed start if it has not started after {seconds(start_timeout)}"


def leaving_after_failure(failure: str, timeout: float) -> str:
    """Return the reason of a worker that said why it cannot start."""
    return join(failure, f"its process ends by itself, or is killed after {seconds(timeout)} at most")


def leaving(slot: Slot) -> str:
    """Return the reason of a slot whose process was told to go."""
    if slot.kill_at is None:
        return join(slot.cause, f"its process was killed and is waited for{_then(slot)}")
    act = "its process was told to go" if slot.pid is not None else "its birth was called off"
    return join(slot.cause, f"{act} and is killed if still there after {seconds(slot.grace)}{_then(slot)}")


def _then(slot: Slot) -> str:
    if slot.intent is Intent.RESTART:
        return ", then starts again"
    # Without an intent this is a start that was given up, or a worker that hung, and its restart rule decides.
    is_start = slot.started_at is None or is_failed_start(slot.failure)
    given_up = ", then counts as a failed start" if is_start else ", then counts as a failure"
    return given_up if slot.intent is None else ""


def reinitialised(name: str, ended: str) -> str:
    """Return the cause of an end that another worker's crash brought (C31)."""
    return f'reinitialised: "{name}" crashed ({ended})'


def guarded(quick_exits: int) -> str:
    """Return why the crash-loop guard made a wait longer."""
    return f"crash-loop guard: {quick_exits} ends in a row within 1 s of the start"


def backed_off(failures: int) -> str:
    """Return why restart_backoff made a wait longer."""
    return f"backoff: {failures} failures in a row"


def restarts(cause: str, delay: float, attempt: int, slowed: str = "", *, is_joint: bool = False) -> str:
    """Return the reason of a worker between two lives.

    Args:
        cause: How the last life ended.
        delay: Seconds from that end to the next launch.
        attempt: The number of the next launch.
        slowed: What made the delay longer than bgw_restart_time, if something did.
        is_joint: Others go down in the same crash, and it starts when all of them are gone.
    """
    act = "restarts at once" if delay <= 0 else f"restarts after {seconds(delay)}"
    if is_joint:
        act += ", when all that the crash ends are gone"
    return join(cause, f"{act}{f' ({slowed})' if slowed else ''}, try {attempt}")


def next_run(cause: str, text: str) -> str:
    """Return the reason of a worker that waits for a time of its schedule; status says how far that is."""
    return join(cause, f"next run at {text}")


def missed(count: int) -> str:
    """Return how many runs a worker has missed, in words."""
    return f"missed {count} run{'' if count == 1 else 's'}{' or more' if count >= MOST_COUNTED else ''}"


def overlaps(text: str) -> str:
    """Return the reason of a worker that should have been done by now."""
    return f"missed the run at {text}: it was still running"


def never_restarted(cause: str) -> str:
    """Return the last word on a worker that failed and has no restart time."""
    return join(cause, "not restarted because bgw_restart_time is BGW_NEVER_RESTART")


def not_restarted(cause: str) -> str:
    """Return the last word on a worker whose next life the shutdown took."""
    return join(cause, "not restarted because the host shuts down")


def after_termination(ended: str, slot: Slot, cause: str) -> str:
    """Return the last word on a terminated worker; only a static one can be revived (C29)."""
    if cause == BY_SCALE:
        return scaled_away(slot.registration, ended)
    if slot.origin is Origin.STATIC and cause == BY_OPERATOR:
        return join(ended, STAYS_DOWN)
    return ended


def scaled_away(worker: BackgroundWorker, ended: str = BY_SCALE) -> str:
    """Return the last word on an instance that is not wanted any more: its name alone does not bring it back."""
    return join(ended, f'comes back when "{worker.instance_of}" is scaled to {worker.instance} or more')
