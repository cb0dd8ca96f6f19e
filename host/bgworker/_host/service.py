"""What the host tells the service manager that started it, over NOTIFY_SOCKET (sd_notify(3)).

One datagram each, never waited for: a service manager that does not read costs its own
knowledge. Without the variable nothing is sent and nothing is due. No child of the host gets it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

#: Seconds between two statuses at least; what changes in between is told by the later one.
_STATUS_INTERVAL: Final = 1.0


class Service:
    """The connection to a service manager, if there is one.

    Args:
        status: Makes the line that the service manager shows.
        environ: Where it says how to reach it.
    """

    def __init__(self, status: Callable[[], str], environ: Mapping[str, str] = os.environ) -> None:
        self._status = status
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if self._address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self._is_stopping = False
        self._told = ""
        self._is_changed = False
        self._status_at = 0.0
        self._interval = _watchdog_interval(environ) if self._socket is not None else None
        #: When the next sign of life is due; None if nobody waits for one.
        self._alive_at = None if self._interval is None else time.monotonic()

    def ready(self) -> None:
        """Say that the configuration is in effect and clients are served: after the start, and after each reload."""
        if not self._is_stopping:
            self._send("READY=1", self._status_line())

    def reloading(self) -> None:
        """Say that a reload has begun; ``ready`` says that it is over, however it went."""
        # systemd compares this with its own reading of the clock, to tell a new reload from an old one.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the host shuts down."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send("STOPPING=1", self._status_line())

    def changed(self) -> None:
        """Take note that the status may read otherwise now."""
        self._is_changed = self._socket is not None

    def tick(self, now: float) -> None:
        """Send what is due."""
        if self._alive_at is not None and now >= self._alive_at and self._interval is not None:
            self._alive_at = now + self._interval
            self._send("WATCHDOG=1")
        if self._is_changed and now >= self._status_at:
            self._status_at = now + _STATUS_INTERVAL
            self._is_changed = False
            if (line := self._status_line()) != self._told:
                self._send(line)

    def next_deadline(self) -> float | None:
        """Return when ``tick`` has something to do."""
        times = [self._alive_at, self._status_at if self._is_changed else None]
        return min((at for at in times if at is not None), default=None)

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()

    def _status_line(self) -> str:
        return f"STATUS={' '.join(self._status().split())}"

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        self._told = next((line for line in lines if line.startswith("STATUS=")), self._told)
        try:
            self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            # Gone, or its queue is full. The next status says what this one would have said; a lost READY is a start
            # that the service manager gives up, which is its business to report.
            pass


def _address(name: str) -> str:
    """Return the address of a socket's name; nothing for what is no name of a local one (a path, or ``@`` and a name)."""
    if name.startswith("@") and len(name) > 1:
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Return the seconds between two signs of life, half of what is allowed; None if they are not for this process."""
    allowed, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (allowed.isascii() and allowed.isdigit()) or not int(allowed) or (pid and pid != str(os.getpid())):
        return None
    return int(allowed) / 2_000_000
