"""The two commands that must not wait for click: ``status --json`` and a plain ``run``.

``parse`` knows just the forms of these two and answers None to everything else, mistakes
included: click then parses the same arguments and finds the words. So whatever this file
accepts must mean the same to click (tests/unit/cli/test_fast.py holds both together).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bgworker.cli._invocation import Invocation

#: Options that take a value, by what they set.
_VALUED: Final = {
    "-D": "data_directory",
    "--data-directory": "data_directory",
    "-c": "config",
    "--config": "config",
    "--log": "log_to",
    "--tied": "tied_to",
}
_OF_EVERY_VERB: Final = {"data_directory", "config"}
_STATUS_FLAGS: Final = {"--json", "--failed", "--all", "--check"}


def parse(argv: Sequence[str]) -> Callable[[], int] | None:
    """Return what the arguments ask for, or None when click must have a look at them."""
    values: dict[str, str] = {}
    words: list[str] = []
    flags: set[str] = set()
    rest = iter(argv)
    for word in rest:
        option, equals, value = word.partition("=")
        if word in _VALUED:
            value = next(rest, "")
        elif not (equals and option in _VALUED and option.startswith("--")):
            if not word.startswith("-"):
                words.append(word)
            elif words:
                flags.add(word)
            else:
                return None
            continue
        # An empty value, or one that looks like an option, is a mistake that click has words for; so is an option of
        # one verb that stands before it.
        if not value or value.startswith("-") or not (words or _VALUED[option] in _OF_EVERY_VERB):
            return None
        values[_VALUED[option]] = value
    if words[:1] == ["status"] and "--json" in flags and flags <= _STATUS_FLAGS and values.keys() <= _OF_EVERY_VERB:
        return lambda: _status(_invocation(values), tuple(words[1:]), flags)
    if words == ["run"] and not flags and _is_run(values):
        return lambda: _run(values)
    return None


def _invocation(values: dict[str, str]) -> Invocation:
    return Invocation(values.get("data_directory"), values.get("config"))


def _status(invocation: Invocation, names: tuple[str, ...], flags: set[str]) -> int:
    from bgworker.cli.status_json import print_status

    return print_status(invocation, names, only_trouble="--failed" in flags, is_check="--check" in flags)


def _is_run(values: dict[str, str]) -> bool:
    from bgworker.cli.foreground import LOG_TARGETS

    return values.get("log_to", "files") in LOG_TARGETS and values.get("tied_to", "1").isdecimal()


def _run(values: dict[str, str]) -> int:
    from bgworker.cli.foreground import run_foreground

    tied_to = values.get("tied_to")
    return run_foreground(_invocation(values), values.get("log_to"), None if tied_to is None else int(tied_to))
