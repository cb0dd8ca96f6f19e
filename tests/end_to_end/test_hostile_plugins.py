"""Twelve kinds of hostile plugin at once: each is named, and none keeps the rest from running."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker import BackgroundWorker
from bgworker.testing import DEADLINE, RunningHost
from tests.plugins.making import make_distribution

MakeHost = Callable[..., RunningHost]

#: What each does when it is imported.
SET_ASIDE = {
    "segfaults": "import ctypes; ctypes.string_at(0)",
    "aborts": "import os; os.abort()",
    "exits": "import os; os._exit(0)",
    "hangs": "while True: pass",
    "base_exception": "raise BaseException('no')",
    "closes_descriptors": "import os; os.closerange(3, 1000)",
    "forks": "import os; os.fork()",
    "bad_metadata": "raise AssertionError('never imported: its metadata cannot be read')",
}
#: These work for their own workers; what they do to their process is done to nobody else's.
KEPT_APART = {
    "monkeypatches": "import os, signal; os.setsid = print; true = signal.signal; signal.signal = lambda *given: true(*given)",
    "starts_threads": "import threading, time; threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
}
#: These do nothing that others would feel.
UNFELT = {
    "ignores_signals": (
        "import signal\nfor number in (1, 2, 10, 12, 15, 17): signal.signal(number, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); signal.alarm(1)"
    ),
    "floods": "import os\nfor _ in range(4): os.write(1, b'x' * 1_048_575 + b'\\n')",
}
MAIN = "\ndef main(arg):\n    from bgworker import worker\n    worker.unblock_signals()\n    for _ in worker.latch_loop(): pass\n"


def table(name: str) -> str:
    return f'[[worker]]\nbgw_name = "of {name}"\nbgw_library_name = "{name}"\nbgw_function_name = "main"\nstop_timeout = 20.0\n'


@pytest.fixture
def host(make_host: MakeHost) -> RunningHost:
    """A host with a plugin of each kind, a good one among them, and a worker of each that can have one."""
    kinds = {**SET_ASIDE, **KEPT_APART, **UNFELT}
    assert len(kinds) == 12
    names = [*kinds, "good"]
    configuration = f"[host]\nmax_worker_processes = 12\nload_timeout = 3.0\nshared_preload_libraries = {names}\n"
    configuration += "".join(table(name) for name in ("good", *KEPT_APART, *UNFELT))
    host = make_host(configuration, good=MAIN, **{name: text + MAIN for name, text in kinds.items() if name != "bad_metadata"})
    # An entry point that names no module; the directory is on sys.path, which is where metadata is looked for.
    make_distribution(host.directory, "bad-metadata", entry_points={"bgworker.plugins": {"bad_metadata": "1 :: no module"}})
    host.start_and_wait()
    return host


@pytest.mark.slow
def test_twelve_hostile_plugins(host: RunningHost) -> None:
    """C40, T15, T53, T54, T55, T56, T62: all twelve are named, or do nothing that others feel; the rest run, and end in order."""
    pids = {name: host.wait_for_worker(f"of {name}")["pid"] for name in ("good", *KEPT_APART, *UNFELT)}
    assert {entry["name"] for entry in host.status()["broken_plugins"]} == set(SET_ASIDE)
    for name in KEPT_APART:
        assert f'plugin "{name}"' in host.log()
    # The clones have dispositions, masks and alarms of their own: each ends by SIGTERM, not by its stop timeout.
    with host.client() as client:
        for name in pids:
            handle = client.find(f"of {name}")
            handle.terminate()
            handle.wait_for_shutdown(10)
            entry = host.finished(f"of {name}")
            assert entry is not None
            assert entry["last_exit"]["code"] == 1, entry
        worker = BackgroundWorker(bgw_name="another", bgw_library_name="good", bgw_function_name="main")
        assert client.register_dynamic_background_worker(worker).wait_for_startup(DEADLINE).pid
    assert host.stop() == 0


def test_plugin_that_makes_itself_a_daemon(make_host: MakeHost) -> None:
    """C40, T53: a plugin that goes into the background at import ends its loader, and what it leaves is no second one."""
    daemon = "import os\nif os.fork(): os._exit(0)\nos.setsid()\n"
    # A clone has the loader's title until it takes its own.
    configuration = '[host]\nmax_worker_processes = 4\nspare_workers = 0\nshared_preload_libraries = ["daemon", "good"]\n' + table(
        "good"
    )
    host = make_host(configuration, daemon=daemon, good=MAIN)
    host.start_and_wait()
    host.wait_for_worker("of good")
    assert [entry["name"] for entry in host.status()["broken_plugins"]] == ["daemon"]
    assert host.process is not None
    children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children").read_text().split()
    titles = [Path(f"/proc/{child}/cmdline").read_text().rstrip("\0") for child in children]
    assert titles.count("bgworker: loader") == 1, titles
    host.process.send_signal(signal.SIGKILL)
    host.process.wait()
    # Nothing of it holds the lock.
    host.start_and_wait()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(host.data_directory / "run" / "control.sock"))
    assert os.path.exists(host.data_directory)
