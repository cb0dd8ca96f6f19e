"""What the loader finds out: workers.toml read, plugins imported under guard, static workers merged.

``build`` announces each plugin before it touches it. When the process then dies, hangs or
is spoiled (``traces``), whoever started it knows whom to blame, starts another loader and passes
the name in ``excluded`` (never touched again) or ``exec_only`` (imported only in processes
that are not cloned).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bgworker._config.after import check_after, check_names
from bgworker._config.load import ConfigurationErrors, parse_configuration, read_configuration
from bgworker._config.merge import PluginRegistration, StaticWorkers, merge_static_workers
from bgworker._config.model import Configuration, HostSettings
from bgworker._loader import database_url
from bgworker._loader.traces import Traces, reset_signals
from bgworker._plugins.discovery import InstalledPlugin, Selection, installed_plugins, select
from bgworker._plugins.manager import PluginHost
from bgworker._spec import worker_from_dict
from bgworker.errors import ConfigurationError, PluginError

#: Says what is about to be imported.
Announce = Callable[[str], None]


@dataclass
class Catalogue:
    """Everything the host wants to know of the configuration and the plugins, and the plugins themselves."""

    configuration: Configuration
    config_text: str
    plugins: PluginHost
    active: list[InstalledPlugin] = field(default_factory=list)
    #: Names under which a worker's library is in memory here: plugins and modules.
    preloaded: list[str] = field(default_factory=list)
    static: StaticWorkers | None = None
    broken: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    #: A plugin that is loaded apart has a hook for the launcher.
    needs_launcher: bool = False

    def to_message(self) -> dict[str, Any]:
        """Return the part that crosses to the host."""
        assert self.static is not None
        return {
            "config_text": self.config_text,
            "has_launcher_hooks": self.needs_launcher or self.plugins.needs_launcher,
            "workers": [{"worker": static.worker.to_dict(), "origins": static.origins} for static in self.static.workers],
            "rejected": self.static.rejected,
            "warnings": [*self.warnings, *self.static.warnings],
            "settings": self.configuration.settings,
            "fixed": {
                **{f"[host] {key}": _digest(value) for key, value in _fixed_keys(self.configuration.host)},
                "[database]": _digest(self.configuration.database),
            },
            "python_path": self.configuration.host.python_path,
            "preloaded": self.preloaded,
            "plugins": [plugin.name for plugin in self.active],
            "broken_plugins": [{"name": name, "error": error} for name, error in self.broken.items()],
        }


def build(
    config_path: str | None,
    config_text: str | None = None,
    announce: Announce = lambda name: None,
    excluded: Mapping[str, str] | None = None,
    exec_only: Mapping[str, str] | None = None,
    *,
    may_start_threads: bool = False,
    tell_fork: Announce = lambda name: None,
) -> Catalogue:
    """Read the configuration and load what it activates.

    Args:
        config_path: workers.toml, or None for the defaults.
        config_text: What to take for its text; None reads the file.
        announce: Called with a plugin's name before any of its code runs.
        excluded: Plugins that took an earlier loader down, with what happened.
        exec_only: Plugins that start threads at import, or replace what others use.
        may_start_threads: True in a process that is not cloned.
        tell_fork: Called in a second process, which a plugin has forked at import, and which ends after that.

    Raises:
        ConfigurationErrors: With every error of the file, and of the settings as the plugins see them.
        Spoiled: A plugin must go to ``exec_only``.
    """
    is_new = config_text is None
    if config_path is None:
        config_text = ""
    elif config_text is None:
        config_text = read_configuration(config_path)
    configuration = parse_configuration(config_text, config_path or "")
    database_url.check(configuration, config_text, with_service=is_new)
    sys.path[:0] = [path for path in configuration.host.python_path if path not in sys.path]
    catalogue = Catalogue(configuration, config_text, PluginHost())
    selection: Selection = select(configuration.host.shared_preload_libraries, installed_plugins())
    for error in selection.missing:
        # Its primary quotes the name as workers.toml has it.
        _note_broken(catalogue, error, error.message_primary.split('"')[1])
    registrations: list[PluginRegistration] = []
    errors: list[ConfigurationError] = []
    traces = Traces()
    for plugin in (*selection.active, *(InstalledPlugin(module, "", "", module) for module in selection.modules)):
        catalogue.active.append(plugin)
        if excluded and plugin.name in excluded:
            catalogue.broken[plugin.name] = excluded[plugin.name]
            continue
        announce(plugin.name)
        if exec_only and plugin.name in exec_only:
            registrations += _load_apart(catalogue, plugin, errors)
            continue
        registrations += _load(catalogue, plugin, errors)
        traces.end_second_process(plugin.name, tell_fork)
        reset_signals()
        if not may_start_threads:
            traces.check(plugin.name)
    if errors:
        raise ConfigurationErrors(config_path or "", errors)
    catalogue.static = merge_static_workers(configuration, registrations, [plugin.name for plugin in catalogue.active])
    if errors := [*check_names(catalogue.static), *check_after(catalogue.static, catalogue.broken)]:
        raise ConfigurationErrors(config_path or "", errors)
    return catalogue


def _load(catalogue: Catalogue, plugin: InstalledPlugin, errors: list[ConfigurationError]) -> list[PluginRegistration]:
    try:
        catalogue.plugins.load(plugin)
        registrations = catalogue.plugins.initialise(plugin, catalogue.configuration.settings.get(plugin.name))
    except PluginError as error:
        _note_broken(catalogue, error, plugin.name)
        return []
    except ConfigurationError as error:
        errors += error.errors if isinstance(error, ConfigurationErrors) else [error]
        return []
    modules = [value.partition(":")[0] for value in (plugin.value, *(value for _name, value in plugin.workers)) if value]
    catalogue.preloaded += dict.fromkeys([plugin.name, *modules])
    return registrations


def _note_broken(catalogue: Catalogue, error: PluginError, name: str) -> None:
    catalogue.broken[name] = "\n".join(filter(None, (error.message_primary, error.message_detail, error.message_hint)))


def _fixed_keys(host: HostSettings) -> list[tuple[str, object]]:
    """Return what the host takes at its start and not at a reload: all but what the loaders go by."""
    return [(key, getattr(host, key)) for key in host.__struct_fields__ if key not in ("shared_preload_libraries", "python_path")]


def _digest(value: object) -> str:
    """Return a text that changes with the value and tells nothing of it: there may be a password in it."""
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def _load_apart(catalogue: Catalogue, plugin: InstalledPlugin, errors: list[ConfigurationError]) -> list[PluginRegistration]:
    """Ask a thread-starting plugin for its registrations in a forked child, where its threads stay."""
    read_fd, write_fd = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        answer: dict[str, Any]
        try:
            child_errors: list[ConfigurationError] = []
            child = Catalogue(catalogue.configuration, catalogue.config_text, PluginHost())
            registrations = _load(child, plugin, child_errors)
            answer = {
                "broken": child.broken,
                "needs_launcher": child.plugins.needs_launcher,
                "errors": [error.to_dict() for error in child_errors],
                "workers": [{"plugin": each.plugin, "worker": each.worker.to_dict()} for each in registrations],
            }
        # Whatever happens here must not return into the loader's code in a second process.
        except BaseException:
            answer = {"broken": {plugin.name: traceback.format_exc()}, "needs_launcher": False, "errors": [], "workers": []}
        try:
            with os.fdopen(write_fd, "w") as file:
                json.dump(answer, file)
        finally:
            os._exit(0)  # half an answer is no answer, and the parent says so
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        text = pipe.read()
    _pid, status = os.waitpid(pid, 0)
    try:
        answer = json.loads(text)
    except ValueError:
        code = os.waitstatus_to_exitcode(status)
        catalogue.broken[plugin.name] = f'plugin "{plugin.name}" ended its process during import (exit code {code})'
        return []
    catalogue.broken.update(answer["broken"])
    catalogue.needs_launcher |= answer["needs_launcher"]
    errors += [ConfigurationError(e["message_primary"], e["message_detail"], e["message_hint"]) for e in answer["errors"]]
    return [PluginRegistration(each["plugin"], worker_from_dict(each["worker"])) for each in answer["workers"]]
