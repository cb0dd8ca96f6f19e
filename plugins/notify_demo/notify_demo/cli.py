"""``bgworker notify-demo listen``: an ordinary LISTEN, from outside, on the host's database.

A worker must not LISTEN (that is what ``wake_on`` is for); any other client may. Imported
only when the command is called, and so is psycopg.
"""

from __future__ import annotations

import select
import time

import click
import psycopg
from psycopg import sql

import bgworker
from bgworker import HostError, WaitTimeout
from notify_demo import CHANNEL


@click.group(name="notify-demo")
def group() -> None:
    """Notifications of the sample plugin notify_demo."""


@group.command()
@click.argument("channel", default=CHANNEL)
@click.option("--count", type=click.IntRange(1), help="End after this many notifications.")
@click.option("--timeout", type=click.FloatRange(0), help="Fail if --count is not reached after this many seconds.")
@click.option("-D", "--data-directory", metavar="DIR", help="The host's data directory.")
def listen(channel: str, count: int | None, timeout: float | None, data_directory: str | None) -> None:
    """Print what is notified on CHANNEL (heartbeat) until interrupted."""
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        _print_notifications(_database_url(data_directory), channel, count, deadline)
    except psycopg.Error as error:
        # Errors of bgworker are printed by the command line, with their exit codes; this makes psycopg's one of them.
        raise HostError(f"could not listen on the database: {str(error).strip()}") from error


def _database_url(data_directory: str | None) -> str:
    """Return the url that ``bgworker status --json`` shows. It has no password: libpq finds that as it always does."""
    with bgworker.connect(data_directory) as client:
        database = client.host().database
    if database is None or not database.url:
        raise HostError(
            "host has no database to listen on",
            "workers.toml has no [database] table, or the database has not been reached yet.",
            'Add [database] with url = "embedded", or try again.',
        )
    return database.url


def _print_notifications(url: str, channel: str, count: int | None, deadline: float | None) -> None:
    printed = 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        while True:
            # The connection's own wait looks around ten times a second; select() sleeps until there is something.
            for notification in connection.notifies(timeout=0):
                click.echo(inert(f"{notification.channel} ({notification.pid}): {notification.payload}"))
                printed += 1
                if printed == count:
                    return
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise WaitTimeout(f'notifications on channel "{channel}" did not come in time')
            select.select([connection], [], [], remaining)


def inert(text: str) -> str:
    """Return the text with whatever a terminal would obey replaced: anybody can notify anything."""
    return "".join(character if character.isprintable() else "?" for character in text)
