"""``bgworker check``: the loader's work in a throw-away process that prints what it found and gives birth to nobody."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from bgworker import _surroundings
from bgworker._config.load import ConfigurationErrors
from bgworker._loader import trial
from bgworker._loader.catalogue import Catalogue, build
from bgworker._process import env_file, programs
from bgworker._process.identity import OwnIdentity, find_identity
from bgworker._spec import BackgroundWorker, printable
from bgworker._worker.library import resolve
from bgworker.errors import ConfigurationError, HostError, PluginError


def check(config_path: str) -> int:
    """Print as JSON what ``run`` would load and start; never returns. The exit code is 2 when the configuration has errors."""
    report: dict[str, Any]
    # Plugins print while they are imported; standard output is for the report alone.
    output = os.dup(1)
    os.dup2(2, 1)
    code = 0
    try:
        catalogue = build(config_path or None, announce=_announce, may_start_threads=True)
        report = catalogue.to_message()
        report["workers"] = [_shown(each["worker"]) | {"origins": each["origins"]} for each in report["workers"]]
        report["rejected"] = [*report["rejected"], *_hopeless(catalogue)]
        report["errors"] = []
        # They may hold secrets, and nobody asked.
        del report["config_text"], report["settings"], report["fixed"]
    except ConfigurationError as error:
        errors = error.errors if isinstance(error, ConfigurationErrors) else [error]
        report = {"errors": [each.to_dict() for each in errors]}
        code = 2
    with os.fdopen(output, "w") as file:
        json.dump(report, file)
        file.write("\n")
    sys.stdout.flush()
    os._exit(code)  # threads of plugins must not keep a finished check alive


def _shown(worker: dict[str, Any]) -> dict[str, Any]:
    return {key: _surroundings.shown(key, value) for key, value in worker.items()}


def _announce(name: str) -> None:
    """Say what is about to be imported: whoever reads this blames by it when the process ends."""
    sys.stderr.write(f"importing {name}\n")
    sys.stderr.flush()


def _hopeless(catalogue: Catalogue) -> list[dict[str, str]]:
    """Return the workers whose function cannot be found, as each of them would find out at every start (C10)."""
    assert catalogue.static is not None
    found = []
    for static in catalogue.static.workers:
        worker = static.worker
        if (refusal := _refused_identity(worker) or _out_of_reach(worker)) is not None:
            found.append(refusal)
            continue
        if worker.command is not None or worker.bgw_library_name in catalogue.broken:
            continue  # it has none, or that was named already
        _announce(worker.bgw_library_name)
        try:
            resolve(worker.bgw_library_name, worker.bgw_function_name, catalogue.plugins)
        except PluginError as error:
            found.append(_would_fail(worker, error))
    return found


def _refused_identity(worker: BackgroundWorker) -> dict[str, str] | None:
    """Return why the worker cannot run as its user and group on a host that whoever checks would start."""
    refusal = OwnIdentity.of_this_process().refusal(worker.user, worker.group)
    if refusal is not None:
        return _rejected(worker, "cannot be registered", refusal)
    if (worker.user, worker.group) != (None, None):
        try:
            find_identity(worker.user, worker.group)
        except HostError as error:
            return _would_fail(worker, error)
    return None


def _out_of_reach(worker: BackgroundWorker) -> dict[str, str] | None:
    """Return which file, directory or program that the worker starts with is missing or wrong, for its user if it has one."""
    if (worker.user, worker.group) != (None, None) and find_identity(worker.user, worker.group).is_change and os.geteuid() == 0:
        refusal = trial.problem_of(worker)
        return None if refusal is None else _would_fail(worker, refusal)
    try:
        variables = dict(os.environ) | (env_file.read(worker.env_file) if worker.env_file is not None else {})
        if worker.working_directory is not None and not os.path.isdir(worker.working_directory):
            raise HostError(f'working_directory "{printable(worker.working_directory)}" is not a directory')
        if worker.command is not None:
            path = (variables | dict(worker.environment or {})).get("PATH", os.defpath)
            programs.find(worker.command[0], path, worker.working_directory or "")
    except HostError as error:
        return _would_fail(worker, error)
    return None


def _would_fail(worker: BackgroundWorker, error: HostError) -> dict[str, str]:
    return _rejected(worker, "would fail to start", (error.message_primary, error.message_detail, error.message_hint))


def _rejected(worker: BackgroundWorker, verb: str, lines: tuple[str, str, str]) -> dict[str, str]:
    """Return a worker as the catalogue has those that it rejected, and the advice apart."""
    primary, detail, hint = lines
    text = f'background worker "{printable(worker.bgw_name)}" {verb}: {primary}'
    return {"bgw_name": worker.bgw_name, "error": f"{text}\n{detail}" if detail else text, "hint": hint}
