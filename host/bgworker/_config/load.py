"""workers.toml: read, parsed, checked; a Configuration, or every error of the file at once.

Reads the file, those that it includes, and the environment variables that it names, nothing else, and imports
no plugin: what only a plugin knows (its settings, the workers it registers) is for
``merge.py`` and the plugins room. The loader and the commands load files; the host is
handed the result.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import tomli

from bgworker._config.checks import Part, check_apart, check_database, check_duplicates, check_host, check_worker
from bgworker._config.findings import ConfigurationErrors, Findings, shown, shown_key
from bgworker._config.include import INCLUDABLE, Source, check_patterns, read_all, split, syntax_error
from bgworker._config.lines import Path, SourceLines
from bgworker._config.locate import beside
from bgworker._config.model import (
    Configuration,
    ConfigurationTables,
    DatabaseSettings,
    HostSettings,
    WorkerTable,
    shortened,
    worker_label,
)
from bgworker._config.tables import convert_table, plain, table_of
from bgworker._spec import printable
from bgworker.errors import ConfigurationError

__all__ = ["ConfigurationErrors", "load_configuration", "parse_configuration", "read_configuration"]

_TWO_BRACKETS: Final = "Write [[worker]], with two brackets, above each worker."
#: How tomli ends its messages, in every version of it.
_COORDINATES: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TUPLE: Final = re.compile(r"\('[^()]*'(?:, '[^()]*')*,?\)")
_QUOTED: Final = re.compile(r"'([^']*)'")


def load_configuration(path: str, environ: Mapping[str, str] = os.environ) -> Configuration:
    """Read and check a file.

    Args:
        path: The file; relative paths in it are relative to its directory.
        environ: Where ``{ env = "NAME" }`` is looked up.

    Raises:
        ConfigurationErrors: Everything that is wrong with it.
    """
    return parse_configuration(read_configuration(path), path, environ)


def read_configuration(path: str) -> str:
    """Return a file and what it includes as one text; who keeps it can check the same again, whatever becomes of the files.

    Raises:
        ConfigurationErrors: One cannot be read, or is not UTF-8.
    """
    return read_all(path)


def parse_configuration(text: str, path: str, environ: Mapping[str, str] = os.environ) -> Configuration:
    """Check a text as ``load_configuration`` does; only names the file.

    Raises:
        ConfigurationErrors: Everything that is wrong with the text, or with those that it stands for.
    """
    main, *included = split(text, path)
    tables = _parse(main.text, path)
    parsed = _parse_included(path, included)
    findings = Findings(path, main.text)
    known = ConfigurationTables.__struct_fields__
    for key in tables:
        if key not in known:
            findings.add_key_without_meaning("top level", (key,), known, table_of(key))
    patterns = tables.get("include", [])
    check_patterns(patterns, findings)
    host = _host(tables, path, findings)
    database = _database(tables, findings, environ)
    parts = [_part(tables, findings, has_database=database is not None)]
    for source, each in zip(included, parsed, strict=True):
        parts.append(_included_part(each, Findings(source.path, source.text), has_database=database is not None))
    check_apart(parts)
    errors = [error for part in parts for error in part.findings.errors()]
    if errors:
        raise ConfigurationErrors(path, errors)
    return Configuration(
        host=HostSettings(**host),
        database=DatabaseSettings(**database) if database is not None else None,
        worker=[WorkerTable(**values) for part in parts for values in part.workers],
        settings={name: values for part in parts for name, values in part.settings.items()},
        path=path,
        references=_references(tables),
        include=patterns,
        included=[source.path for source in included],
        places=[(part.findings.path, number) for part in parts for number, _ in enumerate(part.workers, 1)] if included else [],
        overrides={name: place for part in parts for name, place in _overrides(part)},
    )


def _overrides(part: Part) -> Iterator[tuple[str, str]]:
    """Yield name and place of each worker of one file that names neither library nor command."""
    for index, values in enumerate(part.workers):
        if not {"bgw_library_name", "command"} & values.keys():
            line = part.findings.line(("worker", index, "bgw_name"))
            place = shortened(part.findings.path, 200) + (f":{line}" if line is not None else "")
            yield values["bgw_name"], f"{place}: {worker_label(index + 1, None)}"


def _references(tables: dict[str, Any]) -> list[str]:
    """Return the names in { env = "NAME" }; the tables have been checked."""
    database = tables.get("database", {})
    return [database[key]["env"] for key in ("url", "direct_url") if isinstance(database.get(key), dict)]


def _parse_included(path: str, included: Sequence[Source]) -> list[dict[str, Any]]:
    """Parse included files; the errors of all that cannot be parsed are raised at once."""
    parsed: list[dict[str, Any]] = []
    errors: list[ConfigurationError] = []
    for source in included:
        try:
            parsed.append(_parse(source.text, source.path))
        except ConfigurationErrors as error:
            errors += error.errors
    if errors:
        raise ConfigurationErrors(path, errors)
    return parsed


def _part(tables: dict[str, Any], findings: Findings, *, has_database: bool) -> Part:
    return Part(findings, _workers(tables, findings, has_database=has_database), _settings(tables, findings))


def _included_part(tables: dict[str, Any], findings: Findings, *, has_database: bool) -> Part:
    for key in tables:
        if key not in INCLUDABLE:
            is_known = key in ConfigurationTables.__struct_fields__
            elsewhere = "the file that includes this one" if is_known else table_of(key)
            findings.add_key_without_meaning("top level", (key,), INCLUDABLE, elsewhere)
    return _part(tables, findings, has_database=has_database)


def _host(tables: dict[str, Any], path: str, findings: Findings) -> dict[str, Any]:
    raw = tables.get("host", {})
    values = convert_table(raw, HostSettings, "[host]", ("host",), findings)
    check_host(values, raw if isinstance(raw, dict) else (), findings)
    directories = values.get("python_path", HostSettings().python_path)
    values["python_path"] = [beside(path, directory) for directory in directories]
    if "data_directory" in values:
        values["data_directory"] = beside(path, values["data_directory"])
    return values


def _database(tables: dict[str, Any], findings: Findings, environ: Mapping[str, str]) -> dict[str, Any] | None:
    if "database" not in tables:
        return None
    values = convert_table(tables["database"], DatabaseSettings, "[database]", ("database",), findings, is_secret=True)
    return check_database(values, findings, environ)


def _workers(tables: dict[str, Any], findings: Findings, *, has_database: bool) -> list[dict[str, Any]]:
    entries = tables.get("worker", [])
    if not isinstance(entries, list):
        found = f"expected an array of tables, found {shown(entries)}"
        findings.add("[[worker]]", ("worker",), found, hint=_TWO_BRACKETS)
        return []
    workers = []
    for index, raw in enumerate(entries):
        path: Path = ("worker", index)
        name = raw.get("bgw_name") if isinstance(raw, dict) else None
        label = worker_label(index + 1, name if isinstance(name, str) else None)
        if isinstance(raw, dict) and "bgw_main_arg" in raw:
            at = f"{label} bgw_main_arg"
            raw = raw | {"bgw_main_arg": plain(raw["bgw_main_arg"], at, (*path, "bgw_main_arg"), findings)}
        values = convert_table(raw, WorkerTable, label, path, findings)
        for key in ("env_file", "working_directory"):
            if values.get(key):
                values[key] = beside(findings.path, values[key])
        if isinstance(raw, dict):
            check_worker(values, raw, label, path, findings, has_database=has_database)
        workers.append(values)
    check_duplicates(workers, findings)
    return workers


def _settings(tables: dict[str, Any], findings: Findings) -> dict[str, dict[str, Any]]:
    entries = tables.get("settings", {})
    if not isinstance(entries, dict):
        findings.add("[settings]", ("settings",), f"expected one table for each plugin, found {shown(entries)}")
        return {}
    settings: dict[str, dict[str, Any]] = {}
    for name, raw in entries.items():
        path: Path = ("settings", name)
        label = f"[settings.{shown_key(name)}]"
        if isinstance(raw, dict):
            settings[name] = {key: plain(value, f"{label} {shown_key(key)}", (*path, key), findings) for key, value in raw.items()}
        else:
            findings.add(
                label, path, f"expected a table, found {shown(raw)}", hint="Settings stand in a table named after the plugin."
            )
    return settings


def _parse(text: str, path: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except RecursionError:
        problem = f"{shortened(path, 200)}: arrays, tables or keys are nested too deeply"
        raise ConfigurationErrors(path, [ConfigurationError(problem)]) from None
    except ValueError as error:  # TOMLDecodeError is one; an integer of thousands of digits gives a plain one
        message = str(error)
        place = _COORDINATES.search(message)
        if place is None:
            problem = f"{shortened(path, 200)}: syntax error: {_as_primary(message)}"
            raise ConfigurationErrors(path, [ConfigurationError(problem)]) from None
        if place[1]:
            line, column = int(place[1]), int(place[2])
        else:
            line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
        raise syntax_error(path, _as_primary(message[: place.start()]), line, column, *_repetition(text, line)) from None


def _as_primary(message: str) -> str:
    # tomli shows a dotted key as a tuple.
    message = _TUPLE.sub(lambda key: '"' + ".".join(_QUOTED.findall(key[0])) + '"', message)
    return printable(message[:1].lower() + message[1:])


def _repetition(text: str, line: int) -> tuple[str, str]:
    """Return where a key or table that must not come again stands first, and a hint; empty when that is not the matter."""
    up_to_error = "\n".join(text.split("\n")[:line])
    repeated = SourceLines(up_to_error).repeated
    if repeated is None:
        return "", ""
    names = [part for part in repeated.path if isinstance(part, str)]
    what = "table" if repeated.is_table else "key"
    detail = f'The {what} "{shown_key(names[-1])}" on line {repeated.second_line} is already there on line {repeated.first_line}.'
    return detail, _TWO_BRACKETS if names == ["worker"] else ""
