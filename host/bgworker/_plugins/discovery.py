"""Which plugins are installed, found by reading metadata only.

Must never import a plugin: commands and the host's set-up look at this list, and a package
that is merely installed starts nothing. The loader, ``check``, ``plugins`` and the command
line may import this module; what loads a plugin's code is in ``manager``.

Distributions are read one by one under guard, because ``entry_points()`` of any library
gives up at the first broken one. A broken distribution of ours is still listed, with
``error`` set, so that whoever names it learns why it cannot be used.
"""

from __future__ import annotations

import difflib
import importlib.machinery
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import importlib_metadata

from bgworker.errors import PluginError

#: An object with pluggy hooks.
PLUGINS_GROUP: Final = "bgworker.plugins"
#: A function that is a static worker, with no hook at all.
WORKERS_GROUP: Final = "bgworker.workers"
#: A click command of the command line.
COMMANDS_GROUP: Final = "bgworker.commands"
#: In shared_preload_libraries: every installed plugin.
EVERY_PLUGIN: Final = "*"

#: What an entry point's value looks like (packaging.python.org, entry points, data model).
_VALUE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(\s*:\s*[^\W\d]\w*(\.[^\W\d]\w*)*)?\s*(\[.*\])?")
_INSTALL_HINT: Final = (
    "Install the distribution that has it into this Python environment, or take the name out of shared_preload_libraries."
)
_DIST_INFO: Final = re.compile(r"(?P<name>.+?)(-[^-]+)?\.(dist|egg)-info", re.IGNORECASE)


class Reference(NamedTuple):
    """Where an entry point's value leads: a module, and an attribute path in it or nothing."""

    module: str
    attribute: str


@dataclass(frozen=True)
class InstalledPlugin:
    """One plugin, as its metadata describes it."""

    #: Name of the entry point; of the distribution, with underscores, where only workers or commands are offered.
    name: str
    distribution: str
    version: str
    #: ``module`` or ``module:object``; empty where the distribution offers no object with hooks.
    value: str
    #: Static workers by entry point: (name, value).
    workers: tuple[tuple[str, str], ...] = ()
    #: Commands by entry point: (name, value).
    commands: tuple[tuple[str, str], ...] = ()
    #: Why the plugin cannot be used; empty for a usable one.
    error: str = ""


class InstalledCommand(NamedTuple):
    """One command that a plugin adds to the command line."""

    name: str
    value: str
    plugin: InstalledPlugin


class Selection(NamedTuple):
    """What shared_preload_libraries activates."""

    active: list[InstalledPlugin]
    #: Importable modules that are no plugin's.
    modules: list[str]
    missing: list[PluginError]


class _Distribution(Protocol):
    """The part of a distribution that is read here."""

    @property
    def metadata(self) -> Any: ...

    @property
    def entry_points(self) -> Any: ...

    def read_text(self, filename: str) -> str | None: ...


class _Offer(NamedTuple):
    name: str
    value: str
    group: str


def fold(name: str) -> str:
    """Return the name as it is compared: case folded, with ``-``, ``_`` and ``.`` equal (as PEP 503 does)."""
    return re.sub(r"[-_.]+", "-", name).casefold()


def parse_reference(value: str) -> Reference:
    """Split the value of an entry point.

    Raises:
        ValueError: It is neither ``module`` nor ``module:object``.
    """
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f'"{value}" is not of the form module or module:object')
    module, _, attribute = value.split("[")[0].partition(":")
    return Reference(module.strip(), attribute.strip())


def installed_plugins() -> list[InstalledPlugin]:
    """Return every installed plugin, broken ones included, by name. Imports none of them."""
    found: dict[str, list[InstalledPlugin]] = {}
    for distribution in importlib_metadata.distributions():
        plugins = list(_read(distribution))
        if plugins:
            # The first of two copies on sys.path is the one that an import would find.
            found.setdefault(fold(plugins[0].distribution), plugins)
    return sorted(itertools.chain(*found.values()), key=lambda plugin: (fold(plugin.name), fold(plugin.distribution)))


def commands(installed: Iterable[InstalledPlugin] | None = None) -> list[InstalledCommand]:
    """Return the commands that plugins add, by name. Imports none of them."""
    plugins = installed_plugins() if installed is None else installed
    found = [InstalledCommand(name, value, plugin) for plugin in plugins if not plugin.error for name, value in plugin.commands]
    return sorted(found, key=lambda command: command.name)


def plugin_named(name: str, installed: Iterable[InstalledPlugin] | None = None) -> InstalledPlugin | None:
    """Return the plugin that a bgw_library_name means; None when it is no plugin's name."""
    plugins = installed_plugins() if installed is None else installed
    for plugin in plugins:
        if fold(plugin.name) == fold(name) and plugin.value and not plugin.error:
            return plugin
    return None


def select(preload: Sequence[str], installed: Sequence[InstalledPlugin]) -> Selection:
    """Resolve shared_preload_libraries: in its order, each plugin and module once.

    A name is a plugin's, else a distribution's (all its plugins), else the module of a
    plugin's entry point, else any importable module. Names of the first two kinds are
    compared folded, modules as Python does.
    """
    selection = Selection([], [], [])
    for name in dict.fromkeys(preload):
        if name == EVERY_PLUGIN:
            _activate(selection, installed)
            continue
        plugins = _answering(name, installed)
        if len({plugin.distribution for plugin in plugins}) > 1:
            selection.missing.append(_ambiguous(name, plugins))
        elif plugins:
            _activate(selection, plugins)
        elif not is_importable(name):
            selection.missing.append(_not_found(name, installed))
        elif name not in selection.modules:
            selection.modules.append(name)
    return selection


