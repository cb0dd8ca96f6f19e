"""``stop``: the end of the host."""

from __future__ import annotations

import shlex

import click

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import seconds, verb
from bgworker.errors import ConfigurationError


@verb(
    "stop",
    """
bgworker stop
bgworker stop --mode smart --timeout 60   let jobs finish, for a minute
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
