"""Every life that is attached: reading its pipes, writing its last lines, telling the host when it is over.

Only ``loop`` uses this room, and calls it from its one thread.
"""

from __future__ import annotations

import selectors
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from bgworker._collector.sinks import Sinks
from bgworker._collector.streams import READ_BYTES, Life, Pipe
from bgworker._collector.tail import LastWords

#: How long after a worker's exit its pipes are read when somebody else holds their write ends: a child that it left behind.
EXIT_GRACE: Final = 1.0
#: Most lives without pipes that wait for their exit to be reported: as many as there can be slots. An older one is dropped.
_MAX_ENDED: Final = 4096
#: Lives that are over and whose last words are kept: the record of an exit follows the exit at once.
_MAX_LAST_WORDS: Final = 64


class Lives:
    """The lives that are not over, and their pipes in the selector (its data: a pair of life and pipe).

    Args:
        selector: The loop's.
        sinks: Where lines go; replaced by the loop when the configuration changes.
        send: Sends a message to the host.
    """

    def __init__(self, selector: selectors.BaseSelector, sinks: Sinks, send: Callable[[dict[str, Any]], None]) -> None:
        self.sinks = sinks
        self._selector = selector
        self._send = send
        self._lives: dict[str, Life] = {}
        self._last_words: OrderedDict[str, LastWords] = OrderedDict()
        #: Whether pipes are left unread because stderr's reader is slow.
        self._is_paused = False

    @property
    def has_open_pipes(self) -> bool:
        """Whether anything can still come."""
        return any(life.open_pipes for life in self._lives.values())

    @property
    def deadline(self) -> float | None:
        """When ``give_up_late_pipes`` wants to be called."""
        return min((life.close_at for life in self._lives.values() if life.close_at is not None), default=None)

    def get(self, key: str) -> Life | None:
        """Return a life by its key."""
        return self._lives.get(key)

    def add(self, life: Life) -> None:
        """Begin to read a life's pipes."""
        # The same life twice: only a host that is unsure of us does that; the later descriptors count.
        if (former := self._lives.pop(life.key, None)) is not None:
            for pipe in former.open_pipes:
                self._close(former, pipe)
        self._lives[life.key] = life
        if not self._is_paused:
            self._watch(life)

    def pause(self, is_paused: bool) -> None:
        """Leave all pipes unread, or read them again."""
        if is_paused == self._is_paused:
            return
        self._is_paused = is_paused
        for life in self._lives.values():
            if not is_paused:
                self._watch(life)
                continue
            for pipe in life.open_pipes:
                self._selector.unregister(pipe.fd)

    def _watch(self, life: Life) -> None:
        for pipe in life.open_pipes:
            self._selector.register(pipe.fd, selectors.EVENT_READ, (life, pipe))

    def read(self, life: Life, pipe: Pipe, limit: int = READ_BYTES) -> int:
        """Take one buffer from a pipe and return its size; closes the pipe at its end, or if it cannot be read."""
        try:
            data = pipe.read(limit)
        except OSError as error:
            self._refuse_pipe(life, pipe, error)
            return 0
        if data is None:
            self._close(life, pipe)
            return 0
        if data:
            life.keep_errors(pipe, data)
            if block := pipe.lines(data):
                self.sinks.worker_lines(life, block, pipe.stream)
        return len(data)

    def exited(self, life: Life, level: str, text: str) -> None:
        """Write all that a process wrote, then the fact of its exit; tell the host the reason.

        Its pipes are read on for a moment when they have not ended.
        """
        self._drain(life)
        self._finish_lines(life)
        if text:
            self.sinks.worker_fact(life, level, text)
        words = self._last_words[life.key] = life.last_words()
        if len(self._last_words) > _MAX_LAST_WORDS:
            self._last_words.popitem(last=False)
        self._send({"type": "tail", "life": life.key, "line": words.reason})
        life.is_exited = True
        life.close_at = time.monotonic() + EXIT_GRACE if life.open_pipes else None
        self._end_if_over(life)

    def take_last_words(self, key: str) -> LastWords:
        """Return what a life that has ended wrote to stderr last, once."""
        if (words := self._last_words.pop(key, None)) is not None:
            return words
        life = self._lives.get(key)
        if life is None:
            return LastWords()
        # The record of the exit waited for us, and comes before the exit itself: all that was written is in the pipes.
        self._drain(life)
        return life.last_words()

    def give_up_late_pipes(self) -> None:
        """Close the pipes of dead workers whose moment is over, after a last look."""
        now = time.monotonic()
        for life in [life for life in self._lives.values() if life.close_at is not None and life.close_at <= now]:
            life.close_at = None
            self._drain(life)
            for pipe in life.open_pipes:
                self._close(life, pipe)

    def hand_over(self) -> None:
        """Tell the host what has been read and not been written; what is in the pipes is the next collector's."""
        for life in self._lives.values():
            if (rest := life.rest()) is not None:
                self._send({"type": "rest", **rest})

    def drain_all(self) -> None:
        """Write all that is in any pipe now; at the end."""
        for life in list(self._lives.values()):
            self._drain(life)
            self._finish_lines(life)

    def _drain(self, life: Life) -> None:
        """Take all that is in the pipes now, and no more: a child left behind may write for ever."""
        for pipe in life.open_pipes:
            try:
                waiting = pipe.waiting_bytes()
            except OSError as error:
                self._refuse_pipe(life, pipe, error)
                continue
            while waiting > 0 and (taken := self.read(life, pipe, min(waiting, READ_BYTES))):
                waiting -= taken
            if pipe.fd >= 0:
                self.read(life, pipe)  # for the end, which shows only at a read of an empty pipe

    def _finish_lines(self, life: Life) -> None:
        for pipe in life.pipes:
            if block := pipe.last_line():
                self.sinks.worker_lines(life, block, pipe.stream)

    def _refuse_pipe(self, life: Life, pipe: Pipe, error: OSError) -> None:
        # Closed, not just left unread: the worker would block for ever at its next line. The host
        # must close its copy too, so it is told at once; the other pipe is read on.
        reason = error.strerror or str(error)
        self.sinks.worker_fact(life, "WARNING", f'could not read {pipe.title} of background worker "{life.name}": {reason}')
        self._tell_eof(life)
        self._close(life, pipe)

    def _close(self, life: Life, pipe: Pipe) -> None:
        if not self._is_paused:
            self._selector.unregister(pipe.fd)
        pipe.close()
        if block := pipe.last_line():
            self.sinks.worker_lines(life, block, pipe.stream)
        if not life.open_pipes:
            self._end_if_over(life)
            self._forget_oldest()

    def _tell_eof(self, life: Life) -> None:
        if not life.is_eof_told:
            life.is_eof_told = True
            self._send({"type": "eof", "life": life.key})

    def _end_if_over(self, life: Life) -> None:
        """Report and drop a life that has exited and has no pipe left.

        The end of the pipes nearly always comes before the host has reaped the process. It is told
        only after the exit, so that the host still knows whose exit it has to report to us.
        """
        if not life.is_exited or life.open_pipes or self._lives.get(life.key) is not life:
            return
        self._tell_eof(life)
        del self._lives[life.key]
        if not any(other.file_name == life.file_name for other in self._lives.values()):
            self.sinks.release(life.file_name)

    def _forget_oldest(self) -> None:
        """Keep bounded what waits for exits; the host reports them all, but this must not rest on it."""
        if len(self._lives) > _MAX_ENDED:
            ended = [life for life in self._lives.values() if not life.open_pipes]
            for life in ended[: len(ended) - _MAX_ENDED]:
                life.is_exited = True
                self._end_if_over(life)
