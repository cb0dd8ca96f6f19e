"""The files that workers.toml includes, and the one text that stands for all of them.

Who keeps a configuration (the host, a loader) keeps one text and never looks inside: what was
accepted can then be checked again, whatever has become of the files. Reads files, parses
nothing but the one key. Used by ``load.py``.
"""

from __future__ import annotations

import glob
import os
import stat
from typing import Any, Final, NamedTuple

import tomli

from bgworker._config.findings import ConfigurationErrors, Findings, shown
from bgworker._config.locate import beside
from bgworker._config.model import shortened
from bgworker._text import is_all_inert
from bgworker.errors import ConfigurationError

#: Between the parts of the one text; TOML has no such character, so no file holds it.
_SEPARATOR: Final = "\0"
#: A pattern that finds more is a slip.
_MAX_FILES: Final = 1000
#: Largest file that is read; ten thousand workers take a few.
_MAX_BYTES: Final = 64 << 20
#: What an included file may have.
INCLUDABLE: Final = ("worker", "settings")


class Source(NamedTuple):
    """One file."""

    path: str
    text: str


def read_all(path: str) -> str:
    """Return workers.toml and what it includes as one text.

    Raises:
        ConfigurationErrors: A file cannot be read, or is not UTF-8, or an included one is missing.
    """
    text = read_file(path)
    if "include" not in text:
        return text
    try:
        patterns = tomli.loads(text).get("include", [])
    except (ValueError, RecursionError):
        return text  # which is said where the text is checked
    findings = Findings(path, text)
    if check_patterns(patterns, Findings(path, text)):
        paths = _included(path, patterns, findings)
        findings.raise_if_any()
        return _SEPARATOR.join([text, *(part for included in paths for part in (included, read_file(included)))])
    return text


def split(text: str, path: str) -> list[Source]:
    """Return the files that one text stands for, workers.toml first."""
    main, *parts = text.split(_SEPARATOR)
    if len(parts) % 2:
        return [Source(path, text)]  # no text of ours; its checks will say what is wrong with it
    return [Source(path, main), *(Source(*parts[at : at + 2]) for at in range(0, len(parts), 2))]


def check_patterns(patterns: Any, findings: Findings) -> bool:
    """Report what is wrong with the value of ``include``; return whether it can be used."""
    where = ("include", ("include",))
    if not isinstance(patterns, list):
        findings.add(*where, f"expected an array of paths, found {shown(patterns)}", hint='Such as include = ["conf.d/*.toml"].')
        return False
    is_good = True
    for number, pattern in enumerate(patterns, 1):
        if not isinstance(pattern, str) or not pattern.strip() or not is_all_inert(pattern):
            findings.add(*where, f"expected paths, found {shown(pattern)} as item {number}")
            is_good = False
    return is_good


def read_file(path: str) -> str:
    """Return the text of one file.

    Raises:
        ConfigurationErrors: It cannot be read, or is no text of UTF-8.
    """
    try:
        # Without O_NONBLOCK the mere opening of a FIFO waits for a writer, and a loader would wait with it.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("it is not a regular file")
            data = file.read(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise ValueError(f"it has more than {_MAX_BYTES >> 20} MiB")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problem = f'could not read configuration file "{shortened(path, 200)}": {reason}'
        raise ConfigurationErrors(path, [ConfigurationError(problem)]) from None
    # A byte order mark is no part of the text.
    data = data.removeprefix(b"\xef\xbb\xbf")
    if (at := data.find(b"\0")) >= 0:
        raise _not_a_text(path, "the text has a NUL character", data[:at])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _not_a_text(path, "the text is not valid UTF-8", data[: error.start]) from None


def _not_a_text(path: str, problem: str, before: bytes) -> ConfigurationErrors:
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    return syntax_error(path, problem, before.count(b"\n") + 1, column)


def syntax_error(path: str, problem: str, line: int, column: int, detail: str = "", hint: str = "") -> ConfigurationErrors:
    """Return the error of a text that cannot be parsed; the problem as the words that follow a colon."""
    primary = f"{shortened(path, 200)}:{line}:{column}: syntax error at line {line}, column {column}: {problem}"
    return ConfigurationErrors(path, [ConfigurationError(primary, detail, hint)])


def finds_itself(path: str, patterns: list[str]) -> bool:
    """Whether a pattern of ``include`` finds the file that has it, which is left out then."""
    found = (beside(path, match) for pattern in patterns for match in glob.glob(pattern, root_dir=os.path.dirname(path)))
    return any(os.path.samefile(each, path) for each in found if os.path.exists(each))


def _included(path: str, patterns: list[str], findings: Findings) -> list[str]:
    """Return the files in the order of their patterns, sorted within each; a file that several patterns find is taken once."""
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = sorted(glob.glob(pattern, root_dir=os.path.dirname(path)))
        # An empty conf.d is nothing to complain about; a file that is named and not there is.
        if not matches and not glob.has_magic(pattern):
            findings.add("include", ("include",), f'file "{shortened(pattern, 200)}" does not exist')
        for match in matches:
            included = beside(path, match)
            if os.path.samefile(included, path):
                if not glob.has_magic(pattern):
                    findings.add("include", ("include",), f'"{shortened(pattern, 200)}" is this file itself')
                continue
            if os.path.isfile(included):
                found[included] = None
            else:  # reading a FIFO would wait for ever
                findings.add("include", ("include",), f'"{shortened(match, 200)}" is not a file')
    if len(found) > _MAX_FILES:
        findings.add("include", ("include",), f"{len(found)} files are included; at most {_MAX_FILES} can be")
    return list(found)
