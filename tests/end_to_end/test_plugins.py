"""Hostile and broken plugins: named, set aside, the rest runs (C40)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

CONFIG = """
[host]
max_worker_processes = 4
load_timeout = 3.0
shared_preload_libraries = ["bad", "good"]
[[worker]]
bgw_name = "good one"
bgw_library_name = "good"
bgw_function_name = "main"
"""

GOOD = """
from bgworker import worker
def main(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass
"""

BAD = {
    "segfault": "import ctypes; ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "exit_0": "import os; os._exit(0)",
    "sys_exit": "import sys; sys.exit(3)",
    "exception": "raise RuntimeError('no')",
    "base_exception": "raise BaseException('no')",
    "syntax": "def (",
    "hang": "while True: pass",
    "closes_descriptors": "import os; os.closerange(3, 1000)",
    "forks": "import os; os.fork()",
    "signals": "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.alarm(1); raise RuntimeError('late')",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_plugin_is_named_and_the_rest_runs(make_host: MakeHost, kind: str) -> None:
    """C40, T53, T54, T55, T56: whatever a plugin does at import, it is blamed by name and the other workers run."""
    host = make_host(CONFIG, bad=BAD[kind], good=GOOD)
    host.start_and_wait()
    host.wait_for_worker("good one")
    assert [entry["name"] for entry in host.status()["broken_plugins"]] == ["bad"]


SPOILS = {
    "starts threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n",
    "replaces os.setsid": "import os\nos.setsid = print\n",
}


@pytest.mark.parametrize("how", SPOILS)
def test_plugin_that_spoils_its_process_works_by_exec(make_host: MakeHost, how: str) -> None:
    """C40, T15: a library that starts a thread or patches Python at import is not cloned; its workers run, and so do others."""
    threads = SPOILS[how] + GOOD
    config = CONFIG + '[[worker]]\nbgw_name = "threaded"\nbgw_library_name = "bad"\nbgw_function_name = "main"\n'
    host = make_host(config, bad=threads, good=GOOD)
    host.start_and_wait()
    host.wait_for_worker("good one")
    host.wait_for_worker("threaded")
    assert host.status()["broken_plugins"] == []
    assert f'plugin "bad" {how} when it is imported: its workers are executed, not cloned' in host.log()


def test_reload_with_a_broken_plugin_changes_nothing(make_host: MakeHost) -> None:
    """A plugin that breaks between start and reload is refused; what runs goes on."""
    host = make_host(CONFIG, bad="x = 1", good=GOOD)
    host.start_and_wait()
    pid = host.wait_for_worker("good one")["pid"]
    (host.directory / "bad.py").write_text("raise RuntimeError('broken since')")
    result = host.run_cli("reload")
    assert result.returncode != 0
    assert '"bad"' in result.stderr
    slot = host.slot("good one")
    assert slot is not None
    assert slot["pid"] == pid
    assert host.status()["broken_plugins"] == []
