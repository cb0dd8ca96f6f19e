"""A Procfile read into workers: each line ``name: command`` becomes one [[worker]]."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any, Final

from bgworker._migration.conversion import WITH_THE_HOST, Conversion, Remark, named_once
from bgworker.errors import ConfigurationError

_LINE: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*:\s*(.+?)\s*")
#: What makes a line more than a program and its arguments.
_SHELL: Final = re.compile(r"[|&;<>()$`*?\[\]{}~#!]|\\$")
#: What makes it more than one program.
_SEVERAL: Final = re.compile(r"[|&;()`\n]|^\s*(if|for|while|case|cd|exec)\b")
_ASSIGNMENTS: Final = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*=[^\s'\"]*\s+)+")


def convert(path: str) -> Conversion:
    """Read a Procfile.

    Args:
        path: The file. A ``.env`` beside it becomes every worker's env_file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ConfigurationError(f'could not read "{path}": {error.strerror}') from None
    except UnicodeDecodeError:
        raise ConfigurationError(f'could not read "{path}": it is not UTF-8') from None
    result = Conversion()
    directory = os.path.dirname(os.path.abspath(path))
    has_env_file = os.path.exists(os.path.join(directory, ".env"))
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            result.remarks.append(Remark(path, number, "line", "is not of the form NAME: COMMAND, and is left out"))
            continue
        _take(result, path, number, match[1], match[2], directory if has_env_file else None)
        result.workers[-1]["working_directory"] = directory
    for name, count in named_once(result.workers).items():
        result.remarks.append(Remark(path, 0, f'"{name}"', f"{count} workers would have this name; give each its own"))
    return result


def _take(result: Conversion, path: str, number: int, name: str, line: str, env_directory: str | None) -> None:
    def say(text: str) -> None:
        result.remarks.append(Remark(path, number, name, text))

    worker: dict[str, Any] = {"bgw_name": name, "command": _command(line)} | WITH_THE_HOST
    if worker["command"][0] == "/bin/sh":
        say("is run by a shell, because the line uses more than a program and its arguments")
    if re.search(r"\bPORT\b", line):
        say("PORT is set by whoever runs a Procfile; write it into environment")
    if name == "release":
        # Run once before each deployment, by a platform that there is none of here.
        worker |= {"bgw_restart_time": "BGW_NEVER_RESTART", "enabled": False}
        say("enabled = false: it is run before a release, not beside the others")
    if env_directory is not None:
        worker["env_file"] = os.path.join(env_directory, ".env")
    result.workers.append(worker)


def _command(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:
        words = []
    assignments = _ASSIGNMENTS.match(line)
    if words and not assignments and not _SHELL.search(line):
        return words
    if not _SEVERAL.search(line):
        # One program: it takes the shell's place, so that it is the one that gets SIGTERM.
        start = assignments.end() if assignments else 0
        line = f"{line[:start]}exec {line[start:]}"
    return ["/bin/sh", "-c", line]
