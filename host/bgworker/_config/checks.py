"""What the shape of workers.toml cannot say: values that must fit each other, names, rights, worker registrations.

Pure but for the environment, which is an argument. Every check reports all it finds. The
checks on a single worker are those of ``bgworker._spec.sanity_check``, asked key by key,
so that the file and a dynamic registration are judged alike. Used by ``load.py``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from msgspec import UnsetType

from bgworker._config.findings import Findings, shown, shown_key
from bgworker._config.lines import Path
from bgworker._config.model import NEVER, EnvironmentReference, shortened, worker_label
from bgworker._spec import (
    BGW_NEVER_RESTART,
    BGWORKER_SHMEM_ACCESS,
    BackgroundWorker,
    BgWorkerFlags,
    BgWorkerStartTime,
    sanity_check,
)
from bgworker._text import is_all_inert
from bgworker.errors import RegistrationError

_PLUGIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_LIBRARY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: libpq knows both spellings.
_URL_PREFIXES: Final = ("postgresql://", "postgres://")
#: A worker that can be registered, on which one key after another is tried.
_SOUND: Final = BackgroundWorker(bgw_name="x", bgw_library_name="x", bgw_function_name="x")
#: What makes of it one with a command.
_NO_FUNCTION: Final = {"bgw_library_name": "", "bgw_function_name": ""}
#: Keys that do not go with a command.
_NOT_WITH_COMMAND: Final = (
    "bgw_library_name",
    "bgw_function_name",
    "bgw_flags",
    "singleton",
    "wake_on",
    "bgw_main_arg",
    "watchdog",
)


def check_host(values: dict[str, Any], given: Collection[str], findings: Findings) -> None:
    """Report what is wrong with the values of [host], each of which has the right type; given are all keys in the file."""
    first: dict[str, int] = {}
    for number, name in enumerate(values.get("shared_preload_libraries", ()), 1):
        place = ("[host] shared_preload_libraries", ("host", "shared_preload_libraries"))
        if name != "*" and not _PLUGIN_NAME.fullmatch(name):
            findings.add(*place, f'expected names of plugins, or "*", found {shown(name)} as item {number}')
        # Folded as package names are; "the same plugin twice" is a slip that would hide which settings count.
        elif (before := first.setdefault(name.casefold().replace("-", "_"), number)) != number:
            findings.add(*place, f'item {number}, "{shortened(name)}", names the same plugin as item {before}')
    for number, directory in enumerate(values.get("python_path", ()), 1):
        if not directory or not is_all_inert(directory):
            place = ("[host] python_path", ("host", "python_path"))
            findings.add(*place, f"expected directories, found {shown(directory)} as item {number}")
    for key in ("control_group", "data_directory"):
        _check_text("[host]", ("host", key), values.get(key), findings)
    rights = values.get("control_allow", [])
    place = ("[host] control_allow", ("host", "control_allow"))
    for number, right in enumerate(rights, 1):
        if not is_right(right):
            findings.add(
                *place,
                f"expected rights, found {shown(right)} as item {number}",
                'A right is "view", "operate", "register", "register:LIBRARY" or "register:LIBRARY:FUNCTION".',
            )
    if rights and "control_group" not in given:
        findings.add(
            *place, "rights are given to nobody: key control_group is missing", hint="Name the group that is to have these rights."
        )


def is_right(text: str) -> bool:
    """Whether the text is a right that ``control_allow`` can give."""
    verb, *limits = text.split(":")
    if verb in ("view", "operate"):
        return not limits
    if verb != "register" or len(limits) > 2:
        return False
    if limits and not _LIBRARY.fullmatch(limits[0]):
        return False
    return len(limits) < 2 or bool(limits[1] and limits[1].isprintable() and not re.search(r"\s", limits[1]))


def check_database(values: dict[str, Any], findings: Findings, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of [database] with references to the environment resolved; report what is wrong with them."""
    resolved = dict(values)
    for key in ("url", "direct_url"):
        if values.get(key) is not None:
            resolved[key] = _resolved_url(key, values[key], findings, environ)
    if values.get("url") == "embedded" and "direct_url" in values:
        where = ("[database] direct_url", ("database", "direct_url"))
        findings.add(*where, 'expected no direct_url beside url = "embedded"', "The embedded server has no pooler in front of it.")
    for key, limit in (("name", 63), ("user", 63)):
        _check_text("[database]", ("database", key), values.get(key), findings, limit)
    return resolved


