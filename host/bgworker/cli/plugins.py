"""``plugins``: what is installed, what of it is activated, and what is broken. Imports none of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bgworker.cli import _console
from bgworker.cli._invocation import Invocation
from bgworker.cli._options import json_option, verb
from bgworker.errors import HostError

if TYPE_CHECKING:
    from bgworker._plugins.discovery import InstalledPlugin


@verb("plugins", "bgworker plugins\nbgworker plugins --json")
@json_option
def plugins(invocation: Invocation, as_json: bool) -> int:
    """List the installed plugins: which are activated, what they offer, which are broken.

    Installing a plugin starts nothing. One is activated by its name in shared_preload_libraries.
    Exit code 1 when an activated plugin is missing or broken.
    """
    from bgworker._plugins.discovery import installed_plugins, select

    settings = invocation.configuration().host
    # Plain modules are looked for where the workers will look; looking for a top-level module imports nothing.
    sys.path[:0] = settings.python_path
    installed = installed_plugins()
    selection = select(settings.shared_preload_libraries, installed)
    broken = _broken_in_the_host(invocation)
    facts = [_facts(plugin, plugin in selection.active, broken) for plugin in installed]
    if as_json:
        missing = [error.to_dict() for error in selection.missing]
        _console.say_json({"plugins": facts, "modules": selection.modules, "missing": missing})
    else:
        _print(facts, selection.modules)
        for error in selection.missing:
            _console.complain(error)
        if hint := inactive_hint(installed, selection.active):
            _console.note("HINT", hint)
    return 1 if selection.missing or any(fact["error"] for fact in facts if fact["active"]) else 0


def _facts(plugin: InstalledPlugin, is_active: bool, broken: dict[str, str]) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "active": is_active,
        "workers": [name for name, _value in plugin.workers],
        "commands": [name for name, _value in plugin.commands],
        "error": plugin.error or broken.get(plugin.name, ""),
    }


def _print(facts: list[dict[str, Any]], modules: list[str]) -> None:
    if not facts and not modules:
        _console.say("no plugins are installed")
        return
    rows = [("PLUGIN", "DISTRIBUTION", "VERSION", "STATE", "WORKERS", "COMMANDS")]
    for fact in facts:
        state = "broken" if fact["error"] else "active" if fact["active"] else "inactive"
        offers = (", ".join(fact["workers"]) or "-", ", ".join(fact["commands"]) or "-")
        rows.append((fact["name"], fact["distribution"], fact["version"], state, *offers))
    rows += [(module, "-", "-", "active", "-", "-") for module in modules]
    _console.table(rows)
    for fact in facts:
        if fact["error"]:
            _console.note("WARNING", f'plugin "{fact["name"]}" is broken: {_last_line(fact["error"])}')


def _last_line(text: str) -> str:
    """Return the line of a traceback that says what happened."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _broken_in_the_host(invocation: Invocation) -> dict[str, str]:
    """Return what the running host found broken; nothing when none runs."""
    try:
        with invocation.connect() as client:
            return {each["name"]: each["error"] for each in client.status()["broken_plugins"]}
    except HostError:
        return {}


def inactive_hint(installed: list[InstalledPlugin], active: list[InstalledPlugin]) -> str:
    """Return the advice on plugins that are installed and not activated; empty when there are none."""
    names = [plugin.name for plugin in installed if plugin not in active and not plugin.error]
    if not names:
        return ""
    listed = ", ".join(f'"{name}"' for name in names)
    return f"Installed, but not activated: {listed}. Add what you want to shared_preload_libraries in [host]."
