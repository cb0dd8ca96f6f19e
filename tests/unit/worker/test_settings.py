"""Whose settings a worker gets, and when they are converted."""

from __future__ import annotations

from typing import Any

import pytest

from bgworker._plugins.discovery import InstalledPlugin
from bgworker._worker import settings as module
from bgworker._worker.settings import Settings
from bgworker.errors import ConfigurationError


class Loaded:
    """Plugins as the loader has them: one, called Shop_Queue, whose values must be below 10."""

    names = ("Shop_Queue",)

    def __init__(self) -> None:
        self.conversions = 0

    def library(self, name: str) -> str | None:
        """Return the module behind a plugin's name."""
        return "shop.plugin" if name == "Shop_Queue" else None

    def convert_settings(self, name: str, raw: dict[str, Any]) -> tuple[str, int]:
        """Convert as a plugin would."""
        self.conversions += 1
        if raw.get("n", 0) >= 10:
            raise ConfigurationError("too large")
        return name, raw.get("n", 0)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = [
        InstalledPlugin("Shop_Queue", "shop", "1", "shop.plugin:hooks", workers=(("drain", "shop_workers:drain"),)),
        InstalledPlugin("broken", "broken", "1", "", error="bad metadata"),
    ]
    monkeypatch.setattr(module, "_installed", lambda: plugins)


@pytest.mark.parametrize("library", ["Shop_Queue", "shop-queue", "shop.plugin", "shop_workers", "shop.deep.inside"])
def test_owner_is_found(library: str) -> None:
    """C10: a worker belongs to the plugin of its library's name, of its module, or of its package."""
    plugins: Any = Loaded()
    assert Settings({"Shop_Queue": {"n": 3}}, library, plugins).own() == ("Shop_Queue", 3)


def test_loaded_plugins_are_found_without_reading_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """C10: a preloaded worker's settings cost no look at what is installed."""
    monkeypatch.setattr(module, "_installed", lambda: pytest.fail("metadata was read"))
    plugins: Any = Loaded()
    for library in ("shop_queue", "shop.plugin"):
        assert Settings({"Shop_Queue": {"n": 3}}, library, plugins).own() == ("Shop_Queue", 3)


def test_plain_modules_get_their_table() -> None:
    """C10: a module that is no plugin gets its raw table, a copy of it, empty when there is none."""
    raw = {"jobs": {"list": [1]}}
    settings = Settings(raw, "jobs", None)
    settings.own()["list"].append(2)
    assert raw == {"jobs": {"list": [1]}}
    assert Settings({}, "jobs", None).own() == {}


def test_converted_once_until_replaced() -> None:
    """C25: settings() may be called in a loop; a reload converts anew."""
    plugins: Any = Loaded()
    settings = Settings({"Shop_Queue": {"n": 3}}, "Shop_Queue", plugins)
    assert settings.own() is settings.own()
    settings.replace({"Shop_Queue": {"n": 4}})
    assert settings.own() == ("Shop_Queue", 4)
    assert plugins.conversions == 2


def test_bad_reload_keeps_the_old_values(capsys: pytest.CaptureFixture[str]) -> None:
    """C25: a table that does not fit is refused with a warning; the values before stay."""
    plugins: Any = Loaded()
    settings = Settings({"Shop_Queue": {"n": 3}}, "Shop_Queue", plugins)
    settings.own()
    settings.replace({"Shop_Queue": {"n": 30}})
    assert settings.own() == ("Shop_Queue", 3)
    assert 'WARNING:  settings of "Shop_Queue" are not changed: too large' in capsys.readouterr().err
