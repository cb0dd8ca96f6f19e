"""Finds a worker's function: the library loaded here, in the worker's own process, and the function looked up in it (C10).

Whatever goes wrong is the worker's failure: one PluginError that names library and function
and gives the reason in its one primary line, with the exception as its cause for the log.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Protocol

from bgworker import _code
from bgworker._version import __version__
from bgworker._worker.interrupts import Terminated
from bgworker.errors import PluginError

if TYPE_CHECKING:
    from bgworker._plugins.discovery import InstalledPlugin

#: What the metadata said of a library, in the process that had to ask it.
_looked_up: dict[str, InstalledPlugin | None] = {}
#: The library name of the host's own functions.
BUILTIN_LIBRARY: Final = "bgworker"
#: What that library holds: function name -> module. A fixed table: a registration must not reach any other code of ours.
_BUILTINS: Final = {"launcher_main": "bgworker._launcher"}


class LoadedPlugins(Protocol):
    """What is asked of the plugins that a preloaded worker inherited."""

    #: What was on disk when each top package was imported.
    code: dict[str, dict[str, str]]

    def library(self, name: str) -> str | None:
        """Return the module behind a loaded plugin's name."""


def resolve(library: str, function_name: str, plugins: LoadedPlugins | None = None) -> Callable[[Any], Any]:
    """Return the worker's function.

    Args:
        plugins: The plugins in memory; None in a fresh interpreter.
        library: A plugin's name, an importable module, or "bgworker".
        function_name: A name in it; dots lead into classes and objects.

    Raises:
        PluginError: The library cannot be loaded, or has no such function.
    """
    if library == BUILTIN_LIBRARY:
        if function_name not in _BUILTINS:
            raise _no_function(library, function_name, f"The built-in functions are {', '.join(_BUILTINS)}.")
        module = _load(_BUILTINS[function_name], library)
    else:
        module = _load(_module_of(library, plugins), library)
    found: Any = module
    try:
        for part in function_name.split("."):
            found = getattr(found, part)
    # A module's __getattr__ (PEP 562) is the plugin's code and may raise anything.
    except Exception as error:
        if isinstance(error, AttributeError):
            raise _no_function(library, function_name, f"{error}.") from None
        raise _no_function(library, function_name, f"{type(error).__name__}: {error}.") from error
    if not callable(found):
        raise _no_function(library, function_name, f"It is there, but it is a {type(found).__name__} and cannot be called.")
    _check_takes_one_argument(library, function_name, found)
    return found  # type: ignore[no-any-return]


def _check_takes_one_argument(library: str, function_name: str, function: Callable[..., Any]) -> None:
    if isinstance(function, FunctionType) and not hasattr(function, "__wrapped__"):
        # The usual function, without the price of inspect: whatever is not clearly right goes the long way.
        code, needed = function.__code__, function.__code__.co_argcount - len(function.__defaults__ or ())
        if needed <= 1 <= code.co_argcount and code.co_kwonlyargcount == len(function.__kwdefaults__ or ()):
            return
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise PluginError(
            f'could not call function "{function_name}" in library "{library}": it does not take one argument',
            f"A worker's function is called with bgw_main_arg alone: {_one_line(str(error))}.",
        ) from None
    # Some functions of C modules do not say what they take: the call will tell.
    except ValueError:
        pass


def _module_of(library: str, plugins: LoadedPlugins | None) -> str:
    if plugins is not None and (module := plugins.library(library)) is not None:
        return module
    if library in sys.modules:
        return library
    # Reads the metadata of every distribution, tens of milliseconds: only for what nobody has loaded.
    from bgworker._plugins.discovery import parse_reference, plugin_named

    plugin = _looked_up[library] = plugin_named(library)
    return parse_reference(plugin.value).module if plugin is not None else library


def code_of(library: str, plugins: LoadedPlugins | None = None) -> dict[str, str]:
    """Return which code of a library this process has imported, as far as that is known, and the version of bgworker."""
    return {**_code_of(library, plugins), "bgworker": __version__}


def _code_of(library: str, plugins: LoadedPlugins | None) -> dict[str, str]:
    if library == BUILTIN_LIBRARY:
        return {}
    try:
        module = _module_of(library, plugins)
        if plugins is not None and (known := plugins.code.get(module.partition(".")[0])) is not None:
            return known
        plugin = _looked_up.get(library)
        return _code.describe(module, *((plugin.distribution, plugin.version) if plugin is not None else ()))
    # For the eyes of operators alone: whatever is wrong with a file system or with metadata, the worker runs.
    except Exception:
        return {}


def _load(module: str, library: str) -> Any:
    try:
        return import_module(module)
    except Terminated:
        raise
    # What is imported is the plugin's code: SystemExit and KeyboardInterrupt are failures of it, too.
    except BaseException as error:
        detail = f'It leads to module "{module}".' if module != library else ""
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name is not None and (module + ".").startswith(error.name + "."):
            reason = f"No module named {error.name!r}"
            hint = (
                "bgw_library_name is a plugin's name or an importable module. Install the distribution that has it, "
                "or add the module's folder to [host] python_path in workers.toml."
            )
        else:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise PluginError(f'could not load library "{library}": {_one_line(reason)}', detail, hint) from error


def _no_function(library: str, function_name: str, detail: str) -> PluginError:
    return PluginError(
        f'could not find function "{function_name}" in library "{library}"',
        _one_line(detail),
        "bgw_function_name is the name of a function in the module that bgw_library_name leads to.",
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
