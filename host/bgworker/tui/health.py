"""What needs a human, and which workers a name means: judgements on the status dict.

Pure: plain dicts in, plain values out; no rich, no clock of its own. ``status --json`` imports
it on its fast path, so it must stay cheap. Reads status as written by a host that may be
newer than this: a missing key is an absent fact, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

from bgworker.tui.words import clean, exact_duration, how_it_ended, instant, is_success

Status = dict[str, Any]

#: A worker that failed and came back counts as trouble until it has run for this long. Without
#: it, the row of a worker that fails every second would jump up and down once a second.
SETTLE_SECONDS: Final = 30.0

#: For this long the failure of a worker that is over needs a human.
FAILURE_SECONDS: Final = 3600.0

#: How the reason of an exit begins that the host asked for, for whomever; the host writes it, and no worker can.
_AS_ASKED: Final = re.compile(r"(?:exit \d+|signal \d+(?: \([^)]*\))?), as asked: ")
#: In the reason of an exit by max_memory that came at once: the worker needs more than it may have.
_AT_ONCE: Final = " of memory already "
#: Ends the last words of a worker that somebody else told to go (C22), with a SIGTERM that the host knows nothing of.
_ASKED_FOR: Final = "due to administrator command"

#: How the reason of an instance begins that is not wanted any more.
SCALED_AWAY: Final = "scaled away"
#: In the reason of a worker of workers.toml that an operator terminated.
STAYS_DOWN: Final = "until it is started by name"
#: Of an instance, as it ends its name.
_NUMBER: Final = re.compile("[1-9][0-9]*")

#: Holders of slots that one sentence names.
_MAX_HOLDERS: Final = 5

#: How the reason of a singleton worker starts that waits for its lock.
_STANDS_BY: Final = "waits for singleton lock"

#: Phases of a database that can still become read-write by itself are no trouble; this one is none of them.
_LOST_PHASE: Final = "unreachable"


def slots_of(status: Status) -> list[dict[str, Any]]:
    """Return the registered workers, by slot."""
    return sorted((s for s in status.get("slots") or () if isinstance(s, dict)), key=lambda s: int(s.get("slot") or 0))


def is_failure(last_exit: Any) -> bool:
    """Whether an exit was one that somebody should know of: no success, and nobody asked for it."""
    reason = str(last_exit.get("reason") or "") if isinstance(last_exit, dict) else ""
    if not isinstance(last_exit, dict) or _AS_ASKED.match(reason) or _ASKED_FOR in reason:
        return False
    code = last_exit.get("code")
    return last_exit.get("signal") is not None or (code is not None and not is_success(code, reason))


def needs_more_memory(last_exit: Any) -> bool:
    """Whether a worker was recycled by its max_memory soon after its start, which will go on."""
    reason = str(last_exit.get("reason") or "") if isinstance(last_exit, dict) else ""
    return _AS_ASKED.match(reason) is not None and _AT_ONCE in reason


def is_unsettled(slot: dict[str, Any], now: float) -> bool:
    """Whether a started worker failed so recently that nobody can say yet that it is well."""
    last_exit = slot.get("last_exit")
    started_at = instant(slot.get("started_at"))
    if started_at is None or now - started_at >= SETTLE_SECONDS:
        return False
    if needs_more_memory(last_exit):
        return True
    if not is_failure(last_exit):
        return False
    return not _came_back_on_request(slot, started_at)


def _came_back_on_request(slot: dict[str, Any], started_at: float) -> bool:
    """Whether an exit with code 1 was followed by a start before its time: somebody asked for both, or for the start.

    Status does not say who wanted an exit, and a worker that is told to go exits with code 1
    (C22). Only its restart time tells: the host itself never cuts that short (C30).
    """
    last_exit = slot.get("last_exit") or {}
    ended_at, restart_time = instant(last_exit.get("at")), slot.get("bgw_restart_time")
    if last_exit.get("code") != 1 or ended_at is None:
        return False
    return not isinstance(restart_time, int | float) or started_at - ended_at < restart_time


def stands_by(slot: dict[str, Any]) -> bool:
    """Whether another instance does this worker's work: that is as it should be, however its last life ended."""
    return slot.get("state") != "terminating" and str(slot.get("reason") or "").startswith(_STANDS_BY)


