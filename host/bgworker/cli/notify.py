"""``notify`` and ``listen``: notifications to and from the host's database."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bgworker.cli import _console
from bgworker.cli._database_url import database_url, leads_to_transaction_pooler, open_connection, refused
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, seconds, verb
from bgworker.errors import HostError, WaitTimeout

if TYPE_CHECKING:
    import psycopg


@verb(
    "notify",
    """
bgworker notify orders              wakes the workers with wake_on = ["orders"]
bgworker notify orders '{"id": 42}'
""",
)
@click.argument("channel")
@click.argument("payload", default="")
def notify(invocation: Invocation, channel: str, payload: str) -> None:
    """Send a notification on CHANNEL, with PAYLOAD, to everybody who listens.

    It wakes the workers that have the channel in wake_on, and everything else that LISTENs.
    """
    with open_connection(database_url(invocation)) as connection:
        import psycopg

        try:
            connection.execute("SELECT pg_notify(%s, %s)", (channel, payload))
        except (psycopg.Error, ValueError) as error:  # ValueError: a NUL in the text
            raise refused(f'could not notify channel "{channel}"', error) from None


@verb(
    "listen",
    """
bgworker listen orders shipments
bgworker listen orders --json --count 1 --timeout 10
""",
)
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--count", type=click.IntRange(min=1), help="End after this many notifications.")
@click.option("--timeout", type=seconds, metavar="S", help="End after this many seconds without one, with exit code 4.")
@json_option
def listen(invocation: Invocation, channels: tuple[str, ...], count: int | None, timeout: float | None, as_json: bool) -> None:
    """Print the notifications on each CHANNEL as they come, until Ctrl-C.

    A line is the channel, the sender's process id in PostgreSQL, and the payload.
    """
    shown = 0

    def show(notification: Notification) -> None:
        nonlocal shown
        # Several can arrive at once; those after the last one wanted are not shown.
        if count is not None and shown >= count:
            return
        shown += 1
        if as_json:
            _console.say_json(notification._asdict())
        else:
            _console.say(f"{notification.channel} {notification.pid} {notification.payload}".rstrip())
        _console.flush()

    url = database_url(invocation, is_direct=True)
    with open_connection(url) as connection:
        if leads_to_transaction_pooler(url, connection):
            raise HostError(
                "cannot listen through a transaction pooler",
                "It gives each transaction another session of the server: the notifications would go to nobody, or to a stranger.",
                "Give direct_url in [database]: a url that leads to the server itself, or to a pooler in session mode.",
            )
        _listen(connection, channels, show)
        _console.note("LOG", f"listening on {', '.join(channels)}")
        _pump(connection, show, lambda: count is not None and shown >= count, timeout)


class Notification(NamedTuple):
    """What came."""

    channel: str
    payload: str
    #: The sender's backend.
    pid: int


def _listen(connection: psycopg.Connection[Any], channels: tuple[str, ...], show: Callable[[Notification], None]) -> None:
    import psycopg
    from psycopg import sql

    # One that comes while LISTEN itself is executed is given to the handler and never seen by _pump.
    connection.add_notify_handler(lambda n: show(Notification(n.channel, n.payload, n.pid)))
    for channel in channels:
        try:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        except (psycopg.Error, ValueError) as error:
            raise refused(f'could not listen on channel "{channel}"', error) from None


def _pump(
    connection: psycopg.Connection[Any], show: Callable[[Notification], None], is_done: Callable[[], bool], timeout: float | None
) -> None:
    """Wait on the socket for notifications.

    Not ``connection.notifies()``: psycopg's own waits wake ten times a second (design section 8.12).
    """
    import psycopg

    libpq = connection.pgconn
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        while not is_done():
            if not selector.select(timeout):
                raise WaitTimeout(f"timed out after {timeout:g} s without a notification")
            try:
                libpq.consume_input()
            except psycopg.Error as error:
                raise refused("the connection to the database was lost", error) from None
            while (came := libpq.notifies()) is not None:
                # Channel and payload come in the encoding of the connection, which psycopg sets to UTF-8.
                show(Notification(came.relname.decode("utf-8", "replace"), came.extra.decode("utf-8", "replace"), came.be_pid))
