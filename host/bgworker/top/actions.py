"""What a key asks of the host, over a connection of its own: one that was lost meanwhile must not spoil it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bgworker.errors import HostError

#: Asks one thing of a host, or raises.
Act = Callable[[Any], object]


def act_on(connect: Callable[[], Any], act: Act) -> HostError | None:
    """Do it and return what went wrong, if anything did; to be called in a thread, since a host may take its time."""
    try:
        host = connect()
        try:
            act(host)
        finally:
            host.close()
    except HostError as error:
        return error
    except OSError as error:
        return HostError(f"could not reach the host: {error.strerror or error}")
    return None