def is_trouble(slot: dict[str, Any], now: float) -> bool:
    """Whether a registered worker needs a human: it failed and is not, or not yet, well again."""
    state = slot.get("state")
    if state == "waiting_restart" and not (stands_by(slot) or str(slot.get("reason") or "").startswith("stopped")):
        # An exit that the host asked for is followed by a restart at once, or by a wait for the database; that is no failure.
        return slot.get("last_exit") is None or is_failure(slot.get("last_exit"))
    return state == "started" and is_unsettled(slot, now)


def has_failed(finished: dict[str, Any]) -> bool:
    """Whether a worker that is over ended in a failure, rather than well or as somebody told it."""
    reason = str(finished.get("reason") or "")
    if is_failure(finished.get("last_exit")):
        return not reason.startswith(("terminated", "stopped", SCALED_AWAY))
    return reason.startswith("failed")


def is_fresh_failure(finished: dict[str, Any], now: float) -> bool:
    """Whether a failure of a worker that is over still needs a human: for an hour.

    There is no command to say "seen", and a job that failed last week must not page for ever.
    """
    if not has_failed(finished):
        return False
    at = instant((finished.get("last_exit") or {}).get("at"))
    return at is None or now - at < FAILURE_SECONDS


def database_trouble(database: Any) -> str:
    """Return what is wrong with the database; empty when nothing is, or there is none."""
    if not isinstance(database, dict) or database.get("phase") != _LOST_PHASE:
        return ""
    return clean(database.get("detail") or "") or "it does not answer"


def troubles(status: Status, now: float) -> list[str]:
    """Return one sentence for each thing that needs a human; none means all is well."""
    found = []
    host = status.get("host") or {}
    if host.get("state") == "stopping":
        found.append("The host is stopping.")
    if wrong := database_trouble(host.get("database")):
        found.append(f"The database cannot be reached: {_as_sentence(wrong)}")
    found += [
        f'Plugin "{clean(p.get("name"))}" is broken: {_as_sentence(p.get("error"))}' for p in status.get("broken_plugins") or ()
    ]
    found += [
        f'Background worker "{clean(r.get("bgw_name"))}" is not registered: {_as_sentence(r.get("error"))}'
        for r in status.get("rejected") or ()
    ]
    found += [_slot_sentence(slot, now) for slot in slots_of(status) if is_trouble(slot, now)]
    for over in status.get("finished") or ():
        if is_fresh_failure(over, now):
            how = how_it_ended(over.get("last_exit")) or over.get("reason")
            found.append(f'Background worker "{clean(over.get("bgw_name"))}" is over: {_as_sentence(how)}')
    return found


def _as_sentence(text: Any) -> str:
    return f"{clean(text).rstrip('.')}."


def _slot_sentence(slot: dict[str, Any], now: float) -> str:
    name = f'Background worker "{clean(slot.get("bgw_name"))}"'
    cause = (how_it_ended(slot.get("last_exit")) or clean(slot.get("reason")) or "no reason was given").rstrip(".")
    if slot.get("state") == "started":
        age = exact_duration(now - (instant(slot.get("started_at")) or now))
        return f"{name} failed and came back {age} ago: {cause}."
    restart_at = instant(slot.get("restart_at"))
    when = "now" if restart_at is None or restart_at <= now else f"in {exact_duration(restart_at - now)}"
    return f"{name} is down: {cause}; it is started again {when}."