def _resolved_url(key: str, value: str | EnvironmentReference, findings: Findings, environ: Mapping[str, str]) -> str:
    where = (f"[database] {key}", ("database", key))
    name = shown_key(value.env) if isinstance(value, EnvironmentReference) else ""
    # What a shell or a secrets file puts around it is none of it.
    text = environ.get(value.env, "").strip() if isinstance(value, EnvironmentReference) else value
    if isinstance(value, EnvironmentReference) and not text:
        state = "empty" if value.env in environ else "not set"
        findings.add(*where, f'environment variable "{name}" is {state}', hint=f"Set {name} where the host is started.")
        return ""
    is_fine = text.startswith(_URL_PREFIXES) or (key == "url" and text == "embedded")
    if not is_fine or not is_all_inert(text):
        wanted = "a URL that starts with postgresql://"
        if key == "url":
            wanted = f'"embedded" or {wanted}'
        # Never the text itself: it holds a password as often as not.
        found = f'another string in environment variable "{name}"' if name else "another string"
        findings.add(*where, f"expected {wanted}, found {found}")
    return text


def _check_text(table: str, path: tuple[str, str], text: str | None, findings: Findings, limit: int | None = None) -> None:
    where = (f"{table} {path[1]}", path)
    if text is None:
        return
    if not text.strip():
        findings.add(*where, "expected a string that is not empty")
    elif not is_all_inert(text):
        findings.add(*where, "has control characters")
    elif limit is not None and (size := len(text.encode())) > limit:
        findings.add(*where, f"is too long: {size} bytes of UTF-8, at most {limit} are allowed")


