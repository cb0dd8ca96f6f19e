"""The chain of reasons behind one worker's state: sentences, its exits, and what to do next.

Pure: takes a status, records of the history and names from workers.toml, gives an Explanation.
Reads a status of a newer host, and records that older ones wrote: a missing key is an unknown fact.
Only ``why`` uses this room.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from bgworker import _code
from bgworker._spec import is_number
from bgworker.tui.health import SCALED_AWAY, held_by, is_failure, needs_more_memory, slots_of
from bgworker.tui.words import clean, exact_duration, how_it_ended, instant, size

Record = dict[str, Any]

#: How far back failures are counted, in seconds.
_RECENT: Final = 3600.0
#: No number of a record is greater: bytes of memory, or seconds.
_GREATEST: Final = float(1 << 62)
#: Exits that are listed.
MAX_EXITS: Final = 10
#: Workers that one chain goes through, so that a circle ends.
_LONGEST_CHAIN: Final = 8
_OOM_HINT: Final = "Give the worker less to hold in memory, or the machine (or control group) more."


@dataclass
class Explanation:
    """What is known of one worker."""

    bgw_name: str
    #: slot.generation; empty for a worker that has never had a slot.
    handle: str = ""
    #: A slot's state, or finished, rejected, disabled, not_registered, or down with the host.
    state: str = ""
    #: Sentences, each the reason of the one before it, or a fact about it.
    chain: list[str] = field(default_factory=list)
    #: RFC 3339; when it is started again.
    restart_at: str | None = None
    #: Records of the history, the latest first.
    exits: list[Record] = field(default_factory=list)
    #: What a human can do.
    advice: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON values."""
        return {"format": 1, **vars(self)}


def of_slot(slot: Record, status: Record, exits: Sequence[Record], now: float) -> Explanation:
    """Explain a registered worker."""
    name = str(slot.get("bgw_name") or "")
    found = Explanation(name, f"{slot.get('slot')}.{slot.get('generation')}", str(slot.get("state") or ""))
    found.chain = _chain(slot, status, now, [])
    if _code.is_old(slot):
        found.chain.append(f"It runs old code: {clean(_code.in_words(slot['config']['code']))}.")
    found.restart_at = slot.get("restart_at")
    _add_exits(found, exits, now, slot.get("last_exit"))
    quoted = shlex.quote(clean(name))
    last_exit = slot.get("last_exit")
    if _code.is_old(slot):
        found.advice.append(f"Restart it with the new code: bgworker upgrade {quoted}")
    if found.state == "started":
        return found
    if (restart_at := instant(found.restart_at)) is not None and restart_at > now + 1:
        found.advice.append(f"Start it now, without waiting: bgworker start {quoted}")
    if is_failure(last_exit) or str(slot.get("reason") or "").startswith("failed to start"):
        found.advice.append(f"Read all that it wrote: bgworker logs {quoted}")
    if "waits for the database" in str(slot.get("reason") or ""):
        found.advice.append("See how the database is: bgworker status; its log, if it is embedded: log/postgresql.log")
    return found


def of_finished(over: Record, exits: Sequence[Record], now: float, *, is_static: bool) -> Explanation:
    """Explain a worker whose registration is over while the host runs."""
    name = str(over.get("bgw_name") or "")
    found = Explanation(name, f"{over.get('slot')}.{over.get('generation')}", "finished")
    reason = clean(over.get("reason")) or how_it_ended(over.get("last_exit")) or "no reason was given"
    found.chain.append(f'Background worker "{clean(name)}" ({found.handle}) is over: {_sentence(reason)}')
    _add_exits(found, exits, now, over.get("last_exit"))
    quoted = shlex.quote(clean(name))
    if reason.startswith(SCALED_AWAY):
        of, _, number = clean(name).rpartition("-")
        found.advice.append(f"Bring it back: bgworker scale {shlex.quote(of)} {number}")
    elif is_static:
        found.advice.append(f"Start it: bgworker start {quoted}")
    else:
        found.chain.append("It was registered dynamically, and its registration ended with it.")
        found.advice.append("Whoever registered it has to register it again, as with: bgworker register")
    if is_failure(over.get("last_exit")):
        found.advice.append(f"Read all that it wrote: bgworker logs {quoted}")
    return found


