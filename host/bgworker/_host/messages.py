"""What the helper programs may say to the host, and a look at each message before it is believed.

Pure. The helpers are ours, but the loader shares its process with every plugin's import: a
plugin that writes to descriptors it does not know must cost the loader, never the host.
Imported by the host alone.
"""

from __future__ import annotations

from typing import Any, Final

from bgworker._control.protocol import Message

_TEXT_OR_NONE: Final = (str, type(None))
#: What each type of message holds, whoever sends it; what is not named here is nobody's to say.
_SHAPES: Final[dict[str, dict[str, Any]]] = {
    # loader
    "birth_way": {"way": str},
    "importing": {"plugin": str},
    "spoiled": {"plugin": str, "how": str},
    "forked": {"plugin": str},
    "configuration_error": {"errors": list},
    "ready": {
        "config_text": str, "has_launcher_hooks": bool, "workers": list, "rejected": list, "warnings": list,
        "settings": dict, "fixed": dict, "python_path": list, "preloaded": list, "plugins": list, "broken_plugins": list,
    },
    "born": {"birth": int, "pid": int},
    "birth_failed": {"birth": int, "error": str},
    # database process
    "postgres": {"pid": (int, type(None))},
    "phase": {
        "phase": str, "detail": str, "url": _TEXT_OR_NONE, "conninfo": _TEXT_OR_NONE, "direct_conninfo": str, "is_pooled": bool,
    },
    "log": {"level": str, "message": str},
    "notify": {"database": str, "channel": str, "payload": str},
    "gap": {"database": str, "channels": list},
    "deaf": {"database": str, "name": str, "reason": str},
    "database_opened": {"id": int, "error": str, "sqlstate": str, "detail": str, "hint": str},
    "stopped": {},
    # collector
    "eof": {"life": str},
    "rest": {"life": str, "pipes": list, "errors": str, "is_exited": bool},
    "lost": {"lines": list},
    "tail": {"life": str},
}  # fmt: skip
#: What the lists among them hold: texts, or objects with at least these keys.
_ELEMENTS: Final[dict[str, dict[str, Any] | None]] = {
    "errors": {}, "workers": {"worker": dict}, "rejected": {"bgw_name": str, "error": str},
    "broken_plugins": {"name": str, "error": str},
    "pipes": {"rest": str, "is_continued": bool},
    "lines": {"place": str, "count": int, "reason": str},
    "warnings": None, "python_path": None, "preloaded": None, "plugins": None, "channels": None,
}  # fmt: skip


def problem_of(message: Message) -> str | None:
    """Return what is wrong with a helper's message, or None when it has the shape it should have."""
    kind = message.get("type")
    shape = _SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        return "a message of no known type"
    for key, expected in shape.items():
        value = message.get(key)
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            return f'a message "{kind}" without a proper "{key}"'
        # It will be signalled: 0 and -1 are groups of processes there, and 1 is no child of anybody's.
        if key == "pid" and isinstance(value, int) and value <= 1:
            return f'a message "{kind}" without a proper "{key}"'
        if isinstance(value, list) and not all(_is_proper(each, _ELEMENTS[key]) for each in value):
            return f'a message "{kind}" with something improper in "{key}"'
    return None


def _is_proper(element: Any, keys: dict[str, Any] | None) -> bool:
    if keys is None:
        return isinstance(element, str)
    return isinstance(element, dict) and all(isinstance(element.get(key), expected) for key, expected in keys.items())
