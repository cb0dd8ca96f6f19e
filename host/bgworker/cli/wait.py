"""``wait``: until a worker has started, or is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bgworker.cli import _absent, _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, seconds, verb
from bgworker.cli.completion import worker_names
from bgworker.errors import HostError, WorkerNotFound
from bgworker.tui.health import answers_to
from bgworker.tui.words import is_success

if TYPE_CHECKING:
    from bgworker._control.client import Client


@verb(
    "wait",
    """
bgworker wait order-drain --timeout 30            until it runs
bgworker wait 3.2 --shutdown && echo went well    until that job is over
""",
)
@click.argument("name", shell_complete=worker_names)
@click.option("--startup", "event", flag_value="startup", default="startup", help="Until the host has tried to start it (default).")
@click.option("--shutdown", "event", flag_value="shutdown", help="Until it exits, be it to start again.")
@click.option("--timeout", type=seconds, metavar="S", help="Give up after this many seconds, with exit code 4.")
@json_option
def wait(invocation: Invocation, name: str, event: str, timeout: float | None, as_json: bool) -> int:
    """Wait until a worker has started, or is over.

    With --startup, exit code 0 says that it runs, 1 that it does not. With --shutdown, 0 says
    that it was done (exit code 0, or one of its success_exit_codes), and 1 that it failed or was
    stopped. 3 if the host ends first.
    """
    with invocation.connect() as client:
        try:
            result = outcome(client, name, event, timeout)
        except WorkerNotFound as error:
            raise _absent.told_why(invocation, _absent.status_of(client), name, error) from None
    last_exit = result["last_exit"] or {}
    is_done = is_success(last_exit.get("code"), str(last_exit.get("reason") or ""))
    is_good = result["status"] == "STARTED" if event == "startup" else is_done
    if as_json:
        _console.say_json(result)
        return 0 if is_good else 1
    if result["status"] == "STARTED":
        _console.say(f"started {name} ({result['handle']}, PID {result['pid']})")
    elif event == "shutdown":
        _console.say(f"stopped {name} ({result['handle']}): {result['reason']}")
    else:
        raise not_running(name, result["reason"])
    return 0 if is_good else 1


def outcome(client: Client, name: str, event: str, timeout: float | None) -> dict[str, Any]:
    """Wait and return status, pid, reason, handle and last_exit; a worker that is over already is an outcome, too."""
    try:
        handle = client.find(name)
    except WorkerNotFound:
        over = [f for f in client.status()["finished"] if answers_to(f, name)]
        if len(over) != 1:
            raise
        past = over[0]
        key = f"{past['slot']}.{past['generation']}"
        return {"status": "STOPPED", "pid": None, "reason": past["reason"], "handle": key, "last_exit": past["last_exit"]}
    result = client.wait(handle, event, timeout)
    last_exit = None
    if result["status"] != "STARTED" and (ended := handle.last_exit()) is not None:
        last_exit = {"code": ended.code, "signal": ended.signal, "at": ended.at, "reason": ended.reason}
        # A worker can be forgotten in the moment between its end and the reason for it.
        result["reason"] = result["reason"] or ended.reason
    return {**result, "handle": str(handle), "last_exit": last_exit}


def not_running(name: str, reason: str) -> HostError:
    """Return the error for a worker that was to start and does not run."""
    title = f'background worker "{_console.inert(name)}"'
    if reason.startswith("failed to start"):
        return HostError(f"{title} {reason}", message_hint=f'See what it wrote with: bgworker logs "{name}"')
    return HostError(f"{title} is not running: {reason or 'it has exited'}")
