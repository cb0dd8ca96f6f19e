"""``run --dev``: who is restarted when which file changes, and that a broken file stops nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

LOOP = """
from bgworker import worker
def main(arg):
    worker.unblock_signals()
    print("WORD", WORD, flush=True)
    for _ in worker.latch_loop():
        pass
"""
TABLE = '[[worker]]\nbgw_name = "{0}"\nbgw_library_name = "{0}"\nbgw_function_name = "main"\n'


@pytest.fixture
def host(make_host: MakeHost) -> Iterator[RunningHost]:
    """A watched host: worker ``one``, preloaded, imports ``shared``; worker ``two`` nothing."""
    host = make_host(
        '[host]\nshared_preload_libraries = ["one"]\n' + TABLE.format("one") + TABLE.format("two"),
        one=f"from shared import WORD\n{LOOP}",
        two=f'WORD = "first"\n{LOOP}',
        shared='WORD = "first"\n',
    )
    host.start("--dev")
    host.wait_until(lambda: "LOG:  watching " in printed(host), "files are watched")
    for name in ("one", "two"):
        host.wait_for_worker(name)
    yield host
    assert host.stop(signal.SIGINT) == 0, printed(host)


def printed(host: RunningHost) -> str:
    return host.output.read_text() if host.output.exists() else ""


def pids(host: RunningHost) -> dict[str, int]:
    return {name: host.wait_for_worker(name)["pid"] for name in ("one", "two")}


def write(host: RunningHost, name: str, text: str) -> None:
    """Change a file in one step, as editors do that write beside it."""
    beside = host.directory / f".{name}.new"
    beside.write_text(text)
    beside.rename(host.directory / name)


def wait_for_word(host: RunningHost, name: str, word: str) -> None:
    host.wait_until(lambda: f"WORD {word}" in host.log(name), f"{name} says {word}")
    host.wait_for_worker(name)


def test_only_the_workers_of_a_changed_library_restart(host: RunningHost) -> None:
    """Its own file and a module that it imports concern a worker; everything else runs on untouched."""
    before = pids(host)
    (host.directory / "two.py").write_text(f'WORD = "second"\n{LOOP}')  # in place
    wait_for_word(host, "two", "second")
    between = pids(host)
    assert (between["one"], between["two"] != before["two"]) == (before["one"], True)
    write(host, "shared.py", 'WORD = "second"\n')
    wait_for_word(host, "one", "second")
    assert pids(host)["two"] == between["two"]
    assert 'LOG:  restarting background worker "one": its code has changed' in printed(host)


def test_broken_file_restarts_nobody(host: RunningHost) -> None:
    """Said with file and line; what else has changed meanwhile waits, too; mended, both are taken up."""
    before = pids(host)
    write(host, "two.py", f'WORD = "second"\n{LOOP}\ndef (\n')
    broken = f'ERROR:  file "{host.directory / "two.py"}", line 10: invalid syntax'
    host.wait_until(lambda: broken in printed(host), "the error is said")
    write(host, "shared.py", 'WORD = "second"\n')
    host.wait_until(lambda: printed(host).count(broken) == 2, "the error is said again")
    assert pids(host) == before
    assert "received reload request" not in host.log()
    write(host, "two.py", f'WORD = "third"\n{LOOP}')
    wait_for_word(host, "two", "third")
    wait_for_word(host, "one", "second")
    before = pids(host)
    write(host, "shared.py", "raise ValueError('no such word')\n")
    host.wait_until(lambda: "ValueError: no such word" in printed(host), "the plugin's error is said")
    assert pids(host) == before


def test_workers_toml_is_reloaded(host: RunningHost) -> None:
    """A worker more is started and the others run on; a file with errors is said and changes nothing."""
    before = pids(host)
    config = host.config_path.read_text()
    write(host, "workers.toml", f"{config}nonsense = 1\n")
    host.wait_until(lambda: "ERROR:  could not reload: the configuration has errors" in printed(host), "the error is said")
    (host.directory / "three.py").write_text(f'WORD = "new"\n{LOOP}')
    write(host, "workers.toml", config + TABLE.format("three"))
    wait_for_word(host, "three", "new")
    assert pids(host) == before
    # A second host on the directory is refused as without --dev.
    result = host.run_cli("run", "--dev")
    assert result.returncode == 2
    assert "ERROR:" in result.stderr


def test_not_beside_the_view(make_host: MakeHost) -> None:
    """Two things that write to one terminal are refused."""
    result = make_host().run_cli("run", "--dev", "--tui")
    assert (result.returncode, "--dev and --tui cannot be combined" in result.stderr) == (2, True)
