"""From an event of the host to its line below the table.

Pure. An event alone does not say how long the life was or when the next one begins: the status
before and after it does.
"""

from __future__ import annotations

from typing import Any

from bgworker.tui.health import Status
from bgworker.tui.words import clean, clock, exact_duration, how_it_ended, instant


def event_line(event: dict[str, Any], before: Status | None, after: Status | None, started_at: Any = None) -> str:
    """Return the line for an event; empty for one that another event says better.

    Args:
        event: As the host sends it.
        before: The last status from before the event, if there is one.
        after: The first status from after it, if there is one.
        started_at: When the life began, for one so short that no status saw it.
    """
    at, kind = clock(event.get("at")), event.get("event")
    who = clean(event.get("bgw_name") or "")
    if event.get("pid"):
        who += f" ({clean(event['pid'])})"
    if kind == "started":
        return f"{at} {who} started"
    if kind == "exited":
        # One that is over for good is followed by a state event that says how, and why it stays down.
        return (
            "" if event.get("state") == "finished" else f"{at} {who} {_ended(event, before, started_at)}{_next_act(event, after)}"
        )
    text = clean(event.get("message") or "")
    return f"{at} {text}" if text else ""


def _ended(event: dict[str, Any], before: Status | None, started_at: Any) -> str:
    last_exit = event.get("last_exit") or {}
    head, _, cause = how_it_ended(last_exit).partition(": ")
    head, as_asked, _ = head.partition(", as asked")
    if head.startswith("exit "):
        head = f"exited with code {head.removeprefix('exit ')}"
    elif head.startswith("signal "):
        head = f"was ended by {head}"
    elif head == "crash":
        head = "crashed"
    elif head == "stuck":
        head = "was stuck"
    began, ended = instant(started_at or _slot(event, before).get("started_at")), instant(event.get("at"))
    if began is not None and ended is not None and "start" not in head:
        head += f" after {exact_duration(ended - began)}"
    head += as_asked
    return f"{head or 'ended'}: {cause}" if cause else head or "ended"


def _next_act(event: dict[str, Any], after: Status | None) -> str:
    slot = _slot(event, after)
    restart_at, at = instant(slot.get("restart_at")), instant(event.get("at"))
    if slot.get("state") != "waiting_restart" or restart_at is None or at is None:
        return ""
    when = f"restart in {exact_duration(restart_at - at)}" if restart_at > at else "restart at once"
    # The first life was try 1, so the next one is that of so many restarts and two more.
    return f"; {when}, try {int(slot.get('restarts') or 0) + 2}"


def _slot(event: dict[str, Any], status: Status | None) -> dict[str, Any]:
    for slot in (status or {}).get("slots") or ():
        if slot.get("slot") == event.get("slot") and slot.get("generation") == event.get("generation"):
            return dict(slot)
    return {}
