"""A plugin's own settings, as its workers see them: the ``[settings.NAME]`` table, converted by the plugin's type.

The host sends the raw tables with the assignment and again whenever the worker asks after a
SIGHUP. Conversion is the plugin room's; a preloaded worker has inherited the loaded plugins,
any other one loads the one plugin it needs, at the first call of ``settings()``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bgworker._worker.log import say
from bgworker.errors import HostError

if TYPE_CHECKING:
    from bgworker._plugins.discovery import InstalledPlugin
    from bgworker._plugins.manager import PluginHost


class Settings:
    """The settings tables of one worker.

    Args:
        raw: ``[settings]`` of workers.toml.
        library: The worker's bgw_library_name, which says whose worker it is.
        plugins: The plugins that the loader has loaded; None in a process of its own.
    """

    def __init__(self, raw: Mapping[str, Any], library: str, plugins: PluginHost | None) -> None:
        self._raw = raw
        self._library = library
        self._plugins = plugins
        self._owner: str | None = None
        #: Converted once per reload, so that ``settings()`` may be called in a loop.
        self._converted: dict[str, Any] = {}

    def own(self) -> Any:
        """Return the settings of the plugin that the worker belongs to."""
        if self._owner is None:
            self._owner = self._find_owner()
        return self.of(self._owner)

    def of(self, name: str) -> Any:
        """Return the settings of a plugin, or the plain table of a module that is no plugin.

        Raises:
            ConfigurationError: The table does not fit the plugin's type.
            PluginError: The plugin cannot be loaded.
        """
        if name not in self._converted:
            self._converted[name] = self._convert(name, self._raw)
        return self._converted[name]

    def replace(self, raw: Mapping[str, Any]) -> None:
        """Take new tables. A table that cannot be converted keeps its old values, as a bad postgresql.conf does."""
        for name in list(self._converted):
            try:
                self._converted[name] = self._convert(name, raw)
            except HostError as error:
                say(
                    "WARNING",
                    f'settings of "{name}" are not changed: {error.message_primary}',
                    error.message_detail,
                    error.message_hint,
                )
        self._raw = raw

    def _convert(self, name: str, raw: Mapping[str, Any]) -> Any:
        table = raw.get(name, {})
        plugins = self._plugins
        if plugins is not None and name in plugins.names:
            return plugins.convert_settings(name, table)
        plugin = next((each for each in _installed() if each.name == name and each.value), None)
        if plugin is None:
            return copy.deepcopy(table)
        from bgworker._plugins.manager import PluginHost

        if plugins is None:
            plugins = self._plugins = PluginHost()
        plugins.load(plugin)
        return plugins.convert_settings(name, table)

    def _find_owner(self) -> str:
        """Return the plugin whose library this is: by name, else by module, else by package; else the module's own name."""
        from bgworker._plugins.discovery import fold

        if self._plugins is not None:
            # What is in memory first: nothing has to be read for the usual worker of a preloaded plugin.
            for name in self._plugins.names:
                if fold(name) == fold(self._library) or self._plugins.library(name) == self._library:
                    return name
        installed = [plugin for plugin in _installed() if not plugin.error]
        package = self._library.partition(".")[0]
        by_name = [plugin for plugin in installed if fold(plugin.name) == fold(self._library)]
        by_module = [plugin for plugin in installed if self._library in _modules(plugin)]
        by_package = [plugin for plugin in installed if package in {module.partition(".")[0] for module in _modules(plugin)}]
        found = by_name or by_module or by_package
        return found[0].name if found else self._library


def _installed() -> list[InstalledPlugin]:
    # Reading the metadata of every distribution costs milliseconds; it happens once per worker at most, and not for most.
    from bgworker._plugins.discovery import installed_plugins

    return installed_plugins()


def _modules(plugin: InstalledPlugin) -> set[str]:
    values = [plugin.value, *(value for _name, value in plugin.workers)]
    return {value.partition(":")[0].strip() for value in values if value}
