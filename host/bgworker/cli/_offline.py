"""What can be said of a host that does not run, from the files that it left.

Asks nobody and starts nothing. On the path of ``status --json``: standard library only.
"""

from __future__ import annotations

from typing import Any, Final

from bgworker._version import __version__

#: Workers listed; the history may hold more.
_MOST_RECENT: Final = 100


def offline_status(data_directory: str) -> dict[str, Any]:
    """Return a status dict of a host that is down: ``host.state`` is ``down``, with ``since``, its ``end`` and its ``last_words``.

    ``finished`` holds the last life of each worker that the history knows.
    """
    from bgworker._logs import last_end

    since, last_words = _last_words(data_directory)
    return {
        "format": 1,
        "host": {
            "pid": None,
            "state": "down",
            "since": since,
            "last_words": last_words,
            "end": last_end(data_directory),
            "started_at": None,
            "data_directory": data_directory,
            "max_worker_processes": 0,
            "crash_count": 0,
            "version": __version__,
            "database": None,
        },
        "slots": [],
        "finished": _last_lives(data_directory),
        "broken_plugins": [],
        "rejected": [],
    }


def _last_words(data_directory: str) -> tuple[str | None, str]:
    from bgworker._logs import has_no_file, last_host_log

    # A log that is there all the same is that of a host before.
    found = None if has_no_file(data_directory) else last_host_log(data_directory)
    if found is None:
        return None, ""
    when, line = found
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z"), line.partition("] ")[2] or line


def _last_lives(data_directory: str) -> list[dict[str, Any]]:
    from bgworker._logs import read_history

    lives: dict[str, dict[str, Any]] = {}
    for record in read_history(data_directory):
        name = record.get("bgw_name")
        if record.get("event") not in ("started", "exited") or not isinstance(name, str):
            continue
        lives.pop(name, None)  # the latest stands last
        if record["event"] == "started":
            # No exit follows in the file: the host was killed and took the worker with it.
            lives[name] = {
                "bgw_name": name,
                "slot": record.get("slot"),
                "generation": record.get("generation"),
                "last_exit": None,
                "reason": "was running when its host was killed",
            }
            continue
        last_exit = {key: record.get(key) for key in ("code", "signal", "at", "reason")}
        lives[name] = {
            "bgw_name": name,
            "slot": record.get("slot"),
            "generation": record.get("generation"),
            "last_exit": last_exit,
            "reason": "stopped on request" if record.get("was_requested") else str(last_exit["reason"] or ""),
        }
    return list(lives.values())[-_MOST_RECENT:]
