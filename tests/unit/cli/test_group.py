"""Every verb, the words for mistakes, and the verbs of plugins."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from typing import Any

import click
import pytest

from bgworker import cli
from bgworker.cli import _group, main
from bgworker.errors import HostError, NoFreeSlot

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("verb", list(_group.VERBS))
def test_each_verb_helps(run: Run, verb: str) -> None:
    """The help of each verb says what it does, shows an example, and names -D and -c."""
    code, out, err = run(verb, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: bgworker {verb}" in out
    assert "Examples:" in out
    assert "--data-directory DIR" in out
    assert "--config FILE" in out
    # The line of the overview is no promise that the verb's own help breaks.
    assert _group.VERBS[verb].summary[0].isupper()
    assert _group.VERBS[verb].summary.endswith(".")


@pytest.mark.parametrize("verb", ["", *_group.VERBS])
def test_help_fits_a_terminal(run: Run, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wrapped by a terminal of 80 columns, examples and lists of choices included."""
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in run(*filter(None, [verb]), "--help")[1].splitlines() if len(line) > 80] == []


def test_overview_is_one_table(run: Run) -> None:
    """All summaries begin in one column, and every exit code is said."""
    out = run("--help")[1]
    places = {out.split(f"\n  {name} ", 1)[1].index(verb.summary[:9]) + len(name) for name, verb in _group.VERBS.items()}
    assert len(places) == 1
    assert all(f"{code} " in out.partition("Exit codes: ")[2] for code in range(8))


@pytest.mark.parametrize("verb", [verb for verb in _group.VERBS if verb != "psql"])
def test_short_help(run: Run, verb: str) -> None:
    """-h is --help, but for psql, whose -h names a server."""
    assert run(verb, "-h") == run(verb, "--help")


