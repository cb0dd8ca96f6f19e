"""Which distribution a library came from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bgworker._worker import versions
from bgworker._worker.versions import Version, version_of


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests have found."""
    monkeypatch.setattr(versions, "_known", {})


class Plugins:
    """One loaded plugin."""

    def version(self, library: str) -> tuple[str, str] | None:
        """Return its version."""
        return ("shop-workers", "9") if library == "shop" else None


def test_found_by_the_folder_of_its_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of an installed distribution of its name is told with that version; one of another name is unknown."""
    (tmp_path / "Shop_Queue-1.2.3.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), str(tmp_path)])
    assert version_of("shop_queue.tasks") == Version("Shop_Queue", "1.2.3")
    assert version_of("queue_of_the_shop") is None
    (tmp_path / "Shop_Queue-1.2.3.dist-info").rename(tmp_path / "Shop_Queue-2.dist-info")
    assert version_of("shop_queue.tasks") == Version("Shop_Queue", "1.2.3"), "what was loaded is told, not what is installed since"


def test_a_loaded_plugin_says_it_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plugin the distribution is known, whatever its name is."""
    monkeypatch.setattr(sys, "path", [])
    assert version_of("shop", Plugins()) == Version("shop-workers", "9")
    assert version_of("other", Plugins()) is None
