"""The guard around plugin code: whatever it raises becomes a PluginError that names the culprit.

Broad catches live here and nowhere else in this room. The manager and the launcher may
import it.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bgworker._plugins.discovery import InstalledPlugin
from bgworker.errors import HostError, PluginError

#: Where our own code is.
_PACKAGE: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
#: A traceback crosses to the host and stands in ``status``: the end of a longer one, where the reason is, has to do.
MAX_TRACEBACK: Final = 8_000


@contextmanager
def blame(plugin: InstalledPlugin, action: str, let_through: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Run a plugin's code so that nothing it raises gets past, SystemExit and KeyboardInterrupt included.

    Args:
        plugin: Whose code it is.
        action: Completes ``plugin "x" failed`` (``in hook "bgworker_init"``, ``while ...``).
        let_through: Exceptions that are not the plugin's, such as the order to terminate.

    Raises:
        PluginError: The code raised; the detail names the distribution and has the traceback.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, let_through):
            raise
        # Without the cause: its traceback would keep the plugin's frames alive, and the text says it all.
        hint = ""
        try:
            if isinstance(error, HostError):
                # A refusal of ours: its own words say why, and of the frames only the plugin's matter.
                name, hint = error.message_primary, error.message_hint
                text = "\n".join(filter(None, (error.message_detail, _place(error))))
            else:
                name, text = _name(error), _traceback(error)
        # An exception of the plugin's own making may even fail to be shown.
        except BaseException:
            name, text = type(error).__name__, ""
        raise plugin_error(plugin, f"failed {action}: {name}", text, hint) from None


def plugin_error(plugin: InstalledPlugin, what: str, detail: str = "", hint: str = "") -> PluginError:
    """Return a PluginError about one plugin, with where the plugin comes from in its detail."""
    origin = (
        f'It is part of distribution "{plugin.distribution}" {plugin.version}.' if plugin.distribution else "It is a plain module."
    )
    kind = "plugin" if plugin.distribution else "module"
    return PluginError(f'{kind} "{plugin.name}" {what}', f"{origin}\n{detail}".rstrip(), hint)


def _name(error: BaseException) -> str:
    """Return the exception on one line, however it was written."""
    text = "".join(traceback.TracebackException(type(error), error, None, compact=True).format_exception_only())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if isinstance(error, SyntaxError) else lines[0])[:300] if lines else type(error).__name__


def _place(error: BaseException) -> str:
    """Return the plugin's own line that an error of ours came out of, as a sentence; nothing if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    return f'It was raised in "{frames[-1].filename}", line {frames[-1].lineno}.' if frames else ""


def _is_ours(filename: str) -> bool:
    return _is_scaffolding(filename) or filename.startswith(_PACKAGE)


def _traceback(error: BaseException) -> str:
    formatted = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    # The guard's own frames, and those of the call through pluggy, say nothing about the plugin.
    frames = [frame for frame in formatted.stack if not _is_scaffolding(frame.filename)]
    formatted.stack = traceback.StackSummary.from_list(frames)
    text = "".join(formatted.format()).rstrip()
    return text if len(text) <= MAX_TRACEBACK else f"[...]\n{text[-MAX_TRACEBACK:]}"


def _is_scaffolding(filename: str) -> bool:
    normal = filename.replace("\\", "/")
    return (
        normal.startswith("<frozen importlib")
        or normal.endswith(("/importlib/__init__.py", "/contextlib.py"))
        or "/bgworker/_plugins/" in normal
        or "/pluggy/" in normal
    )