def is_importable(name: str) -> bool:
    """Return whether a module of this name can be found, without importing it or the packages around it."""
    if name in sys.modules:
        return True
    path: Sequence[str] | None = None
    module = ""
    for part in name.split("."):
        if not part.isidentifier():
            return False
        module = f"{module}.{part}" if module else part
        try:
            # find_spec() of importlib.util would import the parents of a dotted name.
            spec = importlib.util.find_spec(part) if path is None else importlib.machinery.PathFinder.find_spec(module, path)
        except (ImportError, ValueError, OSError):
            return False
        if spec is None:
            return False
        path = list(spec.submodule_search_locations or ())
    return True


def _activate(selection: Selection, plugins: Iterable[InstalledPlugin]) -> None:
    for plugin in plugins:
        if not plugin.error:
            if plugin not in selection.active:
                selection.active.append(plugin)
        elif (error := _unusable(plugin)).args not in [each.args for each in selection.missing]:
            selection.missing.append(error)


def _answering(name: str, installed: Sequence[InstalledPlugin]) -> list[InstalledPlugin]:
    folded = fold(name)
    return (
        [plugin for plugin in installed if fold(plugin.name) == folded]
        or [plugin for plugin in installed if fold(plugin.distribution) == folded]
        or [plugin for plugin in installed if not plugin.error and plugin.value and parse_reference(plugin.value).module == name]
    )


def _ambiguous(name: str, plugins: Sequence[InstalledPlugin]) -> PluginError:
    owners = ", ".join(f'"{plugin.distribution}"' for plugin in plugins)
    return PluginError(
        f'plugin "{name}" is not loaded: several distributions offer it',
        f"They are {owners}.",
        "Write the name of the distribution in shared_preload_libraries, or uninstall the others.",
    )


def _unusable(plugin: InstalledPlugin) -> PluginError:
    return PluginError(
        f'plugin "{plugin.name}" is not loaded: its distribution has broken metadata',
        f'Distribution "{plugin.distribution}" {plugin.version}: {plugin.error}.'.replace("..", "."),
        "Install the distribution again, or ask its author.",
    )


def _not_found(name: str, installed: Sequence[InstalledPlugin]) -> PluginError:
    names = {fold(each): each for plugin in installed for each in (plugin.distribution, plugin.name)}
    near = [names[each] for each in difflib.get_close_matches(fold(name), names, n=3, cutoff=0.6)]
    quoted = ", ".join(f'"{each}"' for each in near)
    hint = f"The nearest installed {'name is' if len(near) == 1 else 'names are'} {quoted}." if near else _INSTALL_HINT
    return PluginError(
        f'plugin "{name}" is not loaded: nothing installed has this name',
        "shared_preload_libraries lists it, but it is neither a plugin, nor a distribution, nor a module that can be imported.",
        hint,
    )


def _read(distribution: _Distribution) -> Iterator[InstalledPlugin]:
    """Yield the plugins of one distribution; nothing when it offers nothing of ours."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except UnicodeDecodeError as error:
        if b"bgworker." not in error.object:
            return
        yield _broken(distribution, "entry_points.txt is not UTF-8")
        return
    except OSError:
        return
    # Most distributions end here: their METADATA, which is slow to parse, is never read.
    if "bgworker." not in text:
        return
    try:
        offers = [
            _Offer(point.name, point.value, point.group)
            for point in distribution.entry_points
            if point.group in (PLUGINS_GROUP, WORKERS_GROUP, COMMANDS_GROUP)
        ]
        metadata = distribution.metadata
        name, version = (str(metadata[key] or "") if key in metadata else "" for key in ("Name", "Version"))
    # What others wrote into their metadata may break the parser in any way; it must not hide the other distributions.
    except Exception as error:
        yield _broken(distribution, f"{type(error).__name__}: {error}")
        return
    if not name or not version:
        yield _broken(distribution, f"METADATA has no {'Name' if not name else 'Version'}")
    elif offers:
        yield from _group(name, version, offers)


def _group(distribution: str, version: str, offers: Sequence[_Offer]) -> Iterator[InstalledPlugin]:
    """Yield one plugin per entry point in the plugins group, with the distribution's workers and commands handed out to them."""
    error = ""
    for offer in offers:
        try:
            parse_reference(offer.value)
        except ValueError as problem:
            error = error or f'entry point "{offer.name}" in group "{offer.group}" cannot be used: {problem}'
    plugins = [offer for offer in offers if offer.group == PLUGINS_GROUP]
    owners = [(offer.name, offer.value) for offer in plugins] or [(fold(distribution).replace("-", "_"), "")]
    for index, (name, value) in enumerate(owners):
        yield InstalledPlugin(
            name,
            distribution,
            version,
            value,
            tuple((o.name, o.value) for o in offers if o.group == WORKERS_GROUP and _owner(o, owners) == index),
            tuple((o.name, o.value) for o in offers if o.group == COMMANDS_GROUP and _owner(o, owners) == index),
            error,
        )


def _owner(offer: _Offer, owners: Sequence[tuple[str, str]]) -> int:
    """Return which plugin of a distribution a worker or command belongs to: that of the same top package, else the first."""
    package = re.split(r"[.:\s]", offer.value, maxsplit=1)[0]
    packages = [re.split(r"[.:\s]", value, maxsplit=1)[0] for _name, value in owners]
    return packages.index(package) if package in packages else 0


def _broken(distribution: _Distribution, error: str) -> InstalledPlugin:
    # The metadata does not say the name, so the folder has to: importlib-metadata keeps its path in _path.
    folder = os.path.basename(str(getattr(distribution, "_path", "")))
    found = _DIST_INFO.fullmatch(folder)
    name = found["name"] if found else folder or "(nameless)"
    return InstalledPlugin(fold(name).replace("-", "_"), name, "(unreadable)", "", error=" ".join(error.split())[:300])
