"""One log: the file, what was put aside of it, and later what is added."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from bgworker._collector.lines import clean_text
from bgworker._collector.names import Predecessor
from bgworker._logs.lines import stamp_of
from bgworker._logs.opening import CHUNK, LONGEST_LINE, old_lines, open_file, predecessors_of
from bgworker._logs.selection import Wanted

#: A line with the time it is sorted by.
Stamped = tuple[str, str]


class Source:
    """One log, what it holds up to now, and later what has been added.

    Args:
        path: The file; need not exist.
        wanted: Which lines are given out.
        since: Only lines of this time and later, as ``lines`` has stamps; "" for all.
        is_new: Whether it appeared only now, so that all of it is news.
        names: Those in the file's directory, if they are known.
    """

    def __init__(self, path: str, wanted: Wanted, since: str = "", *, is_new: bool = False, names: list[str] | None = None) -> None:
        self.path = path
        self._wanted = wanted
        self._since = since
        #: What a predecessor is called that was full before this time, and so holds nothing that is wanted.
        self._since_name = since.replace("-", "").replace(":", "").replace(" ", "T")
        self._old = predecessors_of(path, names)
        self._file = open_file(path)
        #: Where the old lines end and the news begin.
        self._end = 0 if is_new or self._file is None else _complete_end(self._file)
        #: Time of the last line that had one; what has none (torn remains) stays behind it.
        self._stamp = ""

    @property
    def newest_old(self) -> str:
        """The stamp of the latest predecessor that is known."""
        return self._old[-1].stamp if self._old else ""

    def settle(self, names: list[str] | None = None) -> None:
        """See to it that the open file is the one after the predecessors that are known: a rotation may come in between.

        Args:
            names: Those in the file's directory after the file was opened, if they are known.
        """
        there = predecessors_of(self.path, names)
        while there and there[-1].stamp != self.newest_old:
            self.close()
            self._old, self._file = there, open_file(self.path)
            self._end = 0 if self._file is None else _complete_end(self._file)
            there = predecessors_of(self.path)

    def all(self) -> Iterator[Stamped]:
        """Yield the lines that were there when the source was made."""
        for old in self._wanted_old():
            for line in old_lines(self.path, old):
                yield from self._stamped(line)
        if self._file is None:
            return
        self._file.seek(0)
        position = 0
        while position < self._end and (line := self._file.readline(LONGEST_LINE)):
            position += len(line)
            yield from self._stamped(line)

    def last(self, count: int) -> list[Stamped]:
        """Return the last wanted lines that were there when the source was made, reading backwards."""
        if count <= 0:
            return []
        found = self._last_of_file(count)
        for old in reversed(self._wanted_old()):
            if len(found) >= count:
                break
            earlier = deque((line for line in old_lines(self.path, old) if self._wanted(_text(line))), maxlen=count - len(found))
            found.extendleft(reversed(earlier))
        return [stamped for line in list(found)[-count:] for stamped in self._stamped(line)]

    def _last_of_file(self, count: int) -> deque[bytes]:
        found: deque[bytes] = deque()
        if self._file is None:
            return found
        # The piece ends with a newline, so the first split leaves an empty line at the very end; it is no line.
        position, rest = self._end, b""
        while position > 0 and len(found) < count:
            size = min(CHUNK, position)
            position -= size
            self._file.seek(position)
            rest, *complete = (self._file.read(size) + rest).split(b"\n")
            if position == 0:
                complete.insert(0, rest)
            found.extendleft(line for line in reversed(complete) if line and self._wanted(_text(line)))
        return found

    def news(self) -> Iterator[Stamped]:
        """Yield the lines that were added since, those of successors of the same name included."""
        yield from self._added()
        if not self._is_replaced():
            return
        # Once more: lines may have been written between the look above and the renaming. Now nobody writes to it any more.
        yield from self._added()
        had_file = self._file is not None
        self.close()
        newest = self.newest_old
        self._old, self._file, self._end = predecessors_of(self.path), open_file(self.path), 0
        self.settle()
        later = [old for old in self._old if old.stamp > newest]
        # The first of those that were put aside since is the file that was read just now; more are there after a flood.
        for old in later[1:] if had_file else later:
            for line in old_lines(self.path, old):
                yield from self._stamped(line)
        self._end = 0
        yield from self._added()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _wanted_old(self) -> list[Predecessor]:
        return [old for old in self._old if old.stamp >= self._since_name]

    def _added(self) -> Iterator[Stamped]:
        if self._file is None:
            return
        if os.fstat(self._file.fileno()).st_size < self._end:  # emptied by somebody who copied it away
            self._end = 0
        while True:
            self._file.seek(self._end)
            line = self._file.readline(LONGEST_LINE)
            if not line.endswith(b"\n") and len(line) < LONGEST_LINE:
                return  # nothing, or a line that is being written
            self._end += len(line)
            yield from self._stamped(line)

    def _is_replaced(self) -> bool:
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:  # removed; what we have stays open until there is a new one
            return False
        if self._file is None:
            return True
        ours = os.fstat(self._file.fileno())
        return (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)

    def _stamped(self, line: bytes) -> Iterator[Stamped]:
        """Yield the line with its time, if it is wanted."""
        text = _text(line)
        if (stamp := stamp_of(text)) is not None:
            self._stamp = stamp
        if self._stamp >= self._since and self._wanted(text):
            yield self._stamp, text


def _complete_end(file: BinaryIO) -> int:
    """Return where the last whole line ends."""
    position = os.fstat(file.fileno()).st_size
    while position > 0:
        size = min(CHUNK, position)
        file.seek(position - size)
        if (newline := file.read(size).rfind(b"\n")) >= 0:
            return position - size + newline + 1
        position -= size
    return 0


def _text(line: bytes) -> str:
    # The file is clean already unless somebody else wrote to it; this is cheap, and what a terminal gets must be.
    return clean_text(line.rstrip(b"\r\n").decode("utf-8", "backslashreplace"))