def of_rejected(rejected: Record, status: Record) -> Explanation:
    """Explain a worker of workers.toml that the host could not register."""
    name = str(rejected.get("bgw_name") or "")
    found = Explanation(name, state="rejected")
    found.chain.append(f'Background worker "{clean(name)}" is not registered: {_sentence(rejected.get("error"))}')
    if (holders := held_by(status)) and "too many background workers" in str(rejected.get("error")):
        found.chain.append(f"The slots are held by {holders}.")
        found.advice.append("Raise [host] max_worker_processes and start the host again, or terminate workers and reload.")
    else:
        found.advice.append("Correct workers.toml, look at it with: bgworker check; then: bgworker reload")
    return found


def of_past(name: str, records: Sequence[Record], status: Record, now: float) -> Explanation:
    """Explain a worker that only the history knows: it is over for long, or the host is down.

    Args:
        name: The worker's.
        records: Of this worker, the latest first, starts included; not empty.
        status: Of the host, or of its files.
        now: Wall clock.
    """
    latest = records[0]
    host = status.get("host") or {}
    is_down = host.get("state") == "down"
    found = Explanation(name, f"{latest.get('slot')}.{latest.get('generation')}", "down" if is_down else "finished")
    who = f'Background worker "{clean(name)}" ({found.handle})'
    if is_down:
        found.chain.append(f"{who} is not running: the host is down.")
        found.chain += host_is_down(host, now)
    if latest.get("event") == "started":
        found.chain.append(f"It was running when its host was killed; it had started at {clean(latest.get('at'))}.")
    elif not is_down:
        found.chain.append(f"{who} is over, and its registration with it.")
    _add_exits(found, [record for record in records if record.get("event") == "exited"], now, None)
    if is_down:
        found.advice.append("Start the host: bgworker run")
    return found


def of_table(name: str, status: Record, now: float, *, is_enabled: bool) -> Explanation:
    """Explain a worker that stands in workers.toml and nowhere else."""
    title = f'Background worker "{clean(name)}"'
    if not is_enabled:
        found = Explanation(name, state="disabled")
        found.chain.append(f"{title} is switched off: workers.toml says enabled = false.")
        found.advice.append("Take enabled = false out of workers.toml, then: bgworker reload")
        return found
    host = status.get("host") or {}
    if host.get("state") == "down":
        found = Explanation(name, state="down")
        found.chain += [f"{title} is not running: the host is down.", *host_is_down(host, now)]
        found.advice.append("Start the host: bgworker run")
        return found
    found = Explanation(name, state="not_registered")
    found.chain.append(f"{title} stands in workers.toml, but the host has not registered it.")
    if host.get("state") == "starting":
        found.chain.append("The host is starting: it has not put workers.toml into effect yet.")
    else:
        found.chain.append("The host has not read the file since the worker was written there, or belongs to another file.")
        found.advice.append("Put the file into effect: bgworker reload")
    return found


def host_is_down(host: Record, now: float) -> list[str]:
    """Return since when a host is down, and its last words."""
    sentences = []
    if (at := instant(host.get("since"))) is not None:
        sentences.append(f"The host is down since {clean(host['since'])}, {exact_duration(now - at)} ago.")
    if host.get("end"):
        sentences.append(f"It {_sentence(host['end'])}")
    if host.get("last_words"):
        sentences.append(f"The last line of its log: {clean(host['last_words'])}")
    return sentences


def _chain(slot: Record, status: Record, now: float, seen: list[str]) -> list[str]:
    """Return why this worker is as it is, then the same of those that it waits for."""
    name = str(slot.get("bgw_name") or "")
    who = f'Background worker "{clean(name)}" ({slot.get("slot")}.{slot.get("generation")})'
    reason = clean(slot.get("reason"))
    if slot.get("state") == "started":
        at = instant(slot.get("started_at"))
        since = "" if at is None else f" since {clean(slot['started_at'])}, {exact_duration(now - at)}"
        sentences = [f"{who} runs{since}, PID {slot.get('pid')}."]
        if reason:
            sentences.append(_sentence(reason))
        if restarts := slot.get("restarts"):
            sentences.append(f"It was started again {restarts} time{'' if restarts == 1 else 's'} in this registration.")
        return sentences
    act = "is on its way out" if slot.get("state") == "terminating" else "is not running"
    sentences = [f"{who} {act}: {_sentence(reason or how_it_ended(slot.get('last_exit')) or 'no reason was given')}"]
    if (at := instant(slot.get("restart_at"))) is not None:
        act = "run" if (slot.get("config") or {}).get("schedule") else "try"
        sentences.append(f"The next {act} is {f'in {exact_duration(at - now)}' if at > now else 'due now'}.")
    sentences += _database(status, reason)
    seen.append(name)
    for other in _awaited(slot, status):
        if str(other.get("bgw_name")) not in seen and len(seen) < _LONGEST_CHAIN:
            sentences += _chain(other, status, now, seen)
    return sentences


