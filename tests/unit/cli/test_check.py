"""check and plugins: what is said of what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgworker._plugins import discovery
from bgworker._spec import BackgroundWorker
from bgworker.cli import check, demo
from bgworker.errors import HostError, PluginError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "workers.toml"
    path.write_text("[host]\nmax_worker_processes = 1\n")
    return path


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the throw-away process says."""
    worker = BackgroundWorker(bgw_name="drain", bgw_library_name="shop", bgw_function_name="main", bgw_restart_time=5).to_dict()
    origins = dict.fromkeys(worker, "default") | {"bgw_name": "plugin shop", "bgw_function_name": "plugin shop"}
    facts: dict[str, Any] = {
        "errors": [],
        "plugins": ["shop"],
        "workers": [{**worker, "origins": origins | {"bgw_restart_time": "workers.toml [[worker]] #1"}}],
        "broken_plugins": [],
        "rejected": [],
        "warnings": [],
    }
    monkeypatch.setattr(check, "load_apart", lambda configuration: facts)
    monkeypatch.setattr(discovery, "installed_plugins", list)
    return facts


def test_what_would_run(run: Run, config: Path, report: dict[str, Any]) -> None:
    """Each worker with its function, and each value that is no default with where it came from."""
    code, out, err = run("check", "-c", str(config))
    assert (code, err) == (0, "")
    assert "drain  shop:main  (plugin shop)" in out
    assert "  bgw_restart_time  5  (workers.toml [[worker]] #1)" in out
    assert "bgw_extra" not in out


def test_columns_are_as_wide_as_the_longest_key(run: Run, config: Path, report: dict[str, Any]) -> None:
    """The values of one worker stand below each other, whatever its keys are called."""
    (worker,) = report["workers"]
    worker |= {"success_exit_codes": [2], "umask": "022"}
    worker["origins"] |= {"success_exit_codes": "x", "umask": "x"}
    out = run("check", "-c", str(config))[1]
    assert "  umask               022  (x)" in out
    assert "  success_exit_codes  [2]  (x)" in out


def test_advice_is_a_hint(run: Run, config: Path, report: dict[str, Any]) -> None:
    """What to do about a worker that would not start is a HINT line, and no detail."""
    report["rejected"] = [{"bgw_name": "r", "error": "no user\nNobody is called so.", "hint": "Create it first."}]
    assert "ERROR:  no user\nDETAIL:  Nobody is called so.\nHINT:  Create it first.\n" in run("check", "-c", str(config))[2]


