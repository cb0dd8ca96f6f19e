"""Host names to addresses, without blocking the process on a name server.

libpq resolves names inside PQconnectPoll, synchronously, and a name server that is away
costs ten seconds and more, during which the host would get no answer. So names are looked
up in a thread of their own. Only a url with a host name starts one: the embedded server has
none, which matters because a process with threads cannot give birth (see _process.birth).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections.abc import Callable
from typing import Final

from psycopg import Error
from psycopg.conninfo import conninfo_attempts

from bgworker._database.conninfo import Parameters
from bgworker._database.waits import READ, Waits

#: Longest wait for a name server. The lookup goes on in its thread until the system's resolver gives up.
LOOKUP_TIMEOUT: Final = 10.0

#: Called with one set of parameters for each address to try, in order, or with the reason why there is none.
Resolved = Callable[[list[Parameters], str], None]


def resolve(waits: Waits, parameters: Parameters, resolved: Resolved) -> None:
    """Split the parameters into single attempts and call back: at once if no name is looked up, else when it is."""
    if not _has_names(parameters):
        resolved(*_attempts(parameters))
        return
    receiver, sender = socket.socketpair()
    answer: list[tuple[list[Parameters], str]] = []

    def look_up() -> None:
        try:
            answer.append(_attempts(parameters))
        finally:
            sender.close()  # the end of file is the message

    def finished(_events: int = 0) -> None:
        timer.cancel()
        waits.forget(receiver.fileno())
        receiver.close()
        nothing = f'host "{parameters.get("host", "")}" could not be looked up within {LOOKUP_TIMEOUT:g} s'
        resolved(*(answer[0] if answer else ([], nothing)))

    timer = waits.call_after(LOOKUP_TIMEOUT, finished)
    waits.watch(receiver.fileno(), READ, finished)
    # A daemon: the process may end while a lookup hangs.
    threading.Thread(target=look_up, name="resolve", daemon=True).start()


def _has_names(parameters: Parameters) -> bool:
    if parameters.get("hostaddr") or os.environ.get("PGHOSTADDR"):
        return False
    hosts = (parameters.get("host") or os.environ.get("PGHOST") or "").split(",")
    return any(host and not host.startswith("/") and not _is_address(host) for host in hosts)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _attempts(parameters: Parameters) -> tuple[list[Parameters], str]:
    try:
        attempts = conninfo_attempts(dict(parameters))
    except Error as error:
        return [], str(error)
    return [{key: str(value) for key, value in attempt.items() if value is not None} for attempt in attempts], ""
