"""From the status dict to the rows of the view: order, words, folds. Plain data, no drawing.

Pure: the instant is an argument. Order: trouble first, then who waits, then the rest, each
by slot. A row changes its place only when it changes its group, so that rows do not jump.

Folding: ``FOLD_FROM`` healthy workers of one type become one row, ``export (180)``; workers
in trouble, or waiting, for one and the same cause become one row that names the cause.
Everything that others wrote passes ``clean`` here, once: what leaves this file is inert.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bgworker.tui.health import (
    Status,
    database_trouble,
    has_failed,
    held_by,
    is_fresh_failure,
    is_trouble,
    slots_of,
    stands_by,
)
from bgworker.tui.words import clean, duration, how_it_ended, instant

#: Longest state in words: ``restart in 10s`` and ``not registered``; the column is as wide.
STATE_WIDTH: Final = 14
#: From how many rows of one kind on they are folded into one.
FOLD_FROM: Final = 4


class Group(enum.IntEnum):
    """Where a row stands; rows are ordered by it first."""

    TROUBLE = 0
    WAITING = 1
    RUNNING = 2
    FINISHED = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    group: Group
    #: Lowest slot in the row; orders rows within a group.
    slotno: int
    #: ``3.2``; ``.`` for a fold and ``-`` for what never had a slot.
    slot: str
    name: str
    #: What a fold is named after.
    type: str
    #: Words without the countdown and the count: two rows fold only if it is equal.
    state: str
    pids: tuple[int, ...] = ()
    #: Seconds in this state; None when nobody knows.
    age: float | None = None
    restarts: int = 0
    #: What it does, or why it does not.
    why: str = ""
    #: Seconds to the restart, for ``restart in 4s``.
    restart_in: float | None = None
    #: How many workers the row stands for.
    count: int = 1

    @property
    def needs_human(self) -> bool:
        """Whether the row is one to colour."""
        return self.group is Group.TROUBLE

    @property
    def state_words(self) -> str:
        """The state as shown: ``restart in 4s``, ``started x7``."""
        if self.count > 1:
            words = f"{self.state} x{self.count}"
            return words if len(words) <= STATE_WIDTH else self.state  # the name says how many, too
        if self.restart_in is not None and self.restart_in > 0:
            # Rounded up: "restart in 0s" would be a lie for a second.
            return f"restart in {duration(self.restart_in + 0.999)}"
        return self.state

    @property
    def pid_words(self) -> str:
        """The pid, or a dash."""
        return str(self.pids[0]) if self.count == 1 and self.pids else "-"

    @property
    def age_words(self) -> str:
        """The age; that of a fold is its youngest's, marked with a plus."""
        if self.age is None:
            return "-"
        return duration(self.age) + ("+" if self.count > 1 else "")

    @property
    def restarts_words(self) -> str:
        """The restarts; a dash for what has never run."""
        return "-" if self.slot == "-" else str(self.restarts)


@dataclass(frozen=True, slots=True)
class View:
    """One moment of one host, ready to be drawn."""

    state: str
    uptime: float | None
    pid: int | None
    data_directory: str
    slots_in_use: int
    max_worker_processes: int
    database: str
    is_database_lost: bool
    crash_count: int
    #: ``(words, needs a human)`` for the second line: ``1 restarting``, ``10 started``.
    counts: tuple[tuple[str, bool], ...]
    rows: tuple[Row, ...]
    #: Who holds the slots, once there is no free one.
    holders: str = ""


