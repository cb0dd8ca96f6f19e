"""Log lines of the host and the workers, merged by time, and followed."""

from __future__ import annotations

import heapq
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bgworker._collector.names import HOST_LOG, LOG_DIRECTORY
from bgworker._logs.lines import as_json, as_plain, stamp_of
from bgworker._logs.opening import list_directory
from bgworker._logs.selection import Selection, Wanted
from bgworker._logs.source import Source, Stamped

if TYPE_CHECKING:
    import datetime


@dataclass(frozen=True)
class Wish:
    """Which lines are asked for, beyond whose they are, and how they are to look."""

    #: Of this time and later: ``2026-11-21 09:00:01.123`` in UTC; "" for all.
    since: str = ""
    #: Found somewhere in the line as people read it.
    pattern: re.Pattern[str] | None = None
    #: As JSON objects, whatever is in the files.
    as_json: bool = False

    def narrowed(self, wanted: Wanted) -> Wanted:
        """Return what says whether a line is asked for."""
        pattern = self.pattern
        if pattern is None:
            return wanted
        return lambda text: wanted(text) and pattern.search(as_plain(text)) is not None

    @property
    def render(self) -> Callable[[str], str]:
        """What makes of a line in a file what is given out."""
        return as_json if self.as_json else as_plain


def read_lines(
    data_directory: str,
    names: Iterable[str] = (),
    follow: bool = False,
    tail: int | None = None,
    wish: Wish | None = None,
) -> Iterator[str]:
    """Yield log lines of the host and the workers, merged by time.

    Args:
        data_directory: Absolute path.
        names: "host", names or types of workers, slots ("3") or lives ("3.2"); none for everything.
        follow: Go on for ever with what is written from now on; waits without polling on Linux.
        tail: Begin with at most so many lines, the latest; None for all.
        wish: Which of these lines; a line of the JSON format, as people read it, may be several.

    Raises:
        HostError: A file cannot be read; with follow, the data directory cannot be watched.
    """
    from bgworker._logs.watch import watch as begin_to_watch

    # Watched before it is read: what is written in between is then neither missed nor seen twice.
    watch = begin_to_watch(data_directory) if follow else None
    reading: Reading | None = None
    try:
        reading = Reading(data_directory, names, wish)
        yield from reading.lines(tail)
        while watch is not None:
            yield from reading.news(watch.wait())
    finally:
        if reading is not None:
            reading.close()
        if watch is not None:
            watch.close()


class Reading:
    """Logs that are open: what they held at that moment, and what has been added since.

    For one thread at a time; waits for nothing. Follow with a ``Watch`` that began before this.

    Args:
        data_directory: Absolute path.
        names: As for ``read_lines``.
        wish: Which of these lines.

    Raises:
        HostError: A file cannot be read.
    """

    def __init__(self, data_directory: str, names: Iterable[str] = (), wish: Wish | None = None) -> None:
        self._wish = wish or Wish()
        self._selection = Selection(data_directory, tuple(names))
        self._sources: dict[str, Source] = {}
        try:
            _open_all(self._selection, self._wish, self._sources)
        except BaseException:
            self.close()
            raise

    def lines(self, tail: int | None) -> Iterator[str]:
        """Yield what was there, at most so many lines, the latest; None for all."""
        yield from map(self._wish.render, _merged(list(self._sources.values()), tail))

    def news(self, changed: set[str] | None) -> Iterator[str]:
        """Yield what has been added.

        Args:
            changed: Paths that were written to; None if files have come or gone, too.
        """
        if changed is None:
            for path, wanted in self._selection.sources():
                if path not in self._sources:
                    self._sources[path] = Source(path, self._wish.narrowed(wanted), self._wish.since, is_new=True)
        news = [line for path, source in self._sources.items() if changed is None or path in changed for line in source.news()]
        # Lines of one moment come from several files: those that came together are sorted, nothing is held back for more.
        yield from (self._wish.render(line) for _, line in sorted(news, key=_time_of))

    def close(self) -> None:
        """Close the files."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()


def last_host_log(data_directory: str) -> tuple[datetime.datetime, str] | None:
    """Return when the host's log was written last, and the line; None without one.

    For messages like "host not running since ...".
    """
    import datetime

    source = Source(os.path.join(data_directory, *LOG_DIRECTORY, HOST_LOG), _is_stamped)
    try:
        source.settle()
        last = source.last(1)
    finally:
        source.close()
    if not last:
        return None
    stamp, line = last[0]
    return datetime.datetime.fromisoformat(stamp).replace(tzinfo=datetime.UTC), as_plain(line).split("\n")[0]


def _open_all(selection: Selection, wish: Wish, sources: dict[str, Source]) -> None:
    """Open every log, with one look at each directory before and one after."""
    chosen = selection.sources()
    directories = {os.path.dirname(path) for path, _ in chosen}
    before = {directory: list_directory(directory) for directory in directories}
    for path, wanted in chosen:
        sources[path] = Source(path, wish.narrowed(wanted), wish.since, names=before[os.path.dirname(path)])
    after = {directory: list_directory(directory) for directory in directories}
    for source in sources.values():
        source.settle(after[os.path.dirname(source.path)])


def _is_stamped(line: str) -> bool:
    return stamp_of(line) is not None


def _time_of(line: Stamped) -> str:
    return line[0]


def _merged(sources: list[Source], tail: int | None) -> Iterator[str]:
    if tail is None:
        yield from (line for _, line in heapq.merge(*(source.all() for source in sources), key=_time_of))
        return
    latest = heapq.merge(*(source.last(tail) for source in sources), key=_time_of)
    yield from (line for _, line in deque(latest, maxlen=tail))
