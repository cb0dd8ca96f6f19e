"""The collector's one loop: the host's messages first, then every worker's pipes in turn.

Level-triggered, one thread. A turn reads at most one buffer from each pipe, so that a
worker that floods its log delays nobody else's lines, and takes the host's messages before
any pipe. Nothing here waits but the selector. Only ``__main__`` uses this room.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from bgworker._collector.compression import Compressor
from bgworker._collector.files import Rotation
from bgworker._collector.history import History
from bgworker._collector.json_lines import JsonFormat
from bgworker._collector.lives import Lives
from bgworker._collector.oom import OomCounter
from bgworker._collector.plain import PlainFormat
from bgworker._collector.sinks import Sinks, Unsaid, unsaid_of
from bgworker._collector.standard_error import StandardError
from bgworker._collector.streams import Life
from bgworker.errors import ProtocolError

Message = dict[str, Any]

#: How long after the host's death we read what its dying workers still write.
HOST_DEATH_GRACE: Final = 1.0
#: Whole seconds after which SIGALRM, at its default, ends a collector that outlived its host.
_END_BACKSTOP: Final = 4


class Channel(Protocol):
    """What the loop needs of the channel to the host."""

    lifeline_fd: int

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def receive(self) -> list[tuple[Message, list[int]]]:
        """Return what has arrived; EOFError when the host has closed the channel."""

    def send(self, message: Message) -> None:
        """Send one message."""


class Collector:
    """State of the collector: who is attached, and what is still to be done.

    Args:
        channel: To the host.
        configuration: The host's ``configure`` message.
    """

    def __init__(self, channel: Channel, configuration: Message) -> None:
        self._channel = channel
        self._host_pid = os.getppid()
        self._format = JsonFormat() if configuration.get("format") == "json" else PlainFormat()
        self._compressor = Compressor()
        self._oom = OomCounter()
        self._stderr = StandardError(self._lost_notice)
        self._sinks, self._history = self._make_sinks(configuration)
        self._resume_lost(configuration.get("lost") or ())
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ, self._receive)
        self._selector.register(channel.lifeline_fd, selectors.EVENT_READ, self._host_died)
        self._lives = Lives(self._selector, self._sinks, channel.send)
        self._is_stopping = False
        #: Another collector of the same host follows.
        self._is_handing_over = False
        #: When to end although pipes are open; set by the host's death.
        self._end_at: float | None = None
        self._handlers: dict[Any, Callable[[Message], None]] = {
            "configure": self._configure,
            "exited": self._exited,
            "log": self._log,
            "history": self._add_history,
            "reopen": self._reopen,
            "stop": self._stop,
            "hand_over": self._hand_over,
        }

    # -- the turn ------------------------------------------------------------------------

    def run(self) -> None:
        """Work until the host says stop or dies; then write what is there and return."""
        while not self._is_done():
            self._turn()
        if self._is_handing_over:
            self._lives.hand_over()
        else:
            self._lives.drain_all()
        self._compressor.abandon()
        self._sinks.close()
        self._history.settle()
        self._sinks.flush_stderr()
        if self._is_handing_over:
            self._hand_over_lost()

    def _hand_over_lost(self) -> None:
        """Tell the host what was lost and could not be written down to the last; the next collector says it."""
        lost = self._sinks.unsaid()
        if self._history.file.lost:
            lost.append(unsaid_of(self._history.file))
        if lost:
            self._channel.send({"type": "lost", "lines": lost})

    def _resume_lost(self, lost: Iterable[Unsaid]) -> None:
        for each in lost:
            if each["place"] == self._history.file.place:
                self._history.file.resume(each["count"], each["reason"])
            else:
                self._sinks.resume(each)

    def _is_done(self) -> bool:
        if self._is_stopping:
            return True
        return self._end_at is not None and (time.monotonic() >= self._end_at or not self._lives.has_open_pipes)

    def _turn(self) -> None:
        self._watch_stderr()
        # Slow readers of stderr slow the workers down, as a pipe to them would.
        self._lives.pause(self._stderr.is_clogged)
        events = self._selector.select(self._timeout())
        # What is no pipe of a worker goes first: the host's messages, its death, room on stderr.
        for key, _ in events:
            if not isinstance(key.data, tuple):
                key.data()
        for key, _ in events:
            if isinstance(key.data, tuple):
                life, pipe = key.data
                # A message of this turn can have closed it; its number may even be another pipe's by now.
                if pipe.fd >= 0:
                    self._lives.read(life, pipe)
        if self._compressor.has_work:
            self._compressor.step()
        self._stderr.tick()
        self._lives.give_up_late_pipes()

    def _timeout(self) -> float | None:
        if self._compressor.has_work:
            return 0.0
        deadlines = [at for at in (self._lives.deadline, self._end_at, self._stderr.deadline) if at is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _watch_stderr(self) -> None:
        """Wait for room on stderr while lines are queued for it."""
        is_watched = self._stderr.fileno() in self._selector.get_map()
        if self._stderr.is_waiting and not is_watched:
            self._selector.register(self._stderr.fileno(), selectors.EVENT_WRITE, self._stderr.flush)
        elif is_watched and not self._stderr.is_waiting:
            self._selector.unregister(self._stderr.fileno())

    # -- the host's messages ---------------------------------------------------------------

    def _receive(self) -> None:
        try:
            received = self._channel.receive()
        except EOFError:
            self._selector.unregister(self._channel)
            self._end_soon()
            return
        except ProtocolError as error:
            self._sinks.host_facts([("WARNING", f"collector could not read a message: {error.message_primary}")])
            return
        for message, fds in received:
            self.handle(message, fds)

    def handle(self, message: Message, fds: list[int]) -> None:
        """Do what one message says; one that cannot be understood is reported and costs nothing else."""
        kind = message.get("type")
        try:
            if kind == "attach":
                self._attach(message, fds)
                return
            _close_all(fds)  # nothing else brings any
            self._handlers[kind](message)
        except (KeyError, TypeError, ValueError) as error:
            self._sinks.host_facts([("WARNING", f'collector could not use a message of type "{kind}": {error!r}')])

    def _host_died(self) -> None:
        self._selector.unregister(self._channel.lifeline_fd)
        self._end_soon()

    def _end_soon(self) -> None:
        self._end_at = self._end_at or time.monotonic() + HOST_DEATH_GRACE
        # Whatever holds us then (a disk that does not answer), we do not outlive the host for long.
        signal.alarm(_END_BACKSTOP)

    def _make_sinks(self, configuration: Message) -> tuple[Sinks, History]:
        data_directory = str(configuration["data_directory"])
        log = str(configuration.get("log") or "files")
        size, keep = int(configuration.get("rotation_size") or 0), int(configuration.get("rotation_keep") or 1)
        rotation = Rotation(size, keep, self._compressor) if size > 0 else None
        sinks = Sinks(data_directory, log, self._format, self._host_pid, self._stderr, rotation)
        return sinks, History(data_directory, self._compressor, self._oom)

    def _lost_notice(self, count: int, reason: str) -> bytes:
        return self._sinks.lost_notice(count, reason)

    def _configure(self, message: Message) -> None:
        sinks, history = self._make_sinks(message)
        self._sinks.close()
        self._history.settle()
        self._sinks, self._history = sinks, history
        self._lives.sinks = sinks

    def _attach(self, message: Message, fds: list[int]) -> None:
        try:
            if len(fds) != 2:
                raise ValueError(f"it brings {len(fds)} descriptors")
            life = Life(message, fds, self._format)
        except (KeyError, TypeError, ValueError):
            _close_all(fds)
            raise
        self._lives.add(life)

    def _exited(self, message: Message) -> None:
        key = str(message["life"])
        life = self._lives.get(key)
        if life is None and "bgw_name" in message:
            # Both pipes had ended before we replaced a collector that died: nothing to read, but an exit to write.
            life = Life(message, [], self._format)
            self._lives.add(life)
        if life is None or life.is_exited:
            self._channel.send({"type": "tail", "life": key, "line": ""})
            return
        self._lives.exited(life, str(message.get("level") or "LOG"), str(message.get("message") or ""))

    def _log(self, message: Message) -> None:
        at = message.get("at")
        facts = [(str(message.get("level") or "LOG"), str(message["message"]))]
        facts += [(key.upper(), str(message[key])) for key in ("detail", "hint") if message.get(key)]
        self._sinks.host_facts(facts, None if at is None else float(at))

    def _add_history(self, message: Message) -> None:
        record = message["record"]
        if isinstance(record, dict) and record.get("event") == "exited" and "life" in record:
            is_written = self._history.add_exit(record, self._lives.take_last_words(str(record["life"])))
        else:
            is_written = self._history.add(record)
        self._sinks.note_outcome(is_written, self._history.path, self._history.reason)

    def _reopen(self, _message: Message) -> None:
        self._sinks.reopen()
        self._history.reopen()

    def _stop(self, _message: Message) -> None:
        self._is_stopping = True

    def _hand_over(self, _message: Message) -> None:
        self._is_stopping = self._is_handing_over = True


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
