from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker._plugins.discovery import (
    InstalledPlugin,
    commands,
    installed_plugins,
    is_importable,
    parse_reference,
    plugin_named,
    select,
)

Make = Callable[..., Path]


def plugin(name: str, distribution: str | None = None, value: str | None = None, error: str = "") -> InstalledPlugin:
    return InstalledPlugin(name, distribution or f"the-{name}", "1.0", name if value is None else value, error=error)


class TestInstalledPlugins:
    """Reading metadata."""

    def test_reads_all_three_groups_without_importing(self, make: Make) -> None:
        """A plugin is described by its metadata; none of its code runs."""
        make(
            "shop-queue",
            version="2.5",
            files={"shop_queue.py": "raise SystemExit('imported')"},
            entry_points={
                "bgworker.plugins": {"shop": "shop_queue"},
                "bgworker.workers": {"order-drain": "shop_queue:drain"},
                "bgworker.commands": {"shop": "shop_queue.cli:group"},
                "console_scripts": {"shop": "shop_queue:main"},
            },
        )
        found = [each for each in installed_plugins() if each.distribution == "shop-queue"]
        assert found == [
            InstalledPlugin(
                "shop",
                "shop-queue",
                "2.5",
                "shop_queue",
                (("order-drain", "shop_queue:drain"),),
                (("shop", "shop_queue.cli:group"),),
            )
        ]
        assert "shop_queue" not in sys.modules

    def test_distribution_with_workers_alone_is_a_plugin(self, make: Make, find: Callable[[str], InstalledPlugin]) -> None:
        """Without an object with hooks, the distribution's own name is the plugin's."""
        make("Shop-Queue", entry_points={"bgworker.workers": {"drain": "shop_queue:drain"}})
        assert find("shop_queue").value == ""
        assert find("shop_queue").workers == (("drain", "shop_queue:drain"),)

    def test_workers_go_to_the_plugin_of_their_package(self, make: Make, find: Callable[[str], InstalledPlugin]) -> None:
        """Of several plugins in one distribution, each gets the workers of its package, the first one the rest."""
        make(
            "twins",
            entry_points={
                "bgworker.plugins": {"castor": "castor", "pollux": "pollux.hooks:plugin"},
                "bgworker.workers": {"a": "pollux:run", "b": "castor:run", "c": "helen:run"},
            },
        )
        assert find("castor").workers == (("b", "castor:run"), ("c", "helen:run"))
        assert find("pollux").workers == (("a", "pollux:run"),)

    @pytest.mark.parametrize(
        ("keys", "reason"),
        [
            ({"metadata": "Metadata-Version: 2.1\nVersion: 1.0\n"}, "METADATA has no Name"),
            ({"metadata": "Metadata-Version: 2.1\nName: broken\n"}, "METADATA has no Version"),
            ({"metadata": ""}, ""),
            ({"entry_points": "[bgworker.plugins]\nbroken\n"}, ""),
            ({"entry_points": b"[bgworker.plugins]\nbroken = br\xffken\n"}, "not UTF-8"),
            ({"entry_points": {"bgworker.plugins": {"broken": "no-module"}}}, '"no-module" is not of the form'),
            ({"entry_points": {"bgworker.plugins": {"broken": "fine"}, "bgworker.workers": {"w": "a:b:c"}}}, '"a:b:c"'),
        ],
    )
    def test_broken_metadata_hides_nobody_else(self, make: Make, keys: dict[str, object], reason: str) -> None:
        """Whatever one distribution says about itself, the others are found, and the broken one is listed with the reason."""
        make("broken", **{"entry_points": {"bgworker.plugins": {"broken": "fine"}}, **keys})
        make("other", entry_points={"bgworker.plugins": {"other": "other"}})
        by_name = {each.name: each for each in installed_plugins()}
        assert by_name["other"].error == ""
        assert by_name["broken"].error
        assert reason in by_name["broken"].error
        assert [str(error) for error in select(["broken"], list(by_name.values())).missing] == [
            'plugin "broken" is not loaded: its distribution has broken metadata'
        ]

    def test_broken_distribution_of_somebody_else_is_no_concern(self, make: Make) -> None:
        """A distribution that offers nothing of ours may be as broken as it likes."""
        make("stranger", metadata="", entry_points=b"[console_scripts]\nx = \xff\n")
        assert not [each for each in installed_plugins() if "stranger" in each.distribution]

    def test_first_copy_on_the_path_wins(self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of two copies of a distribution the one that an import would find is listed, once."""
        make("doubled", version="1.0", entry_points={"bgworker.plugins": {"doubled": "doubled"}})
        second = tmp_path / "second" / "Doubled-2.0.dist-info"
        second.mkdir(parents=True)
        (second / "METADATA").write_text("Metadata-Version: 2.1\nName: Doubled\nVersion: 2.0\n")
        (second / "entry_points.txt").write_text("[bgworker.plugins]\ndoubled = doubled\n")
        monkeypatch.syspath_prepend(str(second.parent))
        assert [each.version for each in installed_plugins() if each.name == "doubled"] == ["2.0"]


class TestSelect:
    """Resolving shared_preload_libraries."""

    def test_keeps_order_and_removes_doubles(self) -> None:
        """Plugins are loaded in the order in which they are written, each once, by whatever of its names."""
        a, b = plugin("a"), plugin("b")
        assert select(["b", "the-a", "b", "a", "*"], [a, b]).active == [b, a]

    @pytest.mark.parametrize(
        "name", ["worker_spi", "Worker-SPI", "worker.spi", "bgworker-worker-spi", "BGWORKER_worker_spi", "spi_module"]
    )
    def test_names_are_folded(self, name: str) -> None:
        """A plugin answers to its own name and its distribution's, whatever the case and the separators, and to its module's."""
        only = plugin("worker_spi", "bgworker-worker-spi", "spi_module:hooks")
        assert select([name], [only]).active == [only]

    def test_star_is_every_plugin(self) -> None:
        """An asterisk activates all installed plugins, but those that came before keep their place."""
        a, b, c = plugin("a"), plugin("b"), plugin("c", error="it is broken")
        selection = select(["b", "*"], [a, b, c])
        assert selection.active == [b, a]
        assert [str(error) for error in selection.missing] == ['plugin "c" is not loaded: its distribution has broken metadata']

    def test_distribution_names_all_its_plugins(self) -> None:
        """A distribution's name activates every plugin in it; a plugin's own name comes first."""
        a, b = plugin("a", "both"), plugin("b", "both")
        assert select(["both"], [a, b]).active == [a, b]
        assert select(["a"], [b, a]).active == [a]

    def test_same_plugin_in_two_distributions_is_refused(self) -> None:
        """Nobody guesses which of two distributions is meant; the distribution's name says it."""
        a, b = plugin("a", "one"), plugin("a", "two")
        selection = select(["a", "two"], [a, b])
        assert selection.active == [b]
        assert "several distributions" in str(selection.missing[0])
        assert '"one", "two"' in selection.missing[0].message_detail

    def test_plain_modules(self, make: Make, site: Path) -> None:
        """An importable module needs no entry point, and finding it imports neither it nor its package."""
        make("nothing", files={"plain/__init__.py": "raise SystemExit", "plain/inner.py": "raise SystemExit"})
        assert select(["plain.inner", "plain", "plain.inner"], []).modules == ["plain.inner", "plain"]
        assert "plain" not in sys.modules

    def test_missing_ones_name_the_nearest(self) -> None:
        """What is not installed is an error with the nearest installed names, and the rest is selected."""
        selection = select(["wroker-spi", "notify_demo"], [plugin("worker_spi"), plugin("notify_demo")])
        assert [each.name for each in selection.active] == ["notify_demo"]
        (error,) = selection.missing
        assert str(error) == 'plugin "wroker-spi" is not loaded: nothing installed has this name'
        assert '"worker_spi"' in error.message_hint

    def test_missing_one_without_neighbours(self) -> None:
        """With nothing near, the hint says what to do instead."""
        assert "Install" in select(["zzz"], [plugin("worker_spi")]).missing[0].message_hint


def test_is_importable_survives_odd_names() -> None:
    """A name that no module can have is simply not importable."""
    assert is_importable("os.path")
    assert is_importable("email.mime")
    assert not any(
        is_importable(name) for name in ["", ".", "os.", "..os", "a-b", "os.path.join", "a/b", "no_such_module_at_all.x", "\0"]
    )


def test_commands_and_libraries(make: Make) -> None:
    """Commands are listed by name with their owners; a plugin's name leads to the module to import."""
    make(
        "b-plugin",
        entry_points={
            "bgworker.plugins": {"bee": "b_module.hooks:plugin"},
            "bgworker.commands": {"zzz": "b.cli:z", "aaa": "b.cli:a"},
        },
    )
    installed = [each for each in installed_plugins() if each.name == "bee"]
    assert [(command.name, command.value) for command in commands(installed)] == [("aaa", "b.cli:a"), ("zzz", "b.cli:z")]
    found = plugin_named("BEE")
    assert found is not None
    assert parse_reference(found.value).module == "b_module.hooks"
    assert plugin_named("nobody") is None


def test_parse_reference() -> None:
    """An entry point's value is a module, perhaps with an attribute and extras."""
    assert parse_reference("a.b") == ("a.b", "")
    assert parse_reference("a.b : c.d [extra]") == ("a.b", "c.d")
    for value in ("", "a b", "a:", ":b", "a-b", "a..b", "1a", "a:b:c"):
        with pytest.raises(ValueError):
            parse_reference(value)
