from __future__ import annotations

import dataclasses
import pickle
from typing import Annotated, Any

import msgspec
import pytest

from bgworker._plugins import settings
from bgworker._plugins.settings import SettingsErrors


@dataclasses.dataclass(frozen=True)
class Inner:
    """Nested settings."""

    host: str = "here"
    ports: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Data:
    """Settings as a dataclass."""

    naptime: float = 10.0
    total: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    inner: Inner = dataclasses.field(default_factory=Inner)
    maybe: Inner | None = None
    many: list[Inner] = dataclasses.field(default_factory=list)
    named: dict[str, Inner] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.naptime > self.total * 1000:
            raise ValueError("naptime is too long for so many workers")


class Table(msgspec.Struct, rename="kebab"):
    """Settings as a struct, with other names in the file."""

    need_this: str
    then_this: int = 1


class Empty(msgspec.Struct):
    """No settings."""


def errors(kind: type, raw: Any) -> list[str]:
    with pytest.raises(SettingsErrors) as caught:
        settings.convert("demo", kind, raw)
    return [error.message_primary for error in caught.value.errors]


def test_defaults_without_a_table() -> None:
    """A plugin whose table is missing gets the defaults of its type."""
    assert settings.convert("demo", Data, {}) == Data()


def test_values_become_an_instance() -> None:
    """Dataclasses and structs, nested ones too, are filled; an integer may stand for a float."""
    raw = {"naptime": 3, "inner": {"ports": [1]}, "maybe": {}, "many": [{"host": "x"}], "named": {"a": {"ports": []}}}
    assert settings.convert("demo", Data, raw) == Data(3.0, 2, Inner(ports=[1]), Inner(), [Inner("x")], {"a": Inner()})
    assert settings.convert("demo", Table, {"need-this": "x"}) == Table("x")


def test_every_mistake_is_reported_with_table_and_key() -> None:
    """All mistakes of a table come at once, each with the table, the key and what was expected."""
    raw = {
        "naptme": 1,
        "naptime": "10",
        "total": 101,
        "inner": {"hots": "x", "ports": [1, "2"]},
        "maybe": {"hst": 1},
        "many": [{}, {"zzz": 1}],
        "named": {"a": {"b": 1}},
    }
    assert errors(Data, raw) == [
        '[settings.demo]: there is no key "naptme", the nearest known key is "naptime"',
        '[settings.demo] inner: there is no key "hots", the nearest known key is "host"',
        '[settings.demo] maybe: there is no key "hst", the nearest known key is "host"',
        '[settings.demo] many[1]: there is no key "zzz"',
        '[settings.demo] named.a: there is no key "b"',
        "[settings.demo] naptime: expected float, found str",
        "[settings.demo] total: expected int <= 100",
        "[settings.demo] inner.ports[1]: expected int, found str",
    ]


@pytest.mark.parametrize("value", [True, 1.5, 1.0, "1", [1], None, float("nan")])
def test_types_are_strict(value: Any) -> None:
    """No value is bent into an integer."""
    (error,) = errors(Data, {"total": value})
    assert error.startswith("[settings.demo] total: expected int")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    """A bound keeps out what is not a number, too."""

    class Bounded(msgspec.Struct):
        number: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1

    assert len(errors(Bounded, {"number": value})) == 1


def test_missing_key() -> None:
    """A field without default has to be in the file."""
    assert errors(Table, {"then-this": 2, "need_this": "x"}) == [
        '[settings.demo]: there is no key "need_this", the nearest known key is "need-this"',
        "[settings.demo]: key need-this is missing",
    ]
    assert errors(Empty, {"x\x1b[2J": 1}) == ['[settings.demo]: there is no key "x?[2J"']


@pytest.mark.parametrize("raw", [1, "x", [], None])
def test_no_table_at_all(raw: Any) -> None:
    """[settings] may hold tables only."""
    assert errors(Data, raw) == [f"[settings.demo]: expected a table, found a value of type {type(raw).__name__}"]


def test_the_plugins_own_check() -> None:
    """A ValueError of __post_init__ is a mistake in the file; anything else is the plugin's failure."""
    assert errors(Data, {"naptime": 5000}) == ["[settings.demo]: naptime is too long for so many workers"]

    @dataclasses.dataclass
    class Buggy:
        number: int = 1

        def __post_init__(self) -> None:
            raise KeyError("oops")

    with pytest.raises(KeyError):
        settings.convert("demo", Buggy, {})


def test_errors_cross_processes() -> None:
    """One mistake reads like a single error; several are counted, with a line each."""
    with pytest.raises(SettingsErrors) as caught:
        settings.convert("demo", Data, {"a": 1, "total": 0})
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.message_primary == "[settings.demo] has 2 errors"
    assert error.message_detail.splitlines() == ['[settings.demo]: there is no key "a"', "[settings.demo] total: expected int >= 1"]
    assert len(error.errors) == 2
    assert sum(line.startswith("ERROR:") for line in error.lines()) == 2
    with pytest.raises(SettingsErrors, match="total: expected int >= 1"):
        settings.convert("demo", Data, {"total": 0})


@pytest.mark.parametrize("kind", [dict, int, Data(), "Data", None, list[int]])
def test_types_that_are_none(kind: Any) -> None:
    """Only a dataclass or a msgspec.Struct describes settings."""
    with pytest.raises(TypeError, match="neither a dataclass nor"):
        settings.check_settings_type(kind)


def test_field_that_toml_cannot_fill() -> None:
    """A type that could never be filled is found when the plugin is loaded, not when the file has the key."""

    class Custom:
        pass

    @dataclasses.dataclass
    class Unfillable:
        field: int | Custom = 1

    Unfillable.__annotations__["field"] = int | Custom
    with pytest.raises(TypeError):
        settings.check_settings_type(Unfillable)
