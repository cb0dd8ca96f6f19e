from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker._plugins.discovery import InstalledPlugin
from bgworker._plugins.manager import PluginHost
from bgworker._spec import DATABASE_WORKER_FLAGS, BackgroundWorker
from bgworker.errors import ConfigurationError, PluginError, RegistrationError

Make = Callable[..., Path]
Find = Callable[[str], InstalledPlugin]
Bad = Callable[[str], InstalledPlugin]

GOOD = """
import dataclasses
from bgworker._spec import BackgroundWorker
from bgworker.hookspecs import hookimpl

calls = []

@dataclasses.dataclass(frozen=True)
class Settings:
    number: int = 2

@hookimpl
def bgworker_settings():
    calls.append(("settings", None))
    return Settings

@hookimpl
def bgworker_init(registry):
    for index in range(registry.settings.number):
        worker = BackgroundWorker(bgw_name=f"good {index}", bgw_library_name="good", bgw_function_name="main")
        registry.register_background_worker(worker)

@hookimpl
def bgworker_ready(host):
    calls.append(("ready", host))

@hookimpl
def bgworker_event():
    calls.append(("event", None))
"""

INCOMPARABLE = """
class Plugin:
    __hash__ = None

    def __eq__(self, other):
        raise RuntimeError

    bgworker_init = staticmethod(bgworker_init)
"""

WORKERS = """
from bgworker._declare import background_worker
from bgworker._spec import DATABASE_WORKER_FLAGS

@background_worker(bgw_name="drain all orders", bgw_flags=DATABASE_WORKER_FLAGS, bgw_restart_time=5, wake_on=("orders",))
def drain(arg): ...

def plain(arg): ...

class Holder:
    @staticmethod
    def inner(arg): ...

number = 3
"""


@pytest.fixture
def good(make: Make, find: Find) -> InstalledPlugin:
    make("the-good", files={"good.py": GOOD}, entry_points={"bgworker.plugins": {"good": "good"}})
    return find("good")


def workers_plugin(make: Make, find: Find, points: dict[str, str]) -> InstalledPlugin:
    make("shop-queue", files={"shop_queue.py": WORKERS}, entry_points={"bgworker.workers": points})
    return find("shop_queue")