def test_what_would_not(run: Run, config: Path, report: dict[str, Any]) -> None:
    """A broken plugin, a rejected worker and one too many are errors with exit code 1; a warning is none."""
    report["warnings"] = ["settings of x are not used"]
    assert run("check", "-c", str(config))[0] == 0
    report["broken_plugins"] = [{"name": "bad", "error": 'plugin "bad" is not loaded: boom\nTraceback: x'}]
    report["rejected"] = [{"bgw_name": "r", "error": 'background worker "r" cannot be registered: it names no function'}]
    report["workers"] *= 2
    code, _, err = run("check", "-c", str(config))
    assert code == 1
    assert 'ERROR:  plugin "bad" is not loaded: boom\nDETAIL:  Traceback: x\n' in err
    assert 'ERROR:  background worker "r" cannot be registered: it names no function\n' in err
    assert "ERROR:  too many background workers" in err
    assert "WARNING:  settings of x are not used\n" in err
    code, out, _ = run("check", "-c", str(config), "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["ok"], len(found["errors"])) == (False, 3)


def test_settings_that_a_plugin_refuses(run: Run, config: Path, report: dict[str, Any]) -> None:
    """Errors that only the plugin can find are configuration errors: exit code 2."""
    report["errors"] = [{"code": "configuration", "message_primary": "[settings.shop] naptime: expected a number"}]
    assert run("check", "-c", str(config))[0] == 2


def test_errors_of_the_file(run: Run, tmp_path: Path) -> None:
    """T64: every error of the file at once, exit code 2, and no plugin was touched."""
    path = tmp_path / "bad.toml"
    path.write_text('[host]\nmax_worker_proceses = 3\nlog = "nowhere"\n')
    code, out, err = run("check", "-c", str(path))
    assert (code, out) == (2, "")
    assert "max_worker_proceses" in err
    assert "nowhere" in err


def test_no_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers.toml there is nothing to check or run: exit code 2, and the way to one."""
    monkeypatch.chdir(tmp_path)
    for verb in ("check", "run"):
        code, _, err = run(verb)
        assert code == 2
        assert f'there is no workers.toml in "{tmp_path}"' in err
        assert "bgworker demo" in err


def test_a_plugin_that_kills_the_check_is_named() -> None:
    """T53: the plugin whose import was announced last is to blame for a death without a report."""
    error = check._died("was terminated by signal 11: Segmentation fault", "importing good\nimporting bad\nFatal Python error\n")
    assert isinstance(error, PluginError)
    assert error.message_primary.startswith('plugin "bad" cannot be loaded: the process that loaded it was terminated by signal 11')
    assert error.message_detail == "Fatal Python error"
    assert type(check._died("exited with exit code 3", "boom")) is HostError


def test_plugins_are_listed(run: Run, no_host: None, monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    """Each plugin with whether it is active; a missing one is an error, an inactive one a hint."""
    installed = [
        discovery.InstalledPlugin("a", "acme-a", "1.0", "a", workers=(("w", "a:w"),)),
        discovery.InstalledPlugin("b", "acme-b", "2.0", "b", commands=(("b-cmd", "b:c"),)),
    ]
    monkeypatch.setattr(discovery, "installed_plugins", lambda: installed)
    config.write_text('[host]\nshared_preload_libraries = ["acme-a", "gone"]\n')
    code, out, err = run("plugins", "-c", str(config))
    assert code == 1
    assert "a       acme-a        1.0      active    w        -" in out
    assert "b       acme-b        2.0      inactive  -        b-cmd" in out
    assert 'plugin "gone" is not loaded' in err
    assert 'HINT:  Installed, but not activated: "b".' in err
    found = json.loads(run("plugins", "-c", str(config), "--json")[1])
    assert [p["active"] for p in found["plugins"]] == [True, False]


def test_a_plugin_that_the_host_found_broken(run: Run, client: Any, monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    """With a host running, what it found broken is told with the last line of the traceback."""
    monkeypatch.setattr(discovery, "installed_plugins", lambda: [discovery.InstalledPlugin("a", "acme-a", "1.0", "a")])
    config.write_text('[host]\nshared_preload_libraries = ["a"]\n')
    client.facts["broken_plugins"] = [{"name": "a", "error": "Traceback ...\nImportError: no module x\n"}]
    code, out, err = run("plugins", "-c", str(config))
    assert code == 1
    assert "broken" in out
    assert 'WARNING:  plugin "a" is broken: ImportError: no module x\n' in err


@pytest.mark.parametrize(
    ("plugins", "has_database"), [(["worker_spi", "notify_demo"], True), (["worker_spi"], True), ([], True), ([], False)]
)
def test_the_demos_files_are_a_configuration(tmp_path: Path, plugins: list[str], has_database: bool) -> None:
    """Whatever is installed, the demo writes a file without errors in which something runs."""
    from bgworker._config.load import load_configuration

    demo.write_files(str(tmp_path), plugins, has_database)
    configuration = load_configuration(str(tmp_path / "workers.toml"))
    assert configuration.host.shared_preload_libraries == plugins
    assert (configuration.database is not None) is has_database
    assert bool(configuration.worker) is not bool(plugins)
    if not plugins:
        compile((tmp_path / "ticker.py").read_text(), "ticker.py", "exec")


def test_the_demo_says_what_is_missing() -> None:
    """What to install is one command; nothing is said when all is there."""
    assert demo.missing_words(["worker_spi", "notify_demo"], True) == []
    assert "pip install bgworker-notify-demo" in demo.missing_words(["worker_spi"], True)[0]
    assert 'pip install "bgworker[embedded]" bgworker-worker-spi bgworker-notify-demo' in demo.missing_words([], False)[0]
