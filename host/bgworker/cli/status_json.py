"""``status --json``, without click, rich or msgspec: a script may ask for it once a second.

What is imported here at the top is paid for by every call; tests/unit/cli/test_fast.py holds
it to what it may cost. ``status`` itself comes here for its JSON.
"""

from __future__ import annotations

from typing import Any

from bgworker import _code
from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.errors import HostNotRunning, WorkerNotFound


def fetch(invocation: Invocation) -> tuple[dict[str, Any], HostNotRunning | None]:
    """Return the status; with the host down, that of its files, and the error to end with."""
    try:
        with invocation.connect() as client:
            status = client.status()
        _code.note_old(status)
        return status, None
    except HostNotRunning as error:
        from bgworker.cli._offline import offline_status

        return offline_status(invocation.location().data_directory), error


def print_status(invocation: Invocation, names: tuple[str, ...], *, only_trouble: bool, is_check: bool) -> int:
    """Print the status as JSON and return the exit code."""
    status, error = fetch(invocation)
    missing: list[str] = []
    troubles: list[str] = []
    if names or only_trouble or is_check:
        import time

        from bgworker.tui import health

        status, missing = health.select(status, names, only_trouble, time.time())
        if is_check:
            troubles = health.troubles(status, time.time())
            status = {**status, "troubles": troubles}
    _console.say_json(status)
    if error is not None:
        _console.flush()
        return _console.complain(error)
    if missing:
        _console.flush()
        return max(_console.complain(not_found(name, status)) for name in missing)
    return 1 if troubles else 0


def not_found(name: str, status: dict[str, Any]) -> WorkerNotFound:
    """Return the error for a name that no worker answers to."""
    known = [str(entry.get("bgw_name")) for key in ("slots", "finished") for entry in status.get(key) or ()]
    near = _console.nearest(name, known)
    return WorkerNotFound(
        f'there is no background worker "{_console.inert(name)}"',
        message_hint=f'The nearest is "{near}".' if near else "List all of them with: bgworker status --all",
    )