def test_the_overview_imports_no_verb(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The help of the whole lists every verb and costs no import of any."""
    monkeypatch.setattr(_group, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"  {name} " in out for name in _group.VERBS)


def test_without_a_verb(run: Run) -> None:
    """The bare command shows the overview and is a usage error."""
    code, out, _ = run()
    assert code == 2
    assert out.startswith("Usage: bgworker")


def test_version(run: Run) -> None:
    """--version is one line."""
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("bgworker ")
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "primary", "hint"),
    [
        (["statsu"], 'there is no command "statsu"', "The nearest is: bgworker status"),
        (["zzz"], 'there is no command "zzz"', "See all of them with: bgworker --help"),
        (["status", "--jsno"], 'there is no option "--jsno"', "The nearest is --json. See: bgworker status --help"),
        (["run", "--tide"], 'there is no option "--tide"', "The nearest is --tui. See: bgworker run --help"),
        (["wait"], "missing argument 'NAME'", "See: bgworker wait --help"),
        (["stop", "drain"], 'stop takes no name, and "drain" was given', "To stop a worker: bgworker terminate drain"),
        (["stop", "--mode", "slow"], "invalid value for '--mode'", "See: bgworker stop --help"),
        (["logs", "-n", "x"], "'x' is not a valid integer", "See: bgworker logs --help"),
        (["wait", "x", "--timeout", "soon"], '"soon" is not a number of seconds', "See: bgworker wait --help"),
        (["wait", "x", "--timeout", "nan"], '"nan" is not a number of seconds', "See: bgworker wait --help"),
        (["register", "shop"], '"shop" is not of the form LIBRARY:FUNCTION', "See: bgworker register --help"),
        (["register", "a:b", "--arg", "x"], "it is not JSON", "See: bgworker register --help"),
        (["status", "--watch", "--json"], "--watch cannot be combined with --json", ""),
        (["demo", "-D", "x"], "demo takes neither -D nor -c", "Run your own workers.toml with: bgworker run --tui"),
        (["-D"], "option '-D' requires an argument", "See: bgworker --help"),
    ],
)
def test_mistakes(run: Run, arguments: list[str], primary: str, hint: str) -> None:
    """A mistake is ERROR and HINT on standard error, exit code 2, nothing on standard output and no traceback."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("ERROR:  ")
    assert primary in err
    assert not hint or f"HINT:  {hint}\n" in err
    assert "Traceback" not in err


def test_hidden_options_are_not_suggested(run: Run) -> None:
    """What is hidden from the help is not given away by a hint."""
    assert "--tied" not in run("run", "--tide")[2]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoFreeSlot("no free slot", "All 8 are taken.", "Raise max_worker_processes."), 5),
        (HostError("boom\x1b[2J"), 1),
        (KeyboardInterrupt(), 130),
        (PermissionError(13, "Permission denied", "/srv/x"), 1),
    ],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, run: Run, error: BaseException, code: int) -> None:
    """Each kind of failure has its exit code; Ctrl-C is quiet, and what others wrote is inert."""

    def fail(_argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    found, out, err = run("status")
    assert (found, out) == (code, "")
    assert "\x1b" not in err
    assert "Traceback" not in err
    assert (err == "") is isinstance(error, KeyboardInterrupt)


# -- verbs of plugins -------------------------------------------------------------------------


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Offer a command of a plugin: its name and what its module has under ``group``."""
    from bgworker._plugins import discovery

    offered: list[Any] = []
    monkeypatch.setattr(discovery, "commands", lambda: offered)

    def make(name: str, group: Any = None, value: str = "shop_queue_cli:group") -> None:
        plugin = discovery.InstalledPlugin("shop_queue", "acme-shop", "1.2", "shop_queue")
        offered.append(discovery.InstalledCommand(name, value, plugin))
        module = types.ModuleType("shop_queue_cli")
        module.group = group  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "shop_queue_cli", module)

    return make


def test_a_plugin_adds_a_verb(offer: Any, run: Run) -> None:
    """A plugin's verb is listed, imported when it is called, and finds the host that -D means."""
    seen: list[str] = []

    @click.command()
    @click.option("--count", type=int)
    def group(count: int) -> None:
        seen.append(f"{count} {os.environ['BGWORKER_DATA']}")

    offer("shop", group)
    assert "shop" in run("--help")[1]
    assert run("shop", "--count", "3", "-D", "/srv/a")[0] == 0
    assert run("-D", "/srv/b", "shop", "--count", "4")[0] == 0
    assert seen == ["3 /srv/a", "4 /srv/b"]


def test_a_plugin_keeps_its_own_options(offer: Any, run: Run) -> None:
    """Where a plugin's verb has a -c of its own, it is the plugin's."""
    seen: list[str] = []

    @click.command()
    @click.option("-c", "colour")
    def group(colour: str) -> None:
        seen.append(colour)

    offer("shop", group)
    assert run("shop", "-c", "blue")[0] == 0
    assert seen == ["blue"]


def test_a_plugin_cannot_shadow_a_verb(offer: Any, run: Run) -> None:
    """Our verbs are ours, whatever a plugin offers under their names."""
    offer("status", click.Command("status", callback=lambda: pytest.fail("the plugin's command ran")))
    assert "Show the workers" in run("status", "--help")[1]
    assert "From plugins" not in run("--help")[1]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module_of_ours:group", "could not be loaded: ModuleNotFoundError: No module named 'no_such_module_of_ours'"),
        ("shop_queue_cli:nothing", "could not be loaded: AttributeError"),
        ("shop_queue_cli:group", "cannot be run: shop_queue_cli:group is not a click command"),
    ],
)
def test_a_broken_verb_is_named(offer: Any, run: Run, value: str, reason: str) -> None:
    """A verb that cannot be loaded is an error that names command and plugin, without a traceback; ours go on working."""
    offer("shop", 42, value)
    code, out, err = run("shop")
    assert (code, out) == (1, "")
    assert err.startswith(f'ERROR:  command "shop" of plugin "shop_queue" {reason}')
    assert "Traceback" not in err
    assert run("schema", "--help")[0] == 0


def test_a_verb_that_exits_while_it_is_imported(offer: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """SystemExit at import is the plugin's failure, not the end of the command line."""
    offer("shop")

    def leave(_name: str) -> Any:
        raise SystemExit(0)

    monkeypatch.setattr(_group, "import_module", leave)
    code, _, err = run("shop")
    assert code == 1
    assert "could not be loaded: SystemExit" in err


def test_a_verb_that_fails_is_named(offer: Any, run: Run) -> None:
    """An exception in a plugin's verb is the plugin's, with file and line; an error of ours keeps its words and code."""

    @click.command()
    @click.option("--ours", is_flag=True)
    def group(ours: bool) -> None:
        raise NoFreeSlot("every slot is taken") if ours else TypeError("a\x1b[31m")

    offer("shop", group)
    code, _, err = run("shop")
    assert code == 1
    assert 'command "shop" of plugin "shop_queue" failed: TypeError: a?[31m' in err
    assert "test_group.py" in err
    assert run("shop", "--ours")[0] == 5


def test_broken_metadata_breaks_no_verb_of_ours(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """If the plugins cannot even be listed, the help says so and lists ours."""
    from bgworker._plugins import discovery

    def fail() -> Any:
        raise RuntimeError("broken metadata")

    monkeypatch.setattr(discovery, "commands", fail)
    code, out, err = run("--help")
    assert code == 0
    assert "status" in out
    assert "could not look for the commands of plugins: broken metadata" in err


def test_main_reads_sys_argv(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The console script calls main() without arguments."""
    monkeypatch.setattr(sys, "argv", ["bgworker", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("bgworker ")
