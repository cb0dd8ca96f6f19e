"""A plugin's own settings in its workers: typed, followed through a reload, whoever the plugin is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.integration.worker.driving import PlayedHost

PLUGIN = """
from dataclasses import dataclass
from bgworker import worker
from bgworker.hookspecs import hookimpl

@dataclass(frozen=True)
class Settings:
    naptime: float = 10.0

@hookimpl
def bgworker_settings():
    return Settings

def main(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        if worker.config_reload_pending():
            worker.process_config_file()
        print(worker.settings(), worker.settings("another"), flush=True)
"""


@pytest.fixture
def site(tmp_path: Path) -> str:
    """A folder with an installed plugin "demo", whose module is demo_plugin."""
    (tmp_path / "demo_plugin.py").write_text(PLUGIN)
    info = tmp_path / "bgworker_demo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bgworker-demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bgworker.plugins]\ndemo = demo_plugin\n")
    return str(tmp_path)


@pytest.mark.parametrize("library", ["demo", "demo_plugin"])
@pytest.mark.parametrize("executed", [False, True], ids=["clone", "exec"])
def test_settings_have_the_plugins_type(host: PlayedHost, site: str, library: str, executed: bool) -> None:
    """C10, C25: a worker named by its plugin or by its module gets the plugin's typed settings; a bad reload keeps the old ones."""
    life = host.start(
        "main", library=library, executed=executed, python_path=[site], settings={"demo": {"naptime": 1.0}, "another": {"x": 1}}
    )
    life.read_until("Settings(naptime=1.0) {'x': 1}\n")
    life.signal(signal.SIGHUP)
    life.serve("settings", {"settings": {"demo": {"naptime": 2.5}}})
    life.read_until("Settings(naptime=2.5) {}\n")
    life.signal(signal.SIGHUP)
    life.serve("settings", {"settings": {"demo": {"naptime": "often"}, "another": {"x": 2}}})
    life.read_until("Settings(naptime=2.5) {'x': 2}\n")
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert 'WARNING:  settings of "demo" are not changed: ' in life.read("err")
