"""Reading the log files and the history, with the host up or down.

For ``bgworker logs``, ``why`` and ``status``: nothing here asks the host. Cheap to import:
the standard library only, the rest where it is needed. It never writes, never follows a
symbolic link, and gives out no character that a terminal would obey.

The collector writes these files; ``_collector.names`` and ``_collector.plain`` say where and how.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import select
import stat
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from bgworker._collector.lines import clean_text
from bgworker._collector.names import (
    HISTORY,
    HOST_LABEL,
    HOST_LOG,
    LOG_DIRECTORY,
    LOG_SUFFIX,
    PREDECESSOR_SUFFIX,
    WORKERS_DIRECTORY,
    label,
)
from bgworker._collector.plain import parse_head
from bgworker.errors import HostError

if TYPE_CHECKING:
    import datetime

#: A line with the time it is sorted by.
Stamped = tuple[str, str]
#: Says whether a line is asked for.
Wanted = Callable[[str], bool]

_CHUNK: Final = 65_536
#: Longest line taken from a file; ours are shorter even when every byte of 16 KiB was escaped.
_LONGEST_LINE: Final = 262_144
_HANDLE: Final = re.compile(r"\d+(?:\.\d+)?")


def log_files(data_directory: str) -> dict[str, str]:
    """Return the path of each log file by its label: "host", then one per worker or worker type."""
    files: dict[str, str] = {}
    host_log = os.path.join(data_directory, *LOG_DIRECTORY, HOST_LOG)
    if os.path.lexists(host_log):
        files[HOST_LABEL] = host_log
    directory = os.path.join(data_directory, *WORKERS_DIRECTORY)
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        names = []
    files.update((name.removesuffix(LOG_SUFFIX), os.path.join(directory, name)) for name in names if name.endswith(LOG_SUFFIX))
    return files


def read_lines(data_directory: str, names: Iterable[str] = (), follow: bool = False, tail: int | None = None) -> Iterator[str]:
    """Yield log lines of the host and the workers, merged by time.

    Args:
        data_directory: Absolute path.
        names: "host", names or types of workers, slots ("3") or lives ("3.2"); none for everything.
        follow: Go on for ever with what is written from now on; waits without polling on Linux.
        tail: Begin with at most so many lines, the latest; None for all.

    Raises:
        HostError: A file cannot be read; with follow, the data directory cannot be watched.
    """
    selection = _Selection(data_directory, tuple(names))
    # Watched before it is read: what is written in between is then neither missed nor seen twice.
    watch = _watch(data_directory) if follow else None
    sources: dict[str, _Source] = {}
    try:
        for path, wanted in selection.sources():
            sources[path] = _Source(path, wanted)
        yield from _merged(list(sources.values()), tail)
        while watch is not None:
            changed = watch.wait()
            if changed is None:
                for path, wanted in selection.sources():
                    if path not in sources:
                        sources[path] = _Source(path, wanted, is_new=True)
            news = [line for path, source in sources.items() if changed is None or path in changed for line in source.news()]
            # Lines of one moment come from several files: those that came together are sorted, nothing is held back for more.
            yield from (line for _, line in sorted(news, key=_time_of))
    finally:
        for source in sources.values():
            source.close()
        if watch is not None:
            watch.close()


def last_host_log(data_directory: str) -> tuple[datetime.datetime, str] | None:
    """Return when the host's log was written last, and the line; None without one.

    For messages like "host not running since ...".
    """
    import datetime

    source = _Source(os.path.join(data_directory, *LOG_DIRECTORY, HOST_LOG), _is_stamped)
    try:
        last = source.last(1)
    finally:
        source.close()
    if not last:
        return None
    stamp, line = last[0]
    return datetime.datetime.fromisoformat(stamp).replace(tzinfo=datetime.UTC), line


def read_history(data_directory: str) -> Iterator[dict[str, Any]]:
    """Yield the records of the history, oldest first; skips what is no record."""
    import json

    for name in (HISTORY + PREDECESSOR_SUFFIX, HISTORY):
        if (file := _open(os.path.join(data_directory, name))) is None:
            continue
        with file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:  # torn by a full disk, or being written at this moment
                    continue
                if isinstance(record, dict):
                    yield record


class _Selection:
    """Which files, and which of their lines, a list of names means."""

    def __init__(self, data_directory: str, names: Sequence[str]) -> None:
        self._data_directory = data_directory
        self._names = names
        #: The file that a name is the name of.
        self._labels = {HOST_LABEL if name == HOST_LABEL else label(name): name for name in names}

    def sources(self) -> list[tuple[str, Wanted]]:
        """Return the files that exist now, each with what is wanted of it; the host's last.

        Of one millisecond the workers' lines come first: what the host says then is mostly what became of them.
        """
        files = log_files(self._data_directory)
        if HOST_LABEL in files:
            files[HOST_LABEL] = files.pop(HOST_LABEL)
        if not self._names:
            return [(path, _everything) for path in files.values()]
        # A name with a file of its own means that file. Any other is looked for in all files: a dynamic worker's
        # lines are in the file of its type, and a slot is said in each line.
        others = [name for of_label, name in self._labels.items() if of_label not in files]
        wanted_lines = _lines_of(others)
        chosen: list[tuple[str, Wanted]] = []
        for of_label, path in files.items():
            if of_label in self._labels:
                chosen.append((path, _everything))
            elif others and of_label != HOST_LABEL:
                chosen.append((path, wanted_lines))
        return chosen


def _everything(_line: str) -> bool:
    return True


def _is_stamped(line: str) -> bool:
    return parse_head(line) is not None


def _lines_of(names: Sequence[str]) -> Wanted:
    """Return what says whether a line is one of these workers, slots or lives."""
    handles = {name for name in names if _HANDLE.fullmatch(name)}
    heads = tuple(f"{clean_text(name)}: " for name in names)

    def is_wanted(line: str) -> bool:
        head = parse_head(line)
        if head is None or head.slot is None:
            return False
        return line.startswith(heads, head.end) or str(head.slot) in handles or f"{head.slot}.{head.generation}" in handles

    return is_wanted


def _time_of(line: Stamped) -> str:
    return line[0]


def _merged(sources: list[_Source], tail: int | None) -> Iterator[str]:
    if tail is None:
        yield from (line for _, line in heapq.merge(*(source.all() for source in sources), key=_time_of))
        return
    latest = heapq.merge(*(source.last(tail) for source in sources), key=_time_of)
    yield from (line for _, line in deque(latest, maxlen=tail))


def _open(path: str) -> BinaryIO | None:
    """Open a regular file for reading; None if there is none, or something else is in its place."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        if error.errno != errno.EMFILE or not _raise_file_limit():
            raise HostError(f'could not read file "{path}": {error.strerror}') from None
        return _open(path)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return open(fd, "rb", buffering=_CHUNK)


