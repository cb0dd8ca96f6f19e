"""``reload`` and ``stop``: acts on the host itself."""

from __future__ import annotations

import shlex

import click

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, seconds, verb
from bgworker.errors import ConfigurationError


@verb("reload", "bgworker reload")
@json_option
def reload(invocation: Invocation, as_json: bool) -> None:
    """Make the host read workers.toml again and act on what has changed.

    Workers whose registration changed are replaced, new ones started, missing ones stopped; all
    others are told to look at their settings. If the file has errors, all of them are printed
    and nothing changes (exit code 2).
    """
    with invocation.connect() as client:
        result = client.reload()
    if as_json:
        _console.say_json(result)
        return
    changes = result.get("changes") or []
    for change in changes:
        reason = f" ({change['reason']})" if change.get("reason") else ""
        _console.say(f"{change['action']} {change['bgw_name']}{reason}")
    if not changes:
        _console.say("reloaded; no registration has changed")
    if settings := result.get("settings"):
        count = result.get("signalled", 0)
        _console.say(
            f"settings of {', '.join(settings)} changed; {count} worker{'s were' if count != 1 else ' was'} told by SIGHUP"
        )
    _console.flush()
    for warning in result.get("warnings") or ():
        _console.note("WARNING", warning)


@verb(
    "stop",
    """
bgworker stop
bgworker stop --mode smart --timeout 60     let jobs finish first, at most a minute
""",
)
@click.option(
    "--mode",
    type=click.Choice(["smart", "fast", "immediate"]),
    default="fast",
    help="smart waits for clients and for workers that are never restarted; fast (default) sends SIGTERM; immediate SIGQUIT.",
)
@click.option("--timeout", type=seconds, metavar="S", help="Give up waiting after this many seconds, with exit code 4.")
@click.argument("names", nargs=-1, metavar="")
def stop(invocation: Invocation, mode: str, timeout: float | None, names: tuple[str, ...]) -> None:
    """Stop the host and all its workers, and come back when it has ended."""
    if names:
        raise ConfigurationError(
            f'stop takes no name, and "{names[0]}" was given',
            "It stops the whole host.",
            f"To stop a worker: bgworker terminate {shlex.join(names)}",
        )
    with invocation.connect() as client:
        pid = client.host_pid
        client.stop(mode)
        client.wait_until_gone(timeout)
    _console.say(f"host (PID {pid}) has stopped")
