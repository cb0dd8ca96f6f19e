"""A plugin's settings: one raw table of workers.toml, checked against the type that the plugin gave.

Pure but for the plugin's own ``__post_init__``. The manager may import it, nobody else.
msgspec does the checking of values; what it leaves to us is to report every mistake instead
of the first, and keys that the type does not have, at any depth.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from bgworker._config.findings import ConfigurationErrors
from bgworker._spec import printable
from bgworker.errors import ConfigurationError

_ObjectType = msgspec.inspect.StructType | msgspec.inspect.DataclassType


class SettingsErrors(ConfigurationErrors):
    """Everything that is wrong with one plugin's settings; a part of what is wrong with a file.

    Args:
        table: The table as messages name it.
        errors: One or more, in the order of the table.
    """

    def __init__(self, table: str, errors: Sequence[ConfigurationError]) -> None:
        super().__init__(table, errors)
        self.table = table
        if len(self.errors) > 1:
            self.message_primary = f"{table} has {len(self.errors)} errors"
            self.args = (self.message_primary, self.message_detail, self.message_hint)

    def __reduce__(self) -> tuple[type[SettingsErrors], tuple[str, list[ConfigurationError]]]:
        return type(self), (self.table, self.errors)


def check_settings_type(settings_type: Any) -> None:
    """Check that a plugin's settings type can be used.

    Raises:
        TypeError: It is neither a dataclass nor a msgspec.Struct, or has a field that TOML cannot fill.
    """
    if not isinstance(settings_type, type) or not (
        dataclasses.is_dataclass(settings_type) or issubclass(settings_type, msgspec.Struct)
    ):
        raise TypeError(f"{settings_type!r} is neither a dataclass nor a msgspec.Struct type")
    msgspec.inspect.type_info(settings_type)


def convert(plugin: str, settings_type: Any, raw: Any) -> object:
    """Return the settings as an instance of the plugin's type; fields not given get their defaults.

    Raises:
        SettingsErrors: The table does not fit; each error names the table and the key.
    """
    table = f"[settings.{plugin}]"
    if not isinstance(raw, Mapping):
        raise SettingsErrors(table, [_mistake(table, "", f"expected a table, found a value of type {type(raw).__name__}")])
    info = msgspec.inspect.type_info(settings_type)
    assert isinstance(info, _ObjectType)
    errors = [*_surplus(table, raw, info, ""), *_misfits(table, raw, info, settings_type)]
    if not errors:
        try:
            settings: object = msgspec.convert(dict(raw), settings_type, strict=True)
        except msgspec.ValidationError as error:
            # Each value fits by itself, so the plugin's own check of them together (__post_init__) has spoken.
            errors.append(_mistake(table, "", _plain(str(error))[0]))
        else:
            return settings
    raise SettingsErrors(table, errors)


def _misfits(table: str, raw: Mapping[str, Any], info: _ObjectType, settings_type: Any) -> Iterator[ConfigurationError]:
    """Yield an error for every field whose value does not fit, or is missing."""
    hints = typing.get_type_hints(settings_type, include_extras=True)
    for field in info.fields:
        if field.encode_name not in raw:
            if field.required:
                yield _mistake(table, "", f"key {field.encode_name} is missing")
            continue
        try:
            msgspec.convert(raw[field.encode_name], hints[field.name], strict=True)
        except msgspec.ValidationError as error:
            reason, path = _plain(str(error))
            yield _mistake(table, field.encode_name + path, reason)


def _surplus(table: str, raw: Any, info: msgspec.inspect.Type, path: str) -> Iterator[ConfigurationError]:
    """Yield an error for every key that the type does not have."""
    match info:
        case msgspec.inspect.StructType() | msgspec.inspect.DataclassType() if isinstance(raw, Mapping):
            fields = {field.encode_name: field.type for field in info.fields}
            for key, value in raw.items():
                if key in fields:
                    yield from _surplus(table, value, fields[key], f"{path}.{key}" if path else key)
                elif key != getattr(info, "tag_field", None):
                    yield _unknown(table, path, str(key), fields)
        case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item) if isinstance(raw, list):
            for index, value in enumerate(raw):
                yield from _surplus(table, value, item, f"{path}[{index}]")
        case msgspec.inspect.DictType(value_type=item) if isinstance(raw, Mapping):
            for key, value in raw.items():
                yield from _surplus(table, value, item, f"{path}.{key}")
        case msgspec.inspect.UnionType():
            # With several kinds of object the value decides which is meant, and only msgspec knows how.
            objects = [each for each in info.types if isinstance(each, _ObjectType)]
            if len(objects) == 1:
                yield from _surplus(table, raw, objects[0], path)


def _unknown(table: str, path: str, key: str, known: Collection[str]) -> ConfigurationError:
    near = difflib.get_close_matches(key[:100], known, n=1)
    problem = f'there is no key "{printable(key)[:60]}"' + (f', the nearest known key is "{near[0]}"' if near else "")
    detail = f"The keys here are {', '.join(known)}." if known else "This table has no keys."
    return ConfigurationError(_mistake(table, path, problem).message_primary, detail)


def _mistake(table: str, key: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{table} {printable(key)}: {problem}" if key else f"{table}: {problem}")


def _plain(text: str) -> tuple[str, str]:
    """Turn msgspec's words into ours: the reason, and the path below the value that was checked."""
    reason, _, path = text.partition(" - at `")
    reason = printable(reason.replace("`", "").replace(", got ", ", found "))
    return reason[:1].lower() + reason[1:], path.rstrip("`").removeprefix("key in ").removeprefix("$")
