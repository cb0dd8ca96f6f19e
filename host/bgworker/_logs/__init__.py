"""Reading the log files and the history, with the host up or down.

For ``bgworker logs``, ``why`` and ``status``: nothing here asks the host. Cheap to import:
the standard library only, the rest where it is needed. It never writes, never follows a
symbolic link, and gives out no character that a terminal would obey.

    opening     one file, or none where there is something else
    lines       what a line says, in either format, and the same line in the other
    selection   which files, and which of their lines, names mean
    source      one log with what was put aside of it
    watch       waiting for news
    read        all of them together
    history     history.jsonl
    end         why the last host ended

The collector writes these files; its ``names``, ``plain`` and ``json_lines`` say where and how.
"""

from __future__ import annotations

from bgworker._logs.end import has_no_file, last_end
from bgworker._logs.history import read_history
from bgworker._logs.read import Wish, last_host_log, read_lines
from bgworker._logs.selection import log_files

__all__ = ["Wish", "has_no_file", "last_end", "last_host_log", "log_files", "read_history", "read_lines"]
