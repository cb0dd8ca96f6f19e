"""Fails in every hook that runs in the launcher, and says how often it was called."""

from typing import Any

from bgworker.hookspecs import hookimpl

calls: list[str] = []


@hookimpl
def bgworker_ready() -> None:
    calls.append("ready")
    raise SystemExit("not ready at all")


@hookimpl
def bgworker_event(event: Any) -> None:
    calls.append(event["event"])
    event.clear()
    raise LookupError("no such event")
