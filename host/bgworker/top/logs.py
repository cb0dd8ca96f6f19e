"""The thread that reads log files for the log pane: the last lines of somebody, then what is added.

Waits for the files to change (inotify) and for the application to ask for somebody else's lines.
"""

from __future__ import annotations

import os
import queue
import re
import select
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from bgworker._collector.lines import clean_text
from bgworker._logs.read import Reading
from bgworker._logs.watch import Watch, watch
from bgworker._text import printable
from bgworker.errors import HostError

#: Lines that the pane begins with.
TAIL: Final = 500
#: Where the system cannot say that files change, they are looked at this often, in milliseconds.
_INTERVAL: Final = 500
#: What comes within this many seconds is shown at once.
_SETTLE_SECONDS: Final = 0.1

_HEAD: Final = re.compile(r"\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d)\.\d{3} UTC (\[[^]]{1,60}\]) ")


class Lines(NamedTuple):
    """Lines for the pane."""

    #: The number that ``read`` gave; lines of an earlier request are of no interest any more.
    number: int
    lines: Sequence[str]
    #: Whether they are the first ones of their request.
    is_begin: bool = False
    #: Why there are none; the pane shows it in their place.
    error: str = ""


class LogReader:
    """Reads and follows the logs of one worker at a time.

    Args:
        data_directory: Absolute path.
        deliver: Gets the lines, in the reader's thread; must not raise. Gets no more until ``taken`` is called: while the
            screen belongs to a pager, or the link is slow, the lines stay in the files.
    """

    def __init__(self, data_directory: str, deliver: Callable[[Lines], None]) -> None:
        self._data_directory = data_directory
        self._deliver = deliver
        self._requests: queue.SimpleQueue[tuple[int, tuple[str, ...]] | None] = queue.SimpleQueue()
        self._number = 0
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._leaving = threading.Event()
        self._taken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def read(self, names: Sequence[str]) -> int:
        """Begin with the lines of somebody else; names are those of ``bgworker logs``."""
        self._number += 1
        self._requests.put((self._number, tuple(names)))
        self._taken.set()
        os.write(self._wake_writer, b".")
        return self._number

    def taken(self) -> None:
        """Say that there is room for more lines. Safe in any thread."""
        self._taken.set()

    def close(self) -> None:
        """End the thread."""
        self._leaving.set()
        self._taken.set()
        self._requests.put(None)
        os.write(self._wake_writer, b".")
        self._thread.join(timeout=5.0)
        if not self._thread.is_alive():  # else it still reads a file, and ends after that
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def _run(self) -> None:
        request = self._next()
        while request is not None:
            number, names = request
            try:
                request = self._follow(number, names)
            except (HostError, OSError) as error:
                words = error.message_primary if isinstance(error, HostError) else f"could not read logs: {error.strerror}"
                self._hand_on(Lines(number, (), True, printable(words)))
                request = self._next()

    def _hand_on(self, lines: Lines) -> None:
        self._taken.clear()
        # Looked at after the line above: a close() in between would else be missed.
        if not self._leaving.is_set():
            self._deliver(lines)
            self._taken.wait()

    def _next(self) -> tuple[int, tuple[str, ...]] | None:
        """Wait for a request and return the latest one; None at the end."""
        request = self._requests.get()
        while request is not None and not self._requests.empty():
            request = self._requests.get()
        return request

    def _follow(self, number: int, names: tuple[str, ...]) -> tuple[int, tuple[str, ...]] | None:
        """Hand on lines until there is another request, and return that."""
        # Watched before it is read: what is written in between is then neither missed nor seen twice.
        files = watch(self._data_directory)
        reading: Reading | None = None
        try:
            reading = Reading(self._data_directory, names)
            self._hand_on(Lines(number, _inert(reading.lines(TAIL), names), is_begin=True))
            while self._wait(files):
                if lines := _inert(reading.news(files.wait()), names):
                    self._hand_on(Lines(number, lines))
                # A worker that writes without end makes ten pictures a second, not a thousand.
                self._leaving.wait(_SETTLE_SECONDS)
            return self._next()
        finally:
            if reading is not None:
                reading.close()
            files.close()

    def _wait(self, files: Watch) -> bool:
        """Wait for the files to change; False when there is another request."""
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        if (fd := files.fileno()) is not None:
            poll.register(fd, select.POLLIN)
        while True:
            ready = dict(poll.poll(None if fd is not None else _INTERVAL))
            if self._wake_reader in ready:
                os.read(self._wake_reader, 4096)
                if not self._requests.empty():
                    return False
            # The byte of a request that was taken already says nothing about the files.
            elif fd is None:
                return True
            if fd in ready:
                return True


def _inert(lines: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return lines that a terminal shows and does not obey; the files are clean, unless somebody else wrote to them."""
    name = clean_text(names[0]) if len(names) == 1 else ""
    return [printable(short(part, name)) for line in lines for part in line.split("\n")]


def short(line: str, name: str) -> str:
    """Return a line without what the pane says anyhow: the day, the zone, and the name of the worker whose log it is."""
    match = _HEAD.match(line)
    if match is None:
        return line
    return f"{match[1]} {match[2]} {line[match.end() :].removeprefix(f'{name}: ')}"
