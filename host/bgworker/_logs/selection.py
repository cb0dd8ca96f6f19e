"""Which files, and which of their lines, a list of names means."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Final

from bgworker._collector.names import (
    HOST_LABEL,
    HOST_LOG,
    LOG_DIRECTORY,
    LOG_SUFFIX,
    WORKERS_DIRECTORY,
    label,
)
from bgworker._logs.history import read_history
from bgworker._logs.lines import parse
from bgworker._logs.opening import list_directory, predecessors_of

#: Says whether a line is asked for.
Wanted = Callable[[str], bool]

_HANDLE: Final = re.compile(r"\d+(?:\.\d+)?")


def log_files(data_directory: str) -> dict[str, str]:
    """Return the path of each log file by its label: "host", then one per worker or worker type.

    One of which there is only what was put aside is among them.
    """
    files: dict[str, str] = {}
    host_log = os.path.join(data_directory, *LOG_DIRECTORY, HOST_LOG)
    if os.path.lexists(host_log) or predecessors_of(host_log):
        files[HOST_LABEL] = host_log
    directory = os.path.join(data_directory, *WORKERS_DIRECTORY)
    names = sorted({name[: end + len(LOG_SUFFIX)] for name in list_directory(directory) if (end := _end_of_label(name)) >= 0})
    files.update((name.removesuffix(LOG_SUFFIX), os.path.join(directory, name)) for name in names)
    return files


def _end_of_label(name: str) -> int:
    """Return where a log file's label ends in its name or in that of a predecessor; -1 for what is neither."""
    if name.endswith(LOG_SUFFIX):
        return len(name) - len(LOG_SUFFIX)
    end = name.rfind(LOG_SUFFIX + ".")
    if end < 0 or not predecessors_of(name[: end + len(LOG_SUFFIX)], [name]):
        return -1
    return end


class Selection:
    """Which files, and which of their lines, a list of names means."""

    def __init__(self, data_directory: str, names: Sequence[str]) -> None:
        self._data_directory = data_directory
        self._names = names
        #: The file that a name is the name of.
        self._labels = {HOST_LABEL if name == HOST_LABEL else label(name): name for name in names}
        self._labels |= self._of_types()

    def _of_types(self) -> dict[str, str]:
        """Return the workers of each name that may be a type's: static ones have a file each, and only the history knows."""
        files = log_files(self._data_directory)
        types = {name for of_label, name in self._labels.items() if of_label not in files and not _HANDLE.fullmatch(name)}
        if not types:
            return {}
        pairs = ((record.get("bgw_type"), record.get("bgw_name")) for record in read_history(self._data_directory))
        return {label(name): name for of_type, name in pairs if isinstance(name, str) and str(of_type) in types}

    def sources(self) -> list[tuple[str, Wanted]]:
        """Return the files that exist now, each with what is wanted of it; the host's last.

        Of one millisecond the workers' lines come first: what the host says then is mostly what became of them.
        """
        files = log_files(self._data_directory)
        if HOST_LABEL in files:
            files[HOST_LABEL] = files.pop(HOST_LABEL)
        if not self._names:
            return [(path, everything) for path in files.values()]
        # A name with a file of its own means that file. Any other is looked for in all files: a dynamic worker's
        # lines are in the file of its type, and a slot is said in each line.
        others = [name for of_label, name in self._labels.items() if of_label not in files]
        wanted_lines = _lines_of(others)
        chosen: list[tuple[str, Wanted]] = []
        for of_label, path in files.items():
            if of_label in self._labels:
                chosen.append((path, everything))
            elif others and of_label != HOST_LABEL:
                chosen.append((path, wanted_lines))
        return chosen


def everything(_line: str) -> bool:
    """Want each line."""
    return True


def _lines_of(names: Sequence[str]) -> Wanted:
    """Return what says whether a line is one of these workers, slots or lives."""
    handles = {name for name in names if _HANDLE.fullmatch(name)}

    def is_wanted(text: str) -> bool:
        line = parse(text)
        if line is None or line.slot is None:
            return False
        return str(line.slot) in handles or f"{line.slot}.{line.generation}" in handles or any(line.is_of(name) for name in names)

    return is_wanted