def _raise_file_limit() -> bool:
    """Make room for more open files; merging holds all of them, one per name ever used. Whether there is any."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft != hard


class _Source:
    """One log file: what it holds up to now, and later what has been added.

    Args:
        path: The file; need not exist.
        wanted: Which lines are given out.
        is_new: Whether it appeared only now, so that all of it is news.
    """

    def __init__(self, path: str, wanted: Wanted, *, is_new: bool = False) -> None:
        self._path = path
        self._wanted = wanted
        self._file = _open(path)
        #: Where the old lines end and the news begin.
        self._end = 0 if is_new or self._file is None else self._complete_end(self._file)
        #: Time of the last line that had one; what has none (torn remains) stays behind it.
        self._stamp = ""

    def all(self) -> Iterator[Stamped]:
        """Yield the lines that were there when the source was made."""
        if self._file is None:
            return
        self._file.seek(0)
        position = 0
        while position < self._end and (line := self._file.readline(_LONGEST_LINE)):
            position += len(line)
            yield from self._stamped(line)

    def last(self, count: int) -> list[Stamped]:
        """Return the last wanted lines that were there when the source was made, reading backwards."""
        found: deque[bytes] = deque()
        if self._file is None:
            return []
        # The piece ends with a newline, so the first split leaves an empty line at the very end; it is no line.
        position, rest = self._end, b""
        while position > 0 and len(found) < count:
            size = min(_CHUNK, position)
            position -= size
            self._file.seek(position)
            rest, *complete = (self._file.read(size) + rest).split(b"\n")
            if position == 0:
                complete.insert(0, rest)
            found.extendleft(line for line in reversed(complete) if line and self._wanted(_text(line)))
        return [stamped for line in list(found)[-count:] for stamped in self._stamped(line)] if count > 0 else []

    def news(self) -> Iterator[Stamped]:
        """Yield the lines that were added since, those of a successor of the same name included."""
        yield from self._added()
        if self._is_replaced():
            # Once more: lines may have been written between the look above and the renaming. Now nobody writes to it any more.
            yield from self._added()
            self.close()
            self._file = _open(self._path)
            self._end = 0
            yield from self._added()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _added(self) -> Iterator[Stamped]:
        if self._file is None:
            return
        if os.fstat(self._file.fileno()).st_size < self._end:  # emptied by somebody who copied it away
            self._end = 0
        while True:
            self._file.seek(self._end)
            line = self._file.readline(_LONGEST_LINE)
            if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                return  # nothing, or a line that is being written
            self._end += len(line)
            yield from self._stamped(line)

    def _is_replaced(self) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except OSError:  # removed; what we have stays open until there is a new one
            return False
        if self._file is None:
            return True
        ours = os.fstat(self._file.fileno())
        return (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)

    def _stamped(self, line: bytes) -> Iterator[Stamped]:
        """Yield the line with its time, if it is wanted."""
        text = _text(line)
        if (head := parse_head(text)) is not None:
            self._stamp = head.stamp
        if self._wanted(text):
            yield self._stamp, text

    @staticmethod
    def _complete_end(file: BinaryIO) -> int:
        """Return where the last whole line ends."""
        position = os.fstat(file.fileno()).st_size
        while position > 0:
            size = min(_CHUNK, position)
            file.seek(position - size)
            if (newline := file.read(size).rfind(b"\n")) >= 0:
                return position - size + newline + 1
            position -= size
        return 0


def _text(line: bytes) -> str:
    # The file is clean already unless somebody else wrote to it; this is cheap, and what a terminal gets must be.
    return clean_text(line.rstrip(b"\r\n").decode("utf-8", "backslashreplace"))


class _Watch(Protocol):
    """Tells when log files have changed."""

    def wait(self) -> set[str] | None:
        """Wait for a change; return the paths that were written to, or None when files have come or gone."""

    def close(self) -> None:
        """Stop watching."""


def _watch(data_directory: str) -> _Watch:
    return _Inotify(data_directory) if sys.platform == "linux" else _Interval()


class _Interval:
    """Looks twice a second: for systems without inotify, the one place where we poll."""

    def wait(self) -> set[str] | None:
        """Sleep, then say that anything may have changed."""
        time.sleep(0.5)
        return None

    def close(self) -> None:
        """Nothing is held."""


class _Inotify:
    """inotify(7) on the log directories; they may come, go and come back.

    Raises:
        HostError: The data directory cannot be watched.
    """

    # Numbers of <sys/inotify.h>.
    _MODIFY: Final = 0x002
    _MOVED_TO: Final = 0x080
    _CREATE: Final = 0x100
    _ONLYDIR: Final = 0x1000000
    _EVENT: Final = struct.Struct("iIII")

    def __init__(self, data_directory: str) -> None:
        import ctypes

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._errno = ctypes.get_errno
        self._data_directory = data_directory
        #: Which directory a watch is on.
        self._directories: dict[int, str] = {}
        self._fd = int(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        if self._fd < 0:
            raise HostError(f"could not watch log files: {os.strerror(self._errno())}")
        try:
            self._add_watches()
        except HostError:
            self.close()
            raise

    def wait(self) -> set[str] | None:
        """Wait for a change; return the paths that were written to, or None when files have come or gone."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll()
        changed: set[str] = set()
        is_other = False
        events = os.read(self._fd, _CHUNK)
        offset = 0
        while offset < len(events):
            watch, mask, _cookie, length = self._EVENT.unpack_from(events, offset)
            offset += self._EVENT.size
            name = os.fsdecode(events[offset : offset + length].rstrip(b"\0"))
            offset += length
            if mask & self._MODIFY and watch in self._directories:
                changed.add(os.path.join(self._directories[watch], name))
            else:
                is_other = True
        if not is_other:
            return changed
        # Something came, went or was too much for the queue: watch what there is now, and let all be read.
        self._add_watches()
        return None

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)

    def _add_watches(self) -> None:
        # From the top: what is made below a directory after it is watched shows as an event.
        is_there = self._add((), self._CREATE | self._MOVED_TO)
        if not is_there:
            raise HostError(f'could not watch directory "{self._data_directory}": it does not exist')
        for parts in (LOG_DIRECTORY, WORKERS_DIRECTORY):
            if not self._add(parts, self._MODIFY | self._CREATE | self._MOVED_TO):
                return  # not there yet, or gone; the directory above it will tell

    def _add(self, parts: Sequence[str], mask: int) -> bool:
        """Watch one directory; whether it is there."""
        path = os.path.join(self._data_directory, *parts)
        watch = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask | self._ONLYDIR)
        if watch < 0:
            if self._errno() in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise HostError(f'could not watch directory "{path}": {os.strerror(self._errno())}')
        # The same directory has the same number, and a new one of the same name another.
        self._directories[watch] = path
        return True
