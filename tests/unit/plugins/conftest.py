"""Distributions made in a temporary directory, importable for one test."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bgworker._plugins.discovery import InstalledPlugin, installed_plugins

_MAKING = Path(__file__).parents[2] / "plugins" / "making.py"


def _load_making() -> ModuleType:
    spec = importlib.util.spec_from_file_location("making", _MAKING)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


making = _load_making()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on sys.path, whose modules are forgotten afterwards."""
    site = tmp_path / "site"
    site.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield site
    for name in set(sys.modules) - before:
        if str(site) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def make(site: Path) -> Callable[..., Path]:
    """``make_distribution`` into the site."""

    def make(name: str, **keys: Any) -> Path:
        info: Path = making.make_distribution(site, name, **keys)
        importlib.invalidate_caches()
        return info

    return make


@pytest.fixture
def bad(site: Path) -> Callable[[str], InstalledPlugin]:
    """Make one of tests/plugins/bad and return it as discovery finds it."""

    def bad(name: str) -> InstalledPlugin:
        making.make_bad(site, name)
        importlib.invalidate_caches()
        return next(plugin for plugin in installed_plugins() if plugin.name == name)

    return bad


@pytest.fixture
def find(site: Path) -> Callable[[str], InstalledPlugin]:
    """Return an installed plugin by name."""
    return lambda name: next(plugin for plugin in installed_plugins() if plugin.name == name)
