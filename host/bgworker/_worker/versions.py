"""Which distribution a worker's library came from, and its version: for the history of its exits.

Looks at names of folders only: importing importlib.metadata would cost a fresh interpreter
more than the worker's start. So a distribution that has another name than its module is known
only as the loaded plugin that it is. A leaf; the answer for a preloaded library is found in the
loader, and inherited.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Final, NamedTuple, Protocol

_INFO: Final = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)\.dist-info", re.IGNORECASE)


class Version(NamedTuple):
    """A distribution as it was when the library was loaded."""

    distribution: str
    version: str


class LoadedPlugins(Protocol):
    """What is asked of the plugins that a preloaded worker inherited."""

    def version(self, library: str) -> tuple[str, str] | None:
        """Return distribution and version of a loaded plugin, by its name or its module."""


_known: dict[str, Version | None] = {}


def version_of(library: str, plugins: LoadedPlugins | None = None) -> Version | None:
    """Return what a loaded library came from; None where that cannot be told, as for a module beside workers.toml."""
    if library not in _known:
        plugin = plugins.version(library) if plugins is not None else None
        _known[library] = _installed(library.partition(".")[0]) if plugin is None else Version(*plugin)
    return _known[library]


def _installed(package: str) -> Version | None:
    wanted = _fold(package)
    for directory in sys.path:
        try:
            names = os.listdir(directory or ".")
        except OSError:  # a zip file, or nothing
            continue
        for name in names:
            if (match := _INFO.fullmatch(name)) is not None and _fold(match["name"]) == wanted:
                return Version(match["name"], match["version"])
    return None


def _fold(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).casefold()
