"""TOML written from plain values: strings, numbers, truth values, arrays, inline tables.

No more than a conversion and a plan need; what the standard library lacks and a package for five lines
would not be worth. Pure: every room may import it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def table_text(header: str, values: Mapping[str, Any]) -> str:
    """Return a table with its header, a key a line."""
    return "\n".join([header, *(f"{_key(key)} = {value_text(value)}" for key, value in values.items())])


def value_text(value: Any) -> str:
    """Return one value.

    Raises:
        TypeError: It is of a kind that is not written here.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            # JSON's escapes are TOML's; DEL is the one control character that JSON lets through and TOML does not.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return "[" + ", ".join(map(value_text, value)) + "]"
        case dict():
            inner = ", ".join(f"{_key(key)} = {value_text(item)}" for key, item in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else value_text(key)
