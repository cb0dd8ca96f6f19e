"""``reexec``: the host goes on as the program that is installed now, and no worker notices."""

from __future__ import annotations

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, verb


@verb(
    "reexec",
    """
pip install -U bgworker && bgworker reexec
bgworker reexec --json
""",
)
@json_option
def reexec(invocation: Invocation, as_json: bool) -> int:
    """Let the host execute itself anew, as it is installed now: a new version of bgworker, or of Python.

    Its pid, the workers, PostgreSQL, connections, waits and handles stay. The new program is tried first
    with the host's state, in a process of its own; if that fails, nothing happens (exit code 1).
    Workers keep the code that they run: for theirs there is `bgworker upgrade`. SIGUSR2 to the host
    does the same, and the result is in its log.
    """
    with invocation.connect() as client:
        result = client.reexec()
    if as_json:
        _console.say_json(result)
        return 0
    old, new = result["old_version"], result["version"]
    versions = f"bgworker {old} goes on as {new}" if old != new else f"bgworker {new} goes on as the same version"
    _console.say(f"host (PID {result['pid']}) has executed itself anew: {versions}")
    _console.say(
        f"it was blind for {result['blind_ms']:g} ms and carried {_count(result['workers'], 'worker')}, "
        f"{_count(result['clients'], 'client')} and {_count(result['waits'], 'wait')}"
    )
    return 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
