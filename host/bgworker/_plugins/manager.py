"""Loads plugins one by one and calls their hooks, each call under guard.

The only room that imports pluggy. Runs in the loader (load, settings, init) and, inherited
by its clone, in the launcher (ready, event); never in the host. Must never let a plugin's
failure reach another plugin: pluggy's own ``load_setuptools_entrypoints`` stops at the first
exception, and one call of a hook stops at the first plugin that raises, so each plugin gets
a plugin manager of its own. That also keeps pluggy from comparing and hashing one plugin's
objects for another's sake, and makes undoing a half-done registration a matter of dropping
it.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import reduce
from importlib import import_module
from typing import Any, Final, NamedTuple

import pluggy

from bgworker import _code, hookspecs
from bgworker._config.merge import PluginRegistration
from bgworker._declare import declared_keys
from bgworker._plugins import settings as plugin_settings
from bgworker._plugins.discovery import InstalledPlugin, fold, parse_reference
from bgworker._plugins.guard import blame, plugin_error
from bgworker._spec import BackgroundWorker
from bgworker.errors import ConfigurationError, PluginError, RegistrationError

#: Every hook there is.
HOOKS: Final = ("bgworker_event", "bgworker_init", "bgworker_ready", "bgworker_settings")
#: Names of entry points in bgworker.workers: each becomes a bgw_name (design section 5).
_WORKER_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")


class _EntryPointWorker(NamedTuple):
    name: str
    module: str
    function_name: str
    function: Callable[..., Any]


class _Loaded(NamedTuple):
    plugin: InstalledPlugin
    pluggy: pluggy.PluginManager
    hooks: frozenset[str]
    workers: tuple[_EntryPointWorker, ...]


class _Registry:
    """What bgworker_init is given (hookspecs.BackgroundWorkerRegistry)."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._workers: list[BackgroundWorker] = []
        self._is_open = True

    def register_background_worker(self, worker: BackgroundWorker) -> None:
        """Register one static worker; its values are checked later, with what workers.toml overrides."""
        if not self._is_open:
            raise RegistrationError(
                "background worker cannot be registered: static registration is possible only while the host starts or reloads",
                "bgworker_init has returned.",
                "Register a dynamic worker from bgworker_ready, from a worker or from a client.",
            )
        if not isinstance(worker, BackgroundWorker):
            raise RegistrationError(
                f"background worker cannot be registered: {type(worker).__name__} is not a BackgroundWorker",
                message_hint="Give register_background_worker() a bgworker.BackgroundWorker.",
            )
        self._workers.append(worker)

    def close(self) -> list[BackgroundWorker]:
        """Refuse from here on, and return what was registered."""
        self._is_open = False
        return self._workers