def build(status: Status, now: float, *, shown: Status | None = None, fold: bool = True, show_finished: bool = False) -> View:
    """Return the view of a status dict.

    Args:
        status: As design section 7 has it; missing keys are taken as unknown facts.
        shown: The part of it that gets rows (``health.select``); the head always speaks of the whole.
        now: Seconds since the epoch, the clock that the instants in status were taken from.
        fold: Whether rows of one kind are folded; a pipe and ``--all`` want each by itself.
        show_finished: Whether workers that ended well are listed too.
    """
    host = status.get("host") or {}
    host_started = instant(host.get("started_at"))
    counts = _counts(_rows(status, now, host_started, show_finished))
    rows = _rows(status if shown is None else shown, now, host_started, show_finished)
    if fold:
        rows = _fold(rows)
    database, is_lost = _database_words(host.get("database"))
    is_full = 0 < int(host.get("max_worker_processes") or 0) <= len(slots_of(status))
    return View(
        state=clean(host.get("state") or "?"),
        uptime=None if host_started is None else max(0.0, now - host_started),
        pid=host.get("pid"),
        data_directory=clean(host.get("data_directory") or ""),
        slots_in_use=len(slots_of(status)),
        max_worker_processes=int(host.get("max_worker_processes") or 0),
        database=database,
        is_database_lost=is_lost,
        crash_count=int(host.get("crash_count") or 0),
        counts=counts,
        rows=tuple(sorted(rows, key=lambda row: (row.group, row.slotno, row.name))),
        holders=held_by(status) if is_full else "",
    )


def _rows(status: Status, now: float, host_started: float | None, show_finished: bool) -> list[Row]:
    rows = [_slot_row(slot, now, host_started) for slot in slots_of(status)]
    rows += [_absent_row("not registered", r.get("bgw_name"), r.get("error")) for r in status.get("rejected") or ()]
    rows += [_absent_row("broken plugin", p.get("name"), p.get("error")) for p in status.get("broken_plugins") or ()]
    rows += [_finished_row(f, now) for f in status.get("finished") or () if show_finished or is_fresh_failure(f, now)]
    return rows


_PHASES: Final = {
    "starting": "starting",
    "consistent": "read-only",
    "recovery_finished": "read-write",
    "unreachable": "unreachable",
}


def _database_words(database: Any) -> tuple[str, bool]:
    if not isinstance(database, dict):
        return "none", False
    phase = str(database.get("phase") or "")
    words = f"{clean(database.get('kind') or '')}, {_PHASES.get(phase, clean(phase))}"
    if wrong := database_trouble(database):
        return f"{words}: {wrong}", True
    return (f"{words}: {clean(database['detail'])}" if database.get("detail") else words), False


def _slot_row(slot: dict[str, Any], now: float, host_started: float | None) -> Row:
    state = str(slot.get("state") or "?")
    is_bad = is_trouble(slot, now)
    restart_at = instant(slot.get("restart_at"))
    started_at = instant(slot.get("started_at"))
    exit_at = instant((slot.get("last_exit") or {}).get("at"))
    group, words, since, restart_in = Group.RUNNING, clean(state), started_at, None
    why = activity_words(slot.get("activity")) or clean(slot.get("reason") or "")
    if stands_by(slot):
        state = "not_yet_started"  # with a last life behind it or without
    if state == "waiting_restart":
        group, words, since = (Group.TROUBLE if is_bad else Group.WAITING), "restarting", exit_at
        restart_in = None if restart_at is None else restart_at - now
        why = how_it_ended(slot.get("last_exit")) or clean(slot.get("reason") or "")
        if (reason := clean(slot.get("reason") or "")).startswith("stopped"):
            # By the host, which says what it waits for; the exit itself says nothing.
            words, why = "waiting", reason
        if has_schedule(slot):
            words, restart_in, why = "waiting", None, next_run_words(slot, now)
    elif state == "not_yet_started":
        # A static worker has waited since the host came up; for others nobody wrote it down.
        group, words = Group.WAITING, "waiting"
        since = exit_at or (host_started if slot.get("origin") == "static" else None)
        why = next_run_words(slot, now)
    elif state == "terminating":
        why = clean(slot.get("reason") or "") or why
    elif is_bad:
        group, why = Group.TROUBLE, f"back after {how_it_ended(slot.get('last_exit'))}"
    pid = slot.get("pid")
    name = clean(slot.get("bgw_name") or "?")
    return Row(
        group=group,
        slotno=int(slot.get("slot") or 0),
        slot=f"{slot.get('slot')}.{slot.get('generation')}",
        name=name,
        type=clean(slot.get("bgw_type") or "") or name,
        state=words,
        pids=(pid,) if isinstance(pid, int) and pid > 0 else (),
        age=None if since is None else max(0.0, now - since),
        restarts=int(slot.get("restarts") or 0),
        why=why,
        restart_in=restart_in,
    )