class TestLoad:
    """Importing plugins and checking their hooks."""

    def test_calls_each_hook_with_what_it_accepts(self, good: InstalledPlugin) -> None:
        """C02: a plugin's hooks are called one by one, and may accept fewer arguments than there are."""
        plugins = PluginHost()
        plugins.load(good)
        plugins.load(good)
        registrations = plugins.initialise(good, {"number": 1})
        assert [(each.plugin, each.worker.bgw_name) for each in registrations] == [("good", "good 0")]
        assert len(plugins.initialise("good")) == 2
        host: Any = object()
        plugins.ready("good", host)
        event: Any = {"event": "started"}
        plugins.event("good", event)
        assert sys.modules["good"].calls == [("settings", None), ("ready", host), ("event", None)]
        assert plugins.names == ["good"]
        assert plugins.settings_types == {"good": sys.modules["good"].Settings}

    @pytest.mark.parametrize(
        ("name", "primary"),
        [
            ("exits_at_import", 'failed while "exits_at_import" was imported: SystemExit: 0'),
            ("raises_at_import", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
            ("interrupts_at_import", 'failed while "interrupts_at_import" was imported: interrupts_at_import.Unshowable'),
            ("misspells_a_hook", 'implements hook "bgworker_inti", which does not exist'),
            ("forgets_the_mark", 'has a function "bgworker_init" that is not marked as a hook'),
            ("asks_too_much", 'has a wrong signature for hook "bgworker_init"'),
            ("is_async", 'has a coroutine as hook "bgworker_init"'),
            ("has_odd_settings", 'failed in hook "bgworker_settings": TypeError'),
        ],
    )
    def test_bad_plugin_is_blamed_and_leaves_nothing(self, bad: Bad, good: InstalledPlugin, name: str, primary: str) -> None:
        """Whatever a plugin does at import, the error names it and its distribution, and the others load (T62)."""
        plugins = PluginHost()
        with pytest.raises(PluginError) as caught:
            plugins.load(bad(name))
        error = caught.value
        assert error.message_primary.startswith(f'plugin "{name}" ')
        assert primary in error.message_primary
        assert "\n" not in error.message_primary
        assert f'"bad-{name.replace("_", "-")}" 1.0' in error.message_detail
        assert list(plugins.broken) == [name]
        assert plugins.names == []
        assert pickle.loads(pickle.dumps(error)).message_detail == error.message_detail
        plugins.load(good)
        assert len(plugins.initialise(good)) == 2

    def test_detail_has_the_traceback_without_our_frames(self, bad: Bad) -> None:
        """The author sees their own lines, not the guard's."""
        with pytest.raises(PluginError) as caught:
            PluginHost().load(bad("raises_at_import"))
        assert "raises_at_import.py" in caught.value.message_detail
        assert "import a_module_that_nobody_has" in caught.value.message_detail
        assert "_plugins" not in caught.value.message_detail.replace("bad_plugins", "")
        assert "importlib" not in caught.value.message_detail

    def test_misspelt_hook_gets_a_hint(self, bad: Bad) -> None:
        """The nearest hook is named."""
        with pytest.raises(PluginError) as caught:
            PluginHost().load(bad("misspells_a_hook"))
        assert caught.value.message_hint == 'Did you mean "bgworker_init"?'

    def test_file_that_is_no_python(self, make: Make, find: Find) -> None:
        """A syntax error is on one line in the message, and shown with its place in the detail."""
        make("letter", files={"letter.py": "x = 1\ndef dear sir(:\n"}, entry_points={"bgworker.plugins": {"letter": "letter"}})
        with pytest.raises(PluginError, match='"letter" failed while "letter" was imported: SyntaxError: ') as caught:
            PluginHost().load(find("letter"))
        assert "letter.py" in caught.value.message_detail
        assert "def dear sir(:" in caught.value.message_detail

    def test_endless_traceback_is_cut(self, make: Make, find: Find) -> None:
        """An error fits into a status message, and its end, which has the reason, is kept."""
        source = "class Long(Exception): pass\nraise Long('x' * 100_000 + ' the end')\n"
        make("long", files={"long_one.py": source}, entry_points={"bgworker.plugins": {"long": "long_one"}})
        with pytest.raises(PluginError) as caught:
            PluginHost().load(find("long"))
        assert len(caught.value.message_detail) < 10_000
        assert caught.value.message_detail.endswith("the end")
        assert len(caught.value.message_primary) < 500

    def test_broken_metadata_is_not_imported(self, make: Make, find: Find) -> None:
        """A plugin whose metadata is broken is refused with the reason."""
        make("odd", files={"odd.py": ""}, entry_points={"bgworker.plugins": {"odd": "odd:"}})
        with pytest.raises(PluginError) as caught:
            PluginHost().load(find("odd"))
        assert '"odd:" is not of the form' in caught.value.message_detail
        assert "odd" not in sys.modules

    def test_plain_module_may_have_hooks(self, site: Path) -> None:
        """A module beside workers.toml is loaded by its name, hooks included."""
        (site / "good.py").write_text(GOOD)
        plugins = PluginHost()
        plugins.load("good")
        assert len(plugins.initialise("good")) == 2

    def test_plain_module_that_fails_is_called_a_module(self, site: Path) -> None:
        """Without a distribution there is none to blame."""
        (site / "worse.py").write_text("1 / 0")
        with pytest.raises(PluginError) as caught:
            PluginHost().load("worse")
        assert str(caught.value) == 'module "worse" failed while "worse" was imported: ZeroDivisionError: division by zero'

    def test_objects_that_cannot_be_compared_do_not_disturb(self, make: Make, find: Find) -> None:
        """A plugin object without hash, or with an equality that raises, loads like any other, and so does its neighbour."""
        source = GOOD + INCOMPARABLE
        make(
            "odd",
            files={"odd.py": source + "one = Plugin()\ntwo = Plugin()\n"},
            entry_points={"bgworker.plugins": {"one": "odd:one", "two": "odd:two"}},
        )
        plugins = PluginHost()
        plugins.load(find("one"))
        plugins.load(find("two"))
        assert plugins.implementing("bgworker_init") == ["one", "two"]

    def test_launcher_is_needed_only_for_its_hooks(self, good: InstalledPlugin, make: Make, find: Find) -> None:
        """Without bgworker_ready and bgworker_event no process is spent on a launcher."""
        plugins = PluginHost()
        plugins.load(workers_plugin(make, find, {"w": "shop_queue:plain"}))
        assert not plugins.needs_launcher
        plugins.load(good)
        assert plugins.needs_launcher

    def test_library_of_a_loaded_plugin(self, good: InstalledPlugin) -> None:
        """C10: a loaded plugin's name leads to its module, whatever its case."""
        plugins = PluginHost()
        assert plugins.library("good") is None
        plugins.load(good)
        assert plugins.library("GOOD") == "good"
        assert plugins.library("other") is None


class TestInitialise:
    """bgworker_init."""

    def test_half_done_registration_is_undone(self, bad: Bad) -> None:
        """A hook that fails registers nothing, and the plugin is set aside."""
        plugins = PluginHost()
        plugin = bad("fails_half_way")
        plugins.load(plugin)
        with pytest.raises(
            PluginError, match='"fails_half_way" failed in hook "bgworker_init": ValueError: there is no other half'
        ):
            plugins.initialise(plugin)
        assert plugins.names == []
        assert "there is no other half" in plugins.broken["fails_half_way"]

    def test_exit_is_a_failure(self, bad: Bad) -> None:
        """sys.exit(0) in a hook is reported, never taken for success (T55)."""
        plugins = PluginHost()
        plugin = bad("exits_in_init")
        plugins.load(plugin)
        with pytest.raises(PluginError, match="SystemExit: 0"):
            plugins.initialise(plugin)

    def test_static_registration_is_over_after_the_hook(self, bad: Bad) -> None:
        """C02: a registry that was kept refuses once the hook has returned or failed."""
        plugins = PluginHost()
        plugin = bad("fails_half_way")
        plugins.load(plugin)
        with pytest.raises(PluginError):
            plugins.initialise(plugin)
        (registry,) = sys.modules["fails_half_way"].kept
        with pytest.raises(RegistrationError, match="static registration is possible only while the host starts or reloads"):
            registry.register_background_worker(BackgroundWorker(bgw_name="late"))

    def test_only_background_workers_can_be_registered(self, bad: Bad) -> None:
        """Anything else is refused in the line that did it."""
        plugins = PluginHost()
        plugin = bad("registers_a_dict")
        plugins.load(plugin)
        with pytest.raises(PluginError, match="dict is not a BackgroundWorker"):
            plugins.initialise(plugin)

    def test_settings_error_leaves_the_plugin_alone(self, good: InstalledPlugin) -> None:
        """A mistake in workers.toml is the operator's, not the plugin's."""
        plugins = PluginHost()
        plugins.load(good)
        with pytest.raises(ConfigurationError, match=r"\[settings.good\] number: expected int, found str"):
            plugins.initialise(good, {"number": "2"})
        assert plugins.broken == {}
        assert len(plugins.initialise(good, {})) == 2


class TestEntryPointWorkers:
    """Static workers without a hook."""

    def test_keys_come_from_the_function(self, make: Make, find: Find) -> None:
        """C02: an entry point alone is a static worker; the decorator on its function says the rest."""
        plugins = PluginHost()
        plugin = workers_plugin(
            make, find, {"order-drain": "shop_queue:drain", "plain.1": "shop_queue:plain", "in": "shop_queue:Holder.inner"}
        )
        plugins.load(plugin)
        assert [each.worker for each in plugins.initialise(plugin)] == [
            BackgroundWorker(
                bgw_name="drain all orders",
                bgw_flags=DATABASE_WORKER_FLAGS,
                bgw_restart_time=5,
                wake_on=("orders",),
                bgw_library_name="shop_queue",
                bgw_function_name="drain",
            ),
            BackgroundWorker(bgw_name="plain.1", bgw_library_name="shop_queue", bgw_function_name="plain"),
            BackgroundWorker(bgw_name="in", bgw_library_name="shop_queue", bgw_function_name="Holder.inner"),
        ]

    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("a b", "shop_queue:plain", 'names a background worker "a b"'),
            ("bärbel", "shop_queue:plain", 'names a background worker "bärbel"'),
            ("w", "shop_queue", 'names no function for background worker "w"'),
            ("w", "shop_queue:absent", "AttributeError"),
            ("w", "shop_queue:number", 'names something else than a function for background worker "w"'),
            ("w", "no_such_shop:run", "ModuleNotFoundError"),
        ],
    )
    def test_wrong_ones_are_named(self, make: Make, find: Find, name: str, value: str, reason: str) -> None:
        """An entry point that is no worker is an error of its plugin, which names both."""
        with pytest.raises(PluginError) as caught:
            PluginHost().load(workers_plugin(make, find, {name: value}))
        assert reason in caught.value.message_primary
        assert 'plugin "shop_queue"' in caught.value.message_primary


class TestLauncherHooks:
    """bgworker_ready and bgworker_event."""

    def test_failures_name_plugin_and_hook(self, bad: Bad) -> None:
        """A hook that fails in the launcher is blamed, and stays in use."""
        plugins = PluginHost()
        plugin = bad("fails_in_launcher")
        plugins.load(plugin)
        with pytest.raises(PluginError, match='failed in hook "bgworker_ready": SystemExit: not ready at all'):
            plugins.ready(plugin.name, None)  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(PluginError, match='failed in hook "bgworker_event": LookupError: no such event'):
                plugins.event(plugin.name, {"event": "started"})  # type: ignore[typeddict-item]
        assert sys.modules["fails_in_launcher"].calls == ["ready", "started", "started"]
        assert plugins.broken == {}

    def test_order_to_terminate_is_let_through(self, bad: Bad) -> None:
        """What ends the launcher is not the plugin's failure."""
        plugins = PluginHost()
        plugin = bad("fails_in_launcher")
        plugins.load(plugin)
        with pytest.raises(SystemExit):
            plugins.ready(plugin.name, None, (SystemExit,))  # type: ignore[arg-type]