def held_by(status: Status) -> str:
    """Return who holds the slots, by type and library, the most first; nothing if nobody does."""
    counts: dict[tuple[str, str], int] = {}
    for slot in slots_of(status):
        key = (clean(slot.get("bgw_type")), clean(slot.get("bgw_library_name")))
        counts[key] = counts.get(key, 0) + 1
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    named = [f"{bgw_type} ({count}, {library})" if library else f"{bgw_type} ({count})" for (bgw_type, library), count in ordered]
    if len(named) > _MAX_HOLDERS:
        rest = sum(count for _, count in ordered[_MAX_HOLDERS:])
        named = [*named[:_MAX_HOLDERS], f"others ({rest})"]
    return ", ".join(named)


def answers_to(entry: dict[str, Any], name: str) -> bool:
    """Whether a slot or a finished worker is meant by NAME: a name, a slot, or ``slot.generation``."""
    return name in (entry.get("bgw_name"), f"{entry.get('slot')}", f"{entry.get('slot')}.{entry.get('generation')}")


def instance_of(slot: dict[str, Any]) -> str:
    """Return the name that an instance shares with the others; empty for a worker that is not one of several."""
    number = (slot.get("config") or {}).get("instance")
    name = str(slot.get("bgw_name") or "")
    return name.removesuffix(f"-{number}") if number and name.endswith(f"-{number}") else ""


def instances_of(status: Status, name: str, configured: Collection[str] = ()) -> list[str]:
    """Return the names of a worker's instances, by number; none where somebody bears the very name, or nobody is an instance.

    Those that are over are among them, because start brings them back; those that were scaled away are not.

    Args:
        status: Of the host, or of its files.
        name: Without a number.
        configured: The names of its instances in workers.toml, if that is known.
    """
    slots = slots_of(status)
    others = [entry for key in ("finished", "rejected") for entry in status.get(key) or () if isinstance(entry, dict)]
    if any(entry.get("bgw_name") == name for entry in (*slots, *others)):
        return []
    found = {str(slot.get("bgw_name")) for slot in slots if instance_of(slot) == name}
    # An entry that is no slot's does not say whether it is an instance, and a dynamic worker may be called so, too.
    is_sure = bool(found or configured) or (status.get("host") or {}).get("state") == "down"
    for entry in others:
        base, _, number = str(entry.get("bgw_name")).rpartition("-")
        reason = str(entry.get("reason") or "")
        if base != name or not _NUMBER.fullmatch(number) or reason.startswith(SCALED_AWAY):
            continue
        if is_sure or STAYS_DOWN in reason:
            found.add(str(entry["bgw_name"]))
    return sorted(found, key=lambda each: int(each.rpartition("-")[2]))


def select(status: Status, names: tuple[str, ...], only_trouble: bool, now: float) -> tuple[Status, list[str]]:
    """Return the status cut down to what was asked for, and the names that mean nobody.

    A name that several workers bear selects them all: where facts are printed, that is the
    list which an act on an ambiguous name is refused with. The name that instances share selects all of them.
    """
    if not names and not only_trouble:
        return status, []
    slots, finished = slots_of(status), list(status.get("finished") or ())
    rejected = list(status.get("rejected") or ())
    missing = []
    if names:
        entries = (*slots, *finished, *rejected)
        meant = {n: [n] if any(answers_to(e, n) for e in entries) else instances_of(status, n) for n in names}
        missing = [n for n in names if not meant[n]]
        chosen = [each for each_meant in meant.values() for each in each_meant]
        slots = [s for s in slots if any(answers_to(s, n) for n in chosen)]
        finished = [f for f in finished if any(answers_to(f, n) for n in chosen)]
        rejected = [r for r in rejected if r.get("bgw_name") in chosen]
    if only_trouble:
        slots = [s for s in slots if is_trouble(s, now)]
        finished = [f for f in finished if is_fresh_failure(f, now)]
    broken = [] if names else status.get("broken_plugins") or []
    return {**status, "slots": slots, "finished": finished, "rejected": rejected, "broken_plugins": broken}, missing
