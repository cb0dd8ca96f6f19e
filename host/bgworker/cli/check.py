"""``check``: workers.toml and the plugins, tried in a throw-away process; what would run is printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from bgworker._config.include import finds_itself
from bgworker._spec import BackgroundWorker
from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, verb
from bgworker.cli.plugins import inactive_hint
from bgworker.errors import ConfigurationError, HostError, PluginError, RegistrationError, error_from_dict

if TYPE_CHECKING:
    from bgworker._config.model import Configuration


@verb("check", "bgworker check\nbgworker check -c /etc/shop/workers.toml --json")
@json_option
def check(invocation: Invocation, as_json: bool) -> int:
    """Check workers.toml, load the plugins in a throw-away process, and print what would run.

    Shows each value that is not a default with where it came from. Starts nothing. Exit code 2
    for errors in workers.toml, 1 when a plugin is broken or a worker could not be registered,
    or could not be started.
    """
    configuration, _ = invocation.configuration_and_text()
    report = load_apart(configuration)
    if report.get("errors"):
        # Settings that only a plugin can judge.
        return max(_console.complain(error_from_dict(error)) for error in report["errors"])
    excess = _excess(configuration, report)
    errors = [*_errors(report), *([excess] if excess else [])]
    if as_json:
        facts = {key: report[key] for key in ("plugins", "workers", "broken_plugins", "rejected", "warnings")}
        _console.say_json({"ok": not errors, "configuration": configuration.path, **facts, "errors": [e.to_dict() for e in errors]})
        return 1 if errors else 0
    _print(configuration, report)
    for warning in report["warnings"]:
        _console.note("WARNING", warning)
    for error in errors:
        _console.complain(error)
    if hint := _inactive_hint(configuration):
        _console.note("HINT", hint)
    return 1 if errors else 0


def load_apart(configuration: Configuration) -> dict[str, Any]:
    """Load the plugins in a process of their own and return its report.

    Raises:
        PluginError: The process died, or did not come to an end; names the plugin it was at.
    """
    host = configuration.host
    timeout = host.load_timeout * (1 + len(host.shared_preload_libraries))
    # -P as everywhere; faulthandler says in which file of a plugin the process died.
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "bgworker._loader", "--check", configuration.path]
    # A session of its own, so that whatever a plugin leaves running can be ended with it.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
        how = _end(process.returncode)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        how = f"did not come to an end within {timeout:g} s and was killed"
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    try:
        report = json.loads(output)
    except ValueError:
        report = None
    if not isinstance(report, dict):
        raise _died(how, errors.decode("utf-8", "replace"))
    return report


def _end(returncode: int) -> str:
    if returncode >= 0:
        return f"exited with exit code {returncode}"
    return f"was terminated by signal {-returncode}: {signal.strsignal(-returncode)}"


def _died(how: str, errors: str) -> HostError:
    """Return the blame for a check that gave no report: on the plugin whose import was announced last."""
    announced = re.findall(r"^importing (.+)$", errors, re.MULTILINE)
    said = "\n".join(line for line in errors.splitlines() if not line.startswith("importing "))
    if not announced:
        return HostError(f"the process that loads the plugins {how}", said)
    return PluginError(
        f'plugin "{announced[-1]}" cannot be loaded: the process that loaded it {how}',
        said,
        "The host would set this plugin aside and run the rest.",
    )


def _inactive_hint(configuration: Configuration) -> str:
    from bgworker._plugins.discovery import installed_plugins, select

    installed = installed_plugins()
    return inactive_hint(installed, select(configuration.host.shared_preload_libraries, installed).active)


def _excess(configuration: Configuration, report: dict[str, Any]) -> ConfigurationError | None:
    """Return the error for workers that get no slot (C14), in the words of the room that knows them."""
    from bgworker._config.merge import StaticWorker, excess_error

    workers = [StaticWorker(BackgroundWorker(bgw_name=each["bgw_name"]), each["origins"]) for each in report["workers"]]
    return excess_error(workers, configuration.host.max_worker_processes)


def _errors(report: dict[str, Any]) -> list[HostError]:
    """Return what the loader found broken or refused; each text is a primary, then lines of detail."""
    errors: list[HostError] = []
    for plugin in report["broken_plugins"]:
        primary, _, detail = str(plugin["error"]).partition("\n")
        name = f'"{plugin["name"]}"'
        errors.append(PluginError(primary if name in primary else f"plugin {name} is broken: {primary}", detail))
    for rejected in report["rejected"]:
        primary, _, detail = str(rejected["error"]).partition("\n")
        errors.append(RegistrationError(primary, detail, rejected.get("hint", "")))
    return errors


#: Keys that the first line of a worker shows already.
_IN_HEADLINE = ("bgw_name", "bgw_library_name", "bgw_function_name", "command")


def _print(configuration: Configuration, report: dict[str, Any]) -> None:
    _console.say(f"configuration  {configuration.path}")
    if configuration.include:
        itself = (
            "; not this file itself, which a pattern finds, too" if finds_itself(configuration.path, configuration.include) else ""
        )
        _console.say(f"included       {', '.join(configuration.included) or 'nothing'}{itself}")
    _console.say(f"plugins        {', '.join(report['plugins']) or 'none'}")
    count = len(report["workers"])
    _console.say(f"workers        {count} of {configuration.host.max_worker_processes} slots")
    for worker in report["workers"]:
        origins = worker["origins"]
        keys = [key for key in worker if key in origins and key not in _IN_HEADLINE and origins[key] != "default"]
        width = max(map(len, keys), default=0)
        if worker["command"] is not None:
            what, source = shlex.join(worker["command"]), origins["command"]
        else:
            what = f"{worker['bgw_library_name']}:{worker['bgw_function_name']}"
            source = origins.get("bgw_function_name") or origins.get("bgw_name", "")
        _console.say()
        _console.say(f"{worker['bgw_name']}  {what}  ({source})")
        for key in keys:
            _console.say(f"  {key:<{width}}  {_value(worker[key])}  ({origins[key]})")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