def registration_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a [[worker]] as fields of a registration; only those that are set."""
    fields = {
        key: value for key, value in values.items() if not isinstance(value, UnsetType) and key not in ("enabled", "instances")
    }
    if "bgw_flags" in fields:
        flags = BgWorkerFlags(0)
        for name in fields["bgw_flags"]:
            flags |= BgWorkerFlags[name]
        fields["bgw_flags"] = flags
    if "bgw_start_time" in fields:
        fields["bgw_start_time"] = BgWorkerStartTime[fields["bgw_start_time"]]
    if fields.get("bgw_restart_time") == NEVER:
        fields["bgw_restart_time"] = BGW_NEVER_RESTART
    for key in ("wake_on", "success_exit_codes", "command", "after"):
        if key in fields:
            fields[key] = tuple(fields[key])
    return fields


def check_worker(
    values: Mapping[str, Any], given: Collection[str], table: str, path: Path, findings: Findings, *, has_database: bool
) -> None:
    """Report why a [[worker]] cannot be registered, whatever a plugin may register under its name.

    Args:
        values: Those of its keys that have the right type.
        given: All of its keys.
        table: How errors name it.
        path: Where it stands.
        findings: Where errors go.
        has_database: Whether the file has a [database].
    """
    fields = registration_values(values)
    if not {"bgw_library_name", "bgw_flags", "command"} & set(given):
        fields.pop("singleton", None)  # its flags are those of a plugin's worker; both are checked once they are merged
    # A worker that is switched off may wait for a database to be configured.
    has_database = has_database or not values.get("enabled", True)
    if fields.get("bgw_library_name") and not {"bgw_function_name", "command"} & set(given):
        findings.add(table, path, "key bgw_function_name is missing", "Expected is the name of a function in the library.")
    try:
        sanity_check(
            replace(_SOUND, **(_NO_FUNCTION if "command" in fields else {}) | fields), is_dynamic=False, has_database=has_database
        )
    except RegistrationError:
        pass  # which is the first of perhaps several
    else:
        return
    reported: set[str] = set()
    for keys, trial in _trials(fields):
        try:
            sanity_check(replace(_SOUND, **trial), is_dynamic=False, has_database=has_database)
        except RegistrationError as error:
            # The sentence names the worker first; here the table has.
            _, _, sentence = error.message_primary.partition(" cannot be registered: ")
            # The sentence begins with the key that is wrong, which may be another one of a trial of several.
            if sentence not in reported:
                reason = sentence.removeprefix(f"{keys[0]} ")
                findings.add(f"{table} {keys[0]}", (*path, keys[0]), reason, error.message_detail, error.message_hint)
            reported.add(sentence)


def _trials(fields: dict[str, Any]) -> list[tuple[Sequence[str], dict[str, Any]]]:
    """Return the keys one by one, then those that must fit each other, together."""
    trials: list[tuple[Sequence[str], dict[str, Any]]] = []
    for key, value in fields.items():
        if key == "wake_on":
            trials += [([key], {key: (channel,)}) for channel in value]
        elif key == "command":
            trials.append(([key], {key: value} | _NO_FUNCTION))
        elif key != "singleton":
            trials.append(([key], {key: value}))
    # With shared memory access, the lack of which is reported by then.
    flags = fields.get("bgw_flags", BGWORKER_SHMEM_ACCESS) | BGWORKER_SHMEM_ACCESS
    if "command" in fields:
        alone = {"command": ("x",)} | _NO_FUNCTION
        trials += [([key], alone | {key: fields[key]}) for key in _NOT_WITH_COMMAND if key in fields]
    elif "singleton" in fields:
        trials.append((["singleton"], {"bgw_flags": flags, "singleton": fields["singleton"]}))
    if "bgw_flags" in fields and "bgw_start_time" in fields:
        trials.append((["bgw_start_time"], {"bgw_flags": flags, "bgw_start_time": fields["bgw_start_time"]}))
    if "stop_when" in fields and "bgw_start_time" in fields:
        trials.append((["stop_when"], {key: fields[key] for key in ("stop_when", "bgw_start_time")}))
    if "schedule" in fields:
        beside = ("bgw_restart_time", "restart_on", "restart_backoff", "essential", "max_age", "max_memory")
        trials += [(["schedule"], {"schedule": fields["schedule"], key: fields[key]}) for key in beside if key in fields]
        if "singleton" in fields:
            trials.append((["schedule"], {"bgw_flags": flags, "singleton": fields["singleton"], "schedule": fields["schedule"]}))
    for key in ("restart_on", "restart_backoff"):
        if key in fields and "bgw_restart_time" in fields:
            trials.append(([key], {key: fields[key], "bgw_restart_time": fields["bgw_restart_time"]}))
    return trials


def check_duplicates(workers: Sequence[Mapping[str, Any]], findings: Findings) -> None:
    """Report each [[worker]] whose name another one before it has."""
    first: dict[str, int] = {}
    for number, values in enumerate(workers, 1):
        name = values.get("bgw_name")
        if name is None or (before := first.setdefault(name, number)) == number:
            continue
        line = findings.line(("worker", before - 1, "bgw_name"))
        findings.add(
            f"{worker_label(number, name)} bgw_name",
            ("worker", number - 1, "bgw_name"),
            f"the name is already that of [[worker]] #{before}" + (f" on line {line}" if line is not None else ""),
            hint="Give each worker a name of its own; there is one [[worker]] for each.",
        )


class Part(NamedTuple):
    """What one file has of a configuration, with its errors."""

    findings: Findings
    workers: list[dict[str, Any]]
    settings: dict[str, dict[str, Any]]


def check_apart(parts: Sequence[Part]) -> None:
    """Report what several files have, each with the place where it stands first."""
    names: dict[str, tuple[int, str]] = {}
    tables: dict[str, tuple[int, str]] = {}
    for at, part in enumerate(parts):
        for number, values in enumerate(part.workers, 1):
            name = values.get("bgw_name")
            if name is None:
                continue
            first = names.setdefault(name, (at, f"[[worker]] #{number}{_place(part, ('worker', number - 1, 'bgw_name'))}"))
            if first[0] != at:
                part.findings.add(
                    f"{worker_label(number, name)} bgw_name",
                    ("worker", number - 1, "bgw_name"),
                    f"the name is already that of {first[1]}",
                    hint="Give each worker a name of its own; there is one [[worker]] for each.",
                )
        for plugin in part.settings:
            first = tables.setdefault(plugin, (at, _place(part, ("settings", plugin))))
            if first[0] != at:
                problem = f"the settings of this plugin are already{first[1]}"
                part.findings.add(f"[settings.{shown_key(plugin)}]", ("settings", plugin), problem)


def _place(part: Part, path: Path) -> str:
    line = part.findings.line(path)
    return f" in {shortened(part.findings.path, 200)}" + (f" on line {line}" if line is not None else "")
