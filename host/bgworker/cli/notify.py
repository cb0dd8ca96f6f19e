"""``notify`` and ``listen``: notifications to and from the host's database."""

from __future__ import annotations

import math
import selectors
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from bgworker.cli import _console
from bgworker.cli._database_url import database_url, leads_to_transaction_pooler, open_connection, refused
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import Count, json_option, seconds, verb
from bgworker.errors import HostError, HostNotRunning, WaitTimeout

if TYPE_CHECKING:
    import psycopg

#: Pauses between two tries to connect again, in seconds.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


@verb(
    "notify",
    """
bgworker notify orders           wakes the workers with wake_on = ["orders"]
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
@click.option("--count", type=Count(min=1), help="End after this many notifications.")
@click.option("--timeout", type=seconds, metavar="S", help="End after this many seconds without one, with exit code 4.")
@json_option
def listen(invocation: Invocation, channels: tuple[str, ...], count: int | None, timeout: float | None, as_json: bool) -> None:
    """Print the notifications on each CHANNEL as they come, until Ctrl-C.

    A line is the channel, the sender's process id in PostgreSQL, and the payload. A connection that
    breaks is made again, and what may have been missed meanwhile is said.
    """
    listener = Listener(invocation, channels, count, timeout, as_json)
    connection = open_connection(listener.url())
    refuse_pooler(listener.url(), connection)
    listener.listen(connection, "listening on")
    pause = _FIRST_PAUSE
    while not listener.is_done:
        try:
            connection = open_connection(listener.url())
        except HostNotRunning:
            raise  # with the host went an embedded server, and nobody else knows where one is
        except HostError:
            listener.check_time()
            time.sleep(min(pause, listener.seconds_left()))
            pause = min(pause * 2, _LONGEST_PAUSE)
            continue
        pause = _FIRST_PAUSE
        listener.listen(connection, "listening again on", may_have_missed=True)


def refuse_pooler(url: str, connection: psycopg.Connection[Any]) -> None:
    """Close a connection on which nothing would ever be heard, and say why.

    Raises:
        HostError: It leads to a transaction pooler.
    """
    if not leads_to_transaction_pooler(url, connection):
        return
    connection.close()
    raise HostError(
        "cannot listen through a transaction pooler",
        "It gives each transaction another session of the server: the notifications would go to nobody, or to a stranger.",
        "Give direct_url in [database]: a url that leads to the server itself, or to a pooler in session mode.",
    )


class Notification(NamedTuple):
    """What came."""

    channel: str
    payload: str
    #: The sender's backend; none for a gap.
    pid: int | None
    #: No notification: the connection was made again, and those in between went unheard.
    may_have_missed: bool = False


class Listener:
    """What is listened to, across connections.

    Args:
        invocation: Names the host.
        channels: Their names.
        count: End after so many notifications.
        timeout: End after so many seconds without one.
        as_json: Whether a notification is printed as an object.
    """

    def __init__(
        self, invocation: Invocation, channels: tuple[str, ...], count: int | None, timeout: float | None, as_json: bool
    ) -> None:
        self._invocation = invocation
        self._channels = channels
        self._count = count
        self._timeout = timeout
        self._as_json = as_json
        self._shown = 0
        self._last_at = time.monotonic()

    def url(self) -> str:
        """Return where the database is now."""
        return database_url(self._invocation, is_direct=True)

    @property
    def is_done(self) -> bool:
        """Whether enough has come."""
        return self._count is not None and self._shown >= self._count

    def seconds_left(self) -> float:
        """Return how long the next notification may take."""
        return math.inf if self._timeout is None else max(self._last_at + self._timeout - time.monotonic(), 0.0)

    def check_time(self) -> None:
        """Raise WaitTimeout if it took longer."""
        if self._timeout is not None and not self.seconds_left():
            raise WaitTimeout(f"timed out after {self._timeout:g} s without a notification")

    def listen(self, connection: psycopg.Connection[Any], words: str, *, may_have_missed: bool = False) -> None:
        """Print what comes until enough has come, or the connection breaks, which is said."""
        import psycopg

        with connection:
            try:
                self._begin(connection)
                names = ", ".join(self._channels)
                _console.note("LOG", f"{words} {names}" + ("; notifications may have been missed" if may_have_missed else ""))
                if may_have_missed and self._as_json:
                    for channel in self._channels:
                        self._print(Notification(channel, "", None, may_have_missed=True))
                self._pump(connection)
            except psycopg.Error as error:
                if not connection.broken:
                    raise
                lost = refused("the connection to the database was lost", error)
                _console.note("LOG", f"{lost.message_primary}; connecting again")

    def _begin(self, connection: psycopg.Connection[Any]) -> None:
        import psycopg
        from psycopg import sql

        # One that comes while LISTEN itself is executed is given to the handler and never seen by _pump.
        connection.add_notify_handler(lambda n: self._show(Notification(n.channel, n.payload, n.pid)))
        for channel in self._channels:
            try:
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            except (psycopg.Error, ValueError) as error:
                if connection.broken:
                    raise
                raise refused(f'could not listen on channel "{channel}"', error) from None

    def _pump(self, connection: psycopg.Connection[Any]) -> None:
        """Wait on the socket for notifications.

        Not ``connection.notifies()``: psycopg's own waits wake ten times a second (design section 8.12).
        """
        libpq = connection.pgconn
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            while not self.is_done:
                self.check_time()
                if not selector.select(None if self._timeout is None else self.seconds_left()):
                    continue
                libpq.consume_input()
                while (came := libpq.notifies()) is not None:
                    # Channel and payload come in the encoding of the connection, which psycopg sets to UTF-8.
                    channel, payload = came.relname.decode("utf-8", "replace"), came.extra.decode("utf-8", "replace")
                    self._show(Notification(channel, payload, came.be_pid))

    def _show(self, notification: Notification) -> None:
        # Several can arrive at once; those after the last one wanted are not shown.
        if not self.is_done:
            self._shown += 1
            self._last_at = time.monotonic()
            self._print(notification)

    def _print(self, notification: Notification) -> None:
        if self._as_json:
            _console.say_json(notification._asdict())
        else:
            _console.say(f"{notification.channel} {notification.pid} {notification.payload}".rstrip())
        _console.flush()