def _database(status: Record, reason: str) -> list[str]:
    """Return how the database is, where it is what a worker waits for and the reason does not say so already."""
    database = (status.get("host") or {}).get("database")
    if "waits for the database" not in reason or not isinstance(database, dict):
        return []
    phase, detail = clean(database.get("phase")).replace("_", " "), clean(database.get("detail"))
    if detail and detail.rstrip(".") in reason:
        detail = ""
    return [f"The {clean(database.get('kind'))} database is in phase {phase}{f': {detail}' if detail else ''}."]


def _awaited(slot: Record, status: Record) -> list[Record]:
    """Return the workers that this one is to start after and that its reason names."""
    after = (slot.get("config") or {}).get("after")
    names = {str(each).rpartition(":")[0] or str(each) for each in after} if isinstance(after, list) else set()
    reason = str(slot.get("reason") or "")
    return [other for other in slots_of(status) if (name := str(other.get("bgw_name"))) in names and name in reason]


def _add_exits(found: Explanation, exits: Sequence[Record], now: float, last_exit: Any) -> None:
    """Add the exits, and the sentences about the last one and about how many there were."""
    found.exits = list(exits[:MAX_EXITS])
    if not exits:
        # The history is not there, or was put aside long ago; status knows this much.
        if how := how_it_ended(last_exit):
            found.chain.append(f"Its last exit: {_sentence(how)}")
        return
    latest = exits[0]
    found.chain.append(f"Its last life ended {_ago(latest, now)}: {_sentence(told(latest))}")
    if asker := asked_by(latest):
        found.chain.append(asker)
    if needs_more_memory(latest):
        found.advice.append("Raise its max_memory: it needs more than that from its start, and is stopped again and again.")
    if latest.get("oom_kill"):
        found.chain.append("The kernel's OOM killer was at work at that moment: it may have been out of memory.")
        found.advice.append(_OOM_HINT)
    failures = [record for record in exits if is_failure(record) and not record.get("was_requested")]
    recent = [record for record in failures if (at := instant(record.get("at"))) is not None and now - at < _RECENT]
    if len(recent) > 1:
        found.chain.append(f"It has failed {len(recent)} times within the last hour.")


def told(record: Record) -> str:
    """Return how a life ended and how long it was."""
    uptime = record.get("uptime")
    lived = f", after {exact_duration(uptime)}" if _is_plausible(uptime) else ""
    return f"{how_it_ended(record) or 'it is not known how'}{lived}"


def asked_by(record: Record) -> str:
    """Return who asked for an exit, as a sentence; nothing if nobody did."""
    asked = record.get("asked_by")
    if not isinstance(asked, dict):
        return ""
    match asked.get("who"):
        case "worker":
            who = f"background worker {clean(asked.get('worker'))}"
        case "operator" | "shutdown" if "uid" in asked:
            who = f"user id {clean(asked.get('uid'))} over the control socket"
        case "reload" | "crash" | "database" as rule:
            who = {"reload": "a reload", "crash": "the crash of another worker", "database": "its stop_when"}[rule]
        case _:
            return ""
    pid = f" (PID {clean(asked['pid'])})" if asked.get("pid") else ""
    return f"That was asked for by {who}{pid}."


def used(record: Record) -> str:
    """Return what a life used, and the versions it ran."""
    parts = []
    usage, versions = record.get("usage"), record.get("versions")
    if isinstance(usage, dict):
        user, system, most = (n if _is_plausible(n := usage.get(key)) else 0.0 for key in ("user", "system", "max_rss"))
        parts.append(f"processor time {exact_duration(user + system)}, memory at most {size(most)}")
    if isinstance(versions, dict):
        parts += [clean(versions["library"])] if versions.get("library") else []
        parts.append(f"bgworker {clean(versions.get('bgworker'))}")
    return ", ".join(parts)


def _is_plausible(value: Any) -> TypeGuard[float]:
    """Whether it is a number that can be shown: a file that somebody has been at may hold anything."""
    return is_number(value) and 0 <= value <= _GREATEST


def _ago(record: Record, now: float) -> str:
    at = instant(record.get("at"))
    return "at an unknown time" if at is None else f"{exact_duration(now - at)} ago"


def _sentence(text: Any) -> str:
    return f"{clean(text).rstrip('.')}."
