from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker._launcher import Launcher, load_here
from bgworker._plugins.discovery import InstalledPlugin
from bgworker._plugins.manager import PluginHost

Make = Callable[..., Path]
Find = Callable[[str], InstalledPlugin]

WATCHER = """
from bgworker.hookspecs import hookimpl

calls = []

@hookimpl
def bgworker_ready(host):
    calls.append("ready")

@hookimpl
def bgworker_event(event):
    calls.append(dict(event))
    event.clear()
"""


class FakeChannel:
    """What the launcher sees of its channel to the host."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.events = list(events)

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Keep the request."""
        self.requests.append((method, params))
        return {}

    def subscribe_events(self) -> None:
        """Is not the business of what is tested here."""
        raise AssertionError("the main function does it")

    def take_events(self) -> list[dict[str, Any]]:
        """Give the events once."""
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def plugins(make: Make, find: Find) -> PluginHost:
    """Three plugins, of which the middle one fails."""
    for name in ("first", "last"):
        make(f"the-{name}", files={f"{name}.py": WATCHER}, entry_points={"bgworker.plugins": {name: name}})
    plugins = PluginHost()
    plugins.load(find("first"))
    source = (Path(__file__).parents[2] / "plugins" / "bad" / "fails_in_launcher.py").read_text()
    make("the-middle", files={"middle.py": source}, entry_points={"bgworker.plugins": {"middle": "middle"}})
    plugins.load(find("middle"))
    plugins.load(find("last"))
    return plugins


def calls(name: str) -> list[Any]:
    return sys.modules[name].calls  # type: ignore[no-any-return]


def test_ready_is_told_plugin_by_plugin(plugins: PluginHost, capsys: pytest.CaptureFixture[str]) -> None:
    """Each plugin's hook runs once and the host is told after each, also after one that failed."""
    channel = FakeChannel()
    Launcher(plugins, channel).make_ready([])
    assert channel.requests == [("ready_done", {"plugin": name}) for name in ("first", "middle", "last")]
    assert calls("first") == calls("middle") == calls("last") == ["ready"]
    log = capsys.readouterr().err
    assert 'ERROR:  plugin "middle" failed in hook "bgworker_ready": SystemExit: not ready at all' in log
    assert "Traceback" in log
    assert "middle.py" in log


def test_a_refused_registration_is_said_once(make: Make, find: Find, capsys: pytest.CaptureFixture[str]) -> None:
    """What the host refuses comes in its own words, each once, with the plugin's line and none of ours."""
    source = (
        "from bgworker import hookimpl\n@hookimpl\ndef bgworker_ready(host):\n"
        "    host.register_dynamic_background_worker('no worker')\n"
    )
    make("the-refused", files={"refused.py": source}, entry_points={"bgworker.plugins": {"refused": "refused"}})
    plugins = PluginHost()
    plugins.load(find("refused"))
    Launcher(plugins, FakeChannel()).make_ready([])
    log = capsys.readouterr().err.splitlines()
    assert log[0] == (
        'ERROR:  plugin "refused" failed in hook "bgworker_ready": '
        "background worker cannot be registered: str is not a BackgroundWorker"
    )
    assert log[1].startswith('DETAIL:  It is part of distribution "the-refused"')
    assert re.fullmatch(r'It was raised in ".*refused\.py", line 4\.', log[2])
    assert log[3:] == ["HINT:  Give register_dynamic_background_worker() a bgworker.BackgroundWorker."]


def test_restarted_launcher_calls_ready_only_where_it_is_due(plugins: PluginHost) -> None:
    """What the host says is done is not done again."""
    channel = FakeChannel()
    Launcher(plugins, channel).make_ready(["first", "middle"])
    assert channel.requests == [("ready_done", {"plugin": "last"})]
    assert calls("first") == []
    assert calls("last") == ["ready"]


def test_order_to_terminate_leaves_the_plugin_undone(plugins: PluginHost) -> None:
    """A launcher that is terminated in a hook has not done that plugin."""
    channel = FakeChannel()
    with pytest.raises(SystemExit):
        Launcher(plugins, channel, (SystemExit,)).make_ready([])
    assert channel.requests == [("ready_done", {"plugin": "first"})]


def test_events_reach_every_plugin_in_order(plugins: PluginHost, capsys: pytest.CaptureFixture[str]) -> None:
    """A plugin that fails, or changes its event, is no hindrance to the others or to the next event."""
    events: list[dict[str, Any]] = [
        {"event": "started", "pid": 1},
        {"event": "notify", "channel": "x"},
        {"event": "exited", "pid": 1},
        {"event": "host"},
    ]
    launcher = Launcher(plugins, FakeChannel(*events))
    launcher.pass_events()
    wanted = [event for event in events if event["event"] != "notify"]
    assert calls("first") == wanted
    assert calls("last") == wanted
    assert calls("middle") == ["started", "exited", "host"]
    assert capsys.readouterr().err.count("LookupError: no such event") == 2 * 3  # once in the message, once in the traceback
    launcher.pass_events()
    assert len(calls("first")) == 3


def test_plugins_that_start_threads_are_loaded_here(plugins: PluginHost, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """What the loader left out is loaded in the launcher itself; failures are logged, and what is inherited stays."""
    make("the-threaded", files={"threaded.py": WATCHER}, entry_points={"bgworker.plugins": {"threaded": "threaded"}})
    make("the-wrong", files={"wrong.py": "1 / 0"}, entry_points={"bgworker.plugins": {"wrong": "wrong"}})
    load_here(plugins, ["first", "wrong", "absent_one", "threaded"])
    assert plugins.names == ["first", "middle", "last", "threaded"]
    log = capsys.readouterr().err
    assert 'plugin "wrong" failed while "wrong" was imported: ZeroDivisionError' in log
    assert 'plugin "absent_one" is not loaded' in log
