"""What a host's processes inherit and where they look for modules: nothing of the service manager's, nothing of the directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker.testing import RunningHost
from tests.plugins.making import make_distribution

MakeHost = Callable[..., RunningHost]

TASKS = '''
import json, os
from bgworker import worker

def show(path):
    """Write down the environment as Python and as the kernel has it, and the mask of new files."""
    with open("/proc/self/environ", "rb") as file:
        kernel = [each.partition(b"=")[0].decode() for each in file.read().split(b"\\0") if each]
    with open(path, "w") as file:
        json.dump([sorted(os.environ), kernel], file)
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass
'''
OF_THE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES")


@pytest.mark.parametrize("preloaded", [True, False], ids=["preloaded", "exec"])
def test_workers_do_not_inherit_the_managers_words(
    make_host: MakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preloaded: bool
) -> None:
    """What a service manager tells the host alone is in no worker's environment, not even where the kernel keeps it."""
    for name in OF_THE_MANAGER:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("SHOP_SETTING", "42")
    path = tmp_path / "said"
    head = "[host]\nmax_worker_processes = 2\n" + ('shared_preload_libraries = ["tasks"]\n' if preloaded else "")
    table = f'[[worker]]\nbgw_name = "w"\nbgw_library_name = "tasks"\nbgw_function_name = "show"\nbgw_main_arg = "{path}"\n'
    host = make_host(head + table, tasks=TASKS)
    host.start_and_wait()
    host.wait_for_worker("w")
    host.wait_until(path.exists, "it has written")
    python, kernel = host.wait_until(lambda: json.loads(path.read_text() or "null"), "it has written all")
    assert "SHOP_SETTING" in python
    # Where the title of the process has been written over it, the kernel has none left.
    assert not {*python, *kernel} & set(OF_THE_MANAGER)
    children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children")  # type: ignore[union-attr]
    for child in children.read_text().split():
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()


def test_current_directory_is_no_place_of_modules(make_host: MakeHost, tmp_path: Path) -> None:
    """`python -m bgworker` without -P imports nothing that lies in the current directory, which may be anybody's."""
    trap = f"open({str(tmp_path / 'sprung')!r}, 'a').write(__name__ + ' ')\nraise SystemExit(99)\n"
    directory = tmp_path / "anybodys"
    directory.mkdir()
    for name in ("click", "rich", "msgspec", "pluggy", "psutil", "setproctitle", "importlib_metadata", "grp", "pwd", "resource"):
        (directory / f"{name}.py").write_text(trap)
    host = make_host("[host]\nmax_worker_processes = 2\n")
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    for arguments in (["check"], ["run"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "bgworker", "-c", str(host.config_path), *arguments],
            cwd=directory, env=inherited, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if arguments == ["run"]:
            host.process = process
            host.wait_for_state("run")
            assert host.stop() == 0
        else:
            assert process.wait(timeout=60) == 0
    assert not (tmp_path / "sprung").exists()


def test_nothing_is_imported_that_is_not_listed(make_host: MakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed plugin is named and not imported, by the host or a command, until shared_preload_libraries lists it."""
    mark = tmp_path / "imported"
    make_distribution(
        tmp_path,
        "lurker",
        files={"lurker.py": f"open({str(mark)!r}, 'a').write('x')\n"},
        entry_points={
            "bgworker.plugins": {"lurker": "lurker"},
            "bgworker.workers": {"w": "lurker:main"},
            "bgworker.commands": {"lurk": "lurker:group"},
        },
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    host = make_host("[host]\nmax_worker_processes = 2\n", tasks=TASKS)
    host.start_and_wait()
    assert "lurker" in host.run_cli("plugins").stdout
    assert "lurk" in host.run_cli("--help").stdout
    assert '"lurker"' in host.run_cli("check").stderr
    assert host.run_cli("reload").returncode == 0
    assert not mark.exists()
    assert host.status()["slots"] == []
    host.config_path.write_text('[host]\nmax_worker_processes = 2\nshared_preload_libraries = ["lurker"]\n')
    host.run_cli("reload")
    assert mark.exists()


@pytest.mark.parametrize("content", ['{"pid": PID}', "[]"])
def test_content_of_a_lock_file_is_nobodys_order(make_host: MakeHost, content: str) -> None:
    """T30: whatever process a lock file names, the host starts, and nothing is ever signalled because of it."""
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        host = make_host("[host]\nmax_worker_processes = 2\n")
        host.data_directory.mkdir(mode=0o700)
        for name in ("host.lock", "workers.lock"):
            (host.data_directory / name).write_text(content.replace("PID", str(stranger.pid)))
        host.start_and_wait()
        assert host.stop() == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
