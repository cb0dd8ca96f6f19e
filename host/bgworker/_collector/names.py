"""Where logs and history are inside the data directory, and what a worker's log file is called.

Pure. Shared by the collector, which writes the files, and ``bgworker._logs``, which reads them.
"""

from __future__ import annotations

import re
from typing import Final

#: Directories are named by their parts: each is opened relative to the one before it.
LOG_DIRECTORY: Final = ("log",)
WORKERS_DIRECTORY: Final = ("log", "workers")
HOST_LOG: Final = "host.log"
HISTORY: Final = "history.jsonl"
#: The one predecessor that is kept of a file that has grown to its limit.
PREDECESSOR_SUFFIX: Final = ".1"
LOG_SUFFIX: Final = ".log"
#: What host.log is called among the labels; no worker's label can be this.
HOST_LABEL: Final = "host"

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
