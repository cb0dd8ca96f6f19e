"""One life of a worker as the collector sees it: who it is, and its two pipes.

Reading only: what was read is handed back as whole, clean lines. Only ``loop`` and ``sinks``
use this room.
"""

from __future__ import annotations

import array
import fcntl
import os
import termios
from typing import Any, Final, Protocol

from bgworker._collector.lines import LineSplitter
from bgworker._collector.names import file_name
from bgworker._collector.plain import Identity
from bgworker._collector.records import clean_lines
from bgworker._collector.tail import KEPT_BYTES, LastWords, last_words

#: Bytes of one turn and pipe: what a pipe holds unless somebody enlarged it (pipe(7)), so that each pipe gets the same.
READ_BYTES: Final = 65_536
#: How much of the end of stderr is handed to another collector: there may be a thousand lives.
_CARRIED_BYTES: Final = 4096


class Tagger(Protocol):
    """What is asked of a log format here."""

    def worker_tag(self, worker: Identity) -> bytes:
        """Return the part of a worker's lines that never changes."""


class Pipe:
    """The read end of a worker's stdout or stderr."""

    def __init__(self, fd: int, title: str) -> None:
        os.set_blocking(fd, False)
        #: -1 once closed.
        self.fd = fd
        #: "standard output" or "standard error".
        self.title = title
        #: The same for the JSON format: "stdout" or "stderr".
        self.stream = "stdout" if title == "standard output" else "stderr"
        self._splitter = LineSplitter()

    def read(self, limit: int = READ_BYTES) -> bytes | None:
        """Return what is there, b"" for nothing; None at the end, when every write end is closed.

        Raises:
            OSError: The pipe cannot be read; it never will be again.
        """
        try:
            return os.read(self.fd, limit) or None
        except BlockingIOError:
            return b""

    def waiting_bytes(self) -> int:
        """Return how much can be read at this moment.

        Raises:
            OSError: As for ``read``.
        """
        count = array.array("i", [0])
        fcntl.ioctl(self.fd, termios.FIONREAD, count)
        return count[0]

    def lines(self, data: bytes) -> bytes:
        """Return the clean lines that this data completes."""
        return clean_lines(self._splitter.feed(data))

    def last_line(self) -> bytes:
        """Return the line that got no newline; nothing if there is none."""
        return clean_lines(self._splitter.finish())

    def rest(self) -> dict[str, Any]:
        """Return what has been read and not been given away, as JSON values."""
        rest, is_continued = self._splitter.state()
        return {"rest": rest.decode("latin-1"), "is_continued": is_continued}

    def resume(self, carried: dict[str, Any]) -> None:
        """Go on with what ``rest`` has told of."""
        self._splitter.resume(str(carried["rest"]).encode("latin-1"), bool(carried["is_continued"]))

    def close(self) -> None:
        """Close our read end; the host has one of its own."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Life:
    """One process of one registered worker, from the attachment of its pipes to its exit and their end.

    Args:
        message: The host's ``attach``, or an ``exited`` that names the worker in the same way.
        fds: Read ends of stdout and stderr, or none.
        output_format: Makes the tag of its lines.

    Raises:
        KeyError, TypeError, ValueError: The message does not say who it is.
    """

    def __init__(self, message: dict[str, Any], fds: list[int], output_format: Tagger) -> None:
        self.key = str(message["life"])
        name = str(message["bgw_name"])
        identity = Identity(int(message["slot"]), int(message["generation"]), int(message.get("pid") or 0), name)
        self.tag = output_format.worker_tag(identity)
        self.name = name
        self.file_name = file_name(name if message.get("is_static", True) else str(message.get("bgw_type") or name))
        self.pipes = [Pipe(fd, title) for fd, title in zip(fds, ("standard output", "standard error"), strict=False)]
        #: The end of what it wrote to stderr.
        self._errors = b""
        if (rest := message.get("rest")) is not None:
            self._errors = str(rest["errors"]).encode("latin-1")
            for pipe, carried in zip(self.pipes, rest["pipes"], strict=False):
                pipe.resume(carried)
        self.is_exited = False
        #: Whether the host was told that nothing more will come.
        self.is_eof_told = False
        #: When pipes that somebody else still holds are given up; None before the exit.
        self.close_at: float | None = None

    def rest(self) -> dict[str, Any] | None:
        """Return what another collector needs to go on with this life; None if that is nothing."""
        pipes = [pipe.rest() for pipe in self.pipes]
        if not self._errors and not self.is_exited and not any(pipe["rest"] or pipe["is_continued"] for pipe in pipes):
            return None
        errors = self._errors[-_CARRIED_BYTES:].decode("latin-1")
        return {"life": self.key, "pipes": pipes, "errors": errors, "is_exited": self.is_exited}

    @property
    def open_pipes(self) -> list[Pipe]:
        """The pipes that can still bring something."""
        return [pipe for pipe in self.pipes if pipe.fd >= 0]

    def keep_errors(self, pipe: Pipe, data: bytes) -> None:
        """Remember the end of stderr."""
        if len(self.pipes) > 1 and pipe is self.pipes[1]:
            self._errors = (data if len(data) >= KEPT_BYTES else self._errors + data)[-KEPT_BYTES:]

    def last_words(self) -> LastWords:
        """Return what it wrote to stderr last."""
        return last_words(self._errors)