class PluginHost:
    """The loaded plugins of one loader, by name."""

    def __init__(self) -> None:
        self._loaded: dict[str, _Loaded] = {}
        #: The types that plugins gave for their settings.
        self.settings_types: dict[str, type] = {}
        #: Why a plugin is not, or no longer, among the loaded ones.
        self.broken: dict[str, str] = {}
        #: What was on disk when a top package was imported here, by its name (see ``bgworker._code``).
        self.code: dict[str, dict[str, str]] = {}

    @property
    def names(self) -> list[str]:
        """The loaded plugins, in the order in which they were loaded."""
        return list(self._loaded)

    @property
    def needs_launcher(self) -> bool:
        """Whether a loaded plugin has a hook that runs in the launcher."""
        return bool(self.implementing("bgworker_ready") or self.implementing("bgworker_event"))

    def implementing(self, hook: str) -> list[str]:
        """Return the names of the loaded plugins that implement a hook, in load order."""
        return [name for name, loaded in self._loaded.items() if hook in loaded.hooks]

    def library(self, name: str) -> str | None:
        """Return the module that a bgw_library_name leads to, if it is the name of a loaded plugin with an object.

        Answers as ``discovery.plugin_named`` does, without reading any metadata.
        """
        for loaded in self._loaded.values():
            if loaded.plugin.value and fold(loaded.plugin.name) == fold(name):
                return parse_reference(loaded.plugin.value).module
        return None

    def load(self, plugin: InstalledPlugin | str) -> None:
        """Import a plugin, check its hooks, and ask for the type of its settings. Loading twice does nothing.

        Args:
            plugin: An installed plugin, or the name of a plain module, which may have hooks too.

        Raises:
            PluginError: Nothing of the plugin is kept but its name in ``broken``.
        """
        if isinstance(plugin, str):
            plugin = InstalledPlugin(plugin, "", "", plugin)
        if plugin.name in self._loaded:
            return
        try:
            if plugin.error:
                raise plugin_error(plugin, "has broken metadata", f"{plugin.error}.")
            loaded = self._import(plugin)
            settings_type = _ask_settings_type(loaded)
        except PluginError as error:
            self._set_aside(plugin.name, error)
            raise
        self.broken.pop(plugin.name, None)
        self._loaded[plugin.name] = loaded
        if settings_type is not None:
            self.settings_types[plugin.name] = settings_type

    def convert_settings(self, plugin: InstalledPlugin | str, raw: Mapping[str, Any] | None) -> object:
        """Return a plugin's settings as an instance of the type it gave; the raw table when it gave none.

        Args:
            plugin: A loaded plugin; of one that is not, the raw table is returned.
            raw: ``[settings.NAME]``; None where workers.toml has no such table.

        Raises:
            ConfigurationError: A ``SettingsErrors``, which names the table and each key.
            PluginError: The plugin's own check failed in another way than with ValueError.
        """
        name = plugin if isinstance(plugin, str) else plugin.name
        raw = {} if raw is None else raw
        if name not in self.settings_types:
            return dict(raw) if isinstance(raw, Mapping) else raw
        with blame(self._loaded[name].plugin, f"while it checked [settings.{name}]", (ConfigurationError,)):
            return plugin_settings.convert(name, self.settings_types[name], raw)

    def initialise(self, plugin: InstalledPlugin | str, raw_settings: Mapping[str, Any] | None = None) -> list[PluginRegistration]:
        """Call bgworker_init and collect the entry-point workers; all of a plugin's registrations or none.

        Raises:
            PluginError: The hook failed; the plugin is set aside.
            ConfigurationError: The settings do not fit; the plugin stays loaded.
        """
        name = plugin if isinstance(plugin, str) else plugin.name
        loaded = self._loaded[name]
        registry = _Registry(self.convert_settings(name, raw_settings))
        try:
            if "bgworker_init" in loaded.hooks:
                with blame(loaded.plugin, 'in hook "bgworker_init"'):
                    loaded.pluggy.hook.bgworker_init(registry=registry)
            workers = [*registry.close(), *(_entry_point_registration(loaded.plugin, worker) for worker in loaded.workers)]
        except PluginError as error:
            registry.close()
            self._set_aside(name, error)
            raise
        return [PluginRegistration(name, worker) for worker in workers]

    def ready(self, name: str, host: hookspecs.RunningHost, let_through: tuple[type[BaseException], ...] = ()) -> None:
        """Call one plugin's bgworker_ready. Call only in the launcher.

        Raises:
            PluginError: The hook failed.
        """
        loaded = self._loaded[name]
        with blame(loaded.plugin, 'in hook "bgworker_ready"', let_through):
            loaded.pluggy.hook.bgworker_ready(host=host)

    def event(self, name: str, event: hookspecs.Event, let_through: tuple[type[BaseException], ...] = ()) -> None:
        """Call one plugin's bgworker_event. Call only in the launcher.

        Raises:
            PluginError: The hook failed; it stays in use.
        """
        loaded = self._loaded[name]
        with blame(loaded.plugin, 'in hook "bgworker_event"', let_through):
            loaded.pluggy.hook.bgworker_event(event=event)

    def _import(self, plugin: InstalledPlugin) -> _Loaded:
        manager = pluggy.PluginManager("bgworker")
        manager.add_hookspecs(hookspecs)
        hooks: frozenset[str] = frozenset()
        for value in (plugin.value, *(value for _name, value in plugin.workers)):
            module = value.partition(":")[0].strip()
            if (top := module.partition(".")[0]) and top not in self.code:
                # Before the import: what changes while it goes on counts as changed.
                self.code[top] = _code.describe(module, plugin.distribution, plugin.version)
        if plugin.value:
            with blame(plugin, f'while "{plugin.value}" was imported'):
                found = _resolve(plugin.value)
            hooks = _register(plugin, manager, found)
        return _Loaded(plugin, manager, hooks, tuple(_import_worker(plugin, name, value) for name, value in plugin.workers))

    def _set_aside(self, name: str, error: PluginError) -> None:
        self._loaded.pop(name, None)
        self.settings_types.pop(name, None)
        self.broken[name] = "\n".join(filter(None, (error.message_primary, error.message_detail, error.message_hint)))