def has_schedule(slot: dict[str, Any]) -> bool:
    """Whether a schedule says when the worker is started."""
    return bool((slot.get("config") or {}).get("schedule"))


def next_run_words(slot: dict[str, Any], now: float) -> str:
    """Return the reason of a worker that waits, and how far its next run is, if that is what it waits for."""
    reason, at = clean(slot.get("reason") or ""), instant(slot.get("restart_at"))
    return f"{reason} (in {duration(at - now)})" if has_schedule(slot) and at is not None and at > now else reason


#: Rows that have no slot come after those that have one.
_NO_SLOT: Final = 1 << 30


def _absent_row(state: str, name: Any, error: Any) -> Row:
    text = clean(name or "?")
    return Row(group=Group.TROUBLE, slotno=_NO_SLOT, slot="-", name=text, type=text, state=state, why=clean(error or ""))


def _finished_row(finished: dict[str, Any], now: float) -> Row:
    last_exit = finished.get("last_exit") or {}
    at = instant(last_exit.get("at"))
    name = clean(finished.get("bgw_name") or "?")
    failed = has_failed(finished)
    return Row(
        group=Group.TROUBLE if is_fresh_failure(finished, now) else Group.FINISHED,
        slotno=_NO_SLOT + 1,
        slot=f"{finished.get('slot')}.{finished.get('generation')}",
        name=name,
        type=name,
        state="failed" if failed else "finished",
        age=None if at is None else max(0.0, now - at),
        why=(how_it_ended(last_exit) if failed else "") or clean(finished.get("reason") or "") or how_it_ended(last_exit),
    )


def activity_words(activity: Any) -> str:
    """Return what a worker says it does: ``idle: WorkerSpiMain``, ``order 42``; empty when it says nothing."""
    if not isinstance(activity, dict):
        return ""
    state, text, wait_event = (clean(activity.get(key) or "") for key in ("state", "text", "wait_event"))
    if state == "idle":
        # What an idle worker waits for is news; what it did last is not.
        return f"idle: {wait_event or text}" if wait_event or text else "idle"
    if text:
        return text
    return f"{state}: {wait_event}" if state and wait_event else state or wait_event


def _counts(rows: Iterable[Row]) -> tuple[tuple[str, bool], ...]:
    by_state = Counter(row.state for row in rows)
    known = ("restarting", "waiting", "terminating", "failed", "not registered", "broken plugin")
    words = [(f"{by_state[state]} {state}", state not in ("waiting", "terminating")) for state in known if by_state[state]]
    return (*words, (f"{by_state['started']} started", False))


def _fold(rows: Sequence[Row]) -> list[Row]:
    """Fold rows that say the same; a group too small to fold stays as it is."""
    kinds: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        # Healthy rows of one type are alike whatever they do; the others only for one cause.
        cause = row.type if row.group in (Group.RUNNING, Group.FINISHED) else row.why
        kinds.setdefault((row.group, row.state, cause), []).append(row)
    folded: list[Row] = []
    for (group, _, _), members in kinds.items():
        folded += [_folded(members, group)] if len(members) >= FOLD_FROM else members
    return folded


def _folded(members: Sequence[Row], group: Group) -> Row:
    types = {row.type for row in members}
    ages = [row.age for row in members if row.age is not None]
    name = f"{members[0].type} ({len(members)})" if len(types) == 1 else f"{len(members)} workers"
    why = members[0].why
    if group is Group.RUNNING:
        oldest = max(members, key=lambda row: (row.age or 0.0, -row.slotno))
        why = f"{oldest.why} (oldest, {oldest.slot})" if oldest.why else ""
    elif len(types) > 1:
        why = f"{why} ({', '.join(sorted(types))})"
    return Row(
        group=group,
        slotno=min(row.slotno for row in members),
        slot="-" if all(row.slot == "-" for row in members) else ".",
        name=name,
        type=members[0].type,
        state=members[0].state,
        pids=tuple(pid for row in members for pid in row.pids),
        age=min(ages, default=None),
        restarts=sum(row.restarts for row in members),
        why=why,
        count=len(members),
    )
