"""Records of the host as JSON values and back, by their own type annotations: for a host that executes itself anew.

Pure and strict. Every field of a record is written, so that nobody can forget a new one; what is
read must have exactly the fields and types that this version's records have, so that a document
of another version is refused as a whole and never half understood. Any room of the host may use it.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, Union

from bgworker._spec import BackgroundWorker, worker_from_dict
from bgworker.errors import HostError

__all__ = ["UnreadableError", "expect", "read", "write"]

_T = TypeVar("_T")
#: What JSON has as it is; looked at first, since nearly everything is that.
_PLAIN = frozenset((bool, float, int, str))


class UnreadableError(HostError):
    """What stands in a document is not what this version of bgworker carries."""


def write(value: Any) -> Any:
    """Return a value as JSON has it."""
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, BackgroundWorker):
        return value.to_wire()
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: write(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, frozenset | set):
        return sorted(write(each) for each in value)
    if isinstance(value, tuple | list):
        return [write(each) for each in value]
    if isinstance(value, dict):
        return {key: write(each) for key, each in value.items()}
    return value


def read(kind: type[_T], data: Any) -> _T:
    """Return a value of this type from what ``write`` has made of one.

    Args:
        kind: A record, an enumeration, a plain type, or a container of them, as in an annotation.
        data: Out of JSON.

    Raises:
        UnreadableError: It is not one.
    """
    found: _T = _read(kind, data)
    return found


def expect(carried: Mapping[str, Any], parts: Iterable[str], what: str) -> None:
    """See that an object has these parts and no other.

    Raises:
        UnreadableError: It has not; another version has written it.
    """
    if strange := carried.keys() ^ set(parts):
        raise UnreadableError(f"{what} differs: {', '.join(sorted(strange))}")


def _read(kind: Any, data: Any) -> Any:
    if kind is type(data) and kind in _PLAIN:
        return data
    if kind is Any:
        return data
    if kind is BackgroundWorker:
        return worker_from_dict(data)
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_union(typing.get_args(kind), data)
    if origin is not None:
        return _read_container(origin, typing.get_args(kind), data)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            raise UnreadableError(f"{data!r} is no {kind.__name__}") from None
    if dataclasses.is_dataclass(kind):
        return _read_record(kind, data)
    if isinstance(kind, type) and issubclass(kind, tuple):
        hints = _hints(kind)
        if not isinstance(data, list) or len(data) != len(hints):
            raise UnreadableError(f"{data!r} is no {kind.__name__}")
        return kind(*(_read(hint, each) for hint, each in zip(hints.values(), data, strict=True)))
    # JSON has one kind of number, and true is not 1.
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise UnreadableError(f"{data!r} is no {kind.__name__}")
    return data


def _read_union(kinds: tuple[Any, ...], data: Any) -> Any:
    if data is None and types.NoneType in kinds:
        return None
    for kind in kinds:
        if kind is types.NoneType:
            continue
        try:
            return _read(kind, data)
        except UnreadableError as error:
            problem = error
    raise problem


def _read_container(origin: Any, arguments: tuple[Any, ...], data: Any) -> Any:
    if issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise UnreadableError(f"{data!r} is no object")
        return {key: _read(arguments[1], each) for key, each in data.items()}
    if not isinstance(data, list):
        raise UnreadableError(f"{data!r} is no array")
    if origin is tuple and Ellipsis not in arguments:
        if len(data) != len(arguments):
            raise UnreadableError(f"{data!r} has not {len(arguments)} parts")
        return tuple(_read(argument, each) for argument, each in zip(arguments, data, strict=True))
    return origin(_read(arguments[0], each) for each in data)


def _read_record(kind: Any, data: Any) -> Any:
    hints = _hints(kind)
    if not isinstance(data, dict):
        raise UnreadableError(f"{data!r} is no {kind.__name__}")
    expect(data, hints, f"a {kind.__name__}")
    return kind(**{name: _read(hint, data[name]) for name, hint in hints.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a record's fields."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else hints