def _resolve(value: str) -> Any:
    module, attribute = parse_reference(value)
    return reduce(getattr, filter(None, attribute.split(".")), import_module(module))


def _register(plugin: InstalledPlugin, manager: pluggy.PluginManager, found: Any) -> frozenset[str]:
    """Give the plugin's object to pluggy and return the hooks it implements, or say which of its hooks is wrong."""
    try:
        with blame(plugin, "while its hooks were registered", (pluggy.PluginValidationError, PluginError)):
            _check_hooks(plugin, manager, found)
            manager.register(found, name=plugin.name)
            manager.check_pending()
            return frozenset(hook for hook in HOOKS if getattr(manager.hook, hook).get_hookimpls())
    except pluggy.PluginValidationError as error:
        text = " ".join(str(error).split())
        named = re.search(r"hook '([^']+)'", text)
        raise plugin_error(
            plugin,
            f'has a wrong signature for hook "{named[1] if named else "?"}"',
            f"{text}.",
            "The hooks and their arguments are those of bgworker.hookspecs; a hook may leave arguments out, but not add any.",
        ) from None


def _check_hooks(plugin: InstalledPlugin, manager: pluggy.PluginManager, found: Any) -> None:
    """Find the mistakes that pluggy does not: a forgotten mark, a coroutine, a misspelt name."""
    for attribute in dir(found):
        marks = manager.parse_hookimpl_opts(found, attribute)
        if marks is None:
            if attribute in HOOKS and inspect.isroutine(getattr(found, attribute)):
                raise plugin_error(
                    plugin, f'has a function "{attribute}" that is not marked as a hook', hint="Put @hookimpl above it."
                )
            continue
        hook = marks.get("specname") or attribute
        if hook not in HOOKS and not marks.get("optionalhook"):
            near = difflib.get_close_matches(hook, HOOKS, n=1)
            raise plugin_error(
                plugin,
                f'implements hook "{hook}", which does not exist',
                f"The hooks are {', '.join(HOOKS)}.",
                f'Did you mean "{near[0]}"?' if near else "",
            )
        if inspect.iscoroutinefunction(getattr(found, attribute)):
            raise plugin_error(plugin, f'has a coroutine as hook "{hook}"', hint="Hooks are plain functions; workers may be async.")


def _ask_settings_type(loaded: _Loaded) -> type | None:
    if "bgworker_settings" not in loaded.hooks:
        return None
    with blame(loaded.plugin, 'in hook "bgworker_settings"'):
        settings_type: type | None = loaded.pluggy.hook.bgworker_settings()
        if settings_type is not None:
            plugin_settings.check_settings_type(settings_type)
        return settings_type


def _import_worker(plugin: InstalledPlugin, name: str, value: str) -> _EntryPointWorker:
    """Import the function behind one entry point of the workers group; its decorator's keys are on it."""
    if _WORKER_NAME.fullmatch(name) is None:
        raise plugin_error(
            plugin,
            f'names a background worker "{name}"',
            'Names in the entry-point group "bgworker.workers" consist of letters, digits, "_", "." and "-".',
            "Give the entry point another name, and the worker its bgw_name with @bgworker.background_worker(bgw_name=...).",
        )
    module, attribute = parse_reference(value)
    if not attribute:
        raise plugin_error(
            plugin, f'names no function for background worker "{name}"', f'Its value is "{value}", not MODULE:FUNCTION.'
        )
    with blame(plugin, f'while "{value}" was imported for background worker "{name}"'):
        function = _resolve(value)
    if not callable(function):
        raise plugin_error(
            plugin, f'names something else than a function for background worker "{name}"', f'"{value}" cannot be called.'
        )
    return _EntryPointWorker(name, module, attribute, function)


def _entry_point_registration(plugin: InstalledPlugin, worker: _EntryPointWorker) -> BackgroundWorker:
    keys = {"bgw_name": worker.name, **declared_keys(worker.function)}
    with blame(plugin, f'while background worker "{worker.name}" was registered'):
        return BackgroundWorker(**{**keys, "bgw_library_name": worker.module, "bgw_function_name": worker.function_name})
