"""Where logs and history are inside the data directory, and what a worker's log file is called.

Pure. Shared by the collector, which writes the files, and ``bgworker._logs``, which reads them.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

#: Directories are named by their parts: each is opened relative to the one before it.
LOG_DIRECTORY: Final = ("log",)
WORKERS_DIRECTORY: Final = ("log", "workers")
HOST_LOG: Final = "host.log"
HISTORY: Final = "history.jsonl"
LOG_SUFFIX: Final = ".log"
#: What host.log is called among the labels; no worker's label can be this.
HOST_LABEL: Final = "host"

#: What a predecessor has behind the name of its file: when it was full, in UTC, and ``.gz`` once it is compressed.
_ROTATED: Final = re.compile(
    r"(.+)\.([12]\d{3}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3])[0-5]\d[0-5]\d\.\d{3})(\.gz)?", re.DOTALL
)
_STAMP_SECONDS: Final = "%Y%m%dT%H%M%S"
COMPRESSED_SUFFIX: Final = ".gz"

_HASH_DIGITS: Final = 10
#: Names that are safe as they stand. No leading dot (hidden files) or dash (options of other people's commands).
_SAFE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}")
_HASHED: Final = re.compile(rf".*-[0-9a-f]{{{_HASH_DIGITS}}}", re.DOTALL)
_UNSAFE_RUN: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_SLUG_LENGTH: Final = 80


def label(name: str) -> str:
    """Return what the log of a worker, or of a worker type, is called.

    A safe name is its own label. Any other is replaced by a slug and a hash of the name; a safe
    name that ends like such a hash gets one too, so that no two names share a label.
    """
    if _SAFE.fullmatch(name) and not _HASHED.fullmatch(name) and name != HOST_LABEL:
        return name
    # Imported here: the reading side meets such names seldom and must start fast.
    import hashlib

    slug = _UNSAFE_RUN.sub("_", name)[:_SLUG_LENGTH].lstrip(".-") or "worker"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{slug}-{digest[:_HASH_DIGITS]}"


def file_name(name: str) -> str:
    """Return the name of the file in ``log/workers`` that belongs to a worker or a worker type."""
    return label(name) + LOG_SUFFIX


class Predecessor(NamedTuple):
    """A file that has grown to its limit and made room; they sort by age, the oldest first."""

    #: ``20261121T090001.123``: unique among the predecessors of one file, and later ones are greater.
    stamp: str
    name: str

    @property
    def is_compressed(self) -> bool:
        """Whether it is a gzip file."""
        return self.name.endswith(COMPRESSED_SUFFIX)


def predecessors(name: str, names: Iterable[str]) -> list[Predecessor]:
    """Return the predecessors of a file among the names of its directory; of a plain and a compressed one the plain."""
    found: dict[str, Predecessor] = {}
    for each in names:
        # A directory may hold thousands of files; most are dismissed without the expression.
        if each.startswith(name) and (match := _ROTATED.fullmatch(each)) is not None and match.group(1) == name:
            stamp, suffix = match.group(2), match.group(3)
            if not suffix or stamp not in found:
                found[stamp] = Predecessor(stamp, each)
    return sorted(found.values())


def next_predecessor(name: str, at: float, existing: Iterable[Predecessor]) -> Predecessor:
    """Return what a file that is full at this wall clock time becomes: after all others, also when the clock was set back."""
    newest = max((each.stamp for each in existing), default="")
    milliseconds = int(at * 1000)
    if _stamp(milliseconds) <= newest:
        date, clock = newest[:15].split("T")
        year, month, day = int(date[:4]), int(date[4:6]), int(date[6:])
        seconds = calendar.timegm((year, month, day, int(clock[:2]), int(clock[2:4]), int(clock[4:])))
        milliseconds = seconds * 1000 + int(newest[16:]) + 1
    stamp = _stamp(milliseconds)
    return Predecessor(stamp, f"{name}.{stamp}")


def _stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime(_STAMP_SECONDS, time.gmtime(seconds))}.{rest:03d}"
