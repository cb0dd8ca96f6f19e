"""A host under a service manager that is only its socket."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker._config.descriptors import needed
from bgworker._config.model import HostSettings
from bgworker.testing import RunningHost

MODULE = (Path(__file__).parent / "explained_module.py").read_text()
WORKERS = '[[worker]]\nbgw_name = "w"\nbgw_library_name = "explained"\nbgw_function_name = "tells"\n'
TELLS = """
def tells(arg):
    os.write(1, f"socket {os.environ.get('NOTIFY_SOCKET')} {os.environ.get('WATCHDOG_USEC')}\\n".encode())
    idle(arg)
"""


def test_host_under_a_service_manager(
    bgworker_host: Callable[..., RunningHost], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """READY once the configuration is in effect, RELOADING and READY around a reload, signs of life, STOPPING; not for workers."""
    host = bgworker_host(WORKERS, start=False, explained=MODULE + TELLS)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        host.start()
        told: list[str] = []

        def hear(wanted: str) -> None:
            while True:
                told.append(manager.recv(4096).decode())
                if told[-1].startswith(wanted):
                    return

        hear("READY=1")
        hear("STATUS=run; 1 workers started")
        hear("WATCHDOG=1")
        assert host.process is not None
        os.kill(host.process.pid, signal.SIGHUP)
        hear("RELOADING=1\nMONOTONIC_USEC=")
        hear("READY=1\nSTATUS=run")
        assert "socket None None" in host.log("w")
        os.kill(host.process.pid, signal.SIGTERM)
        hear("STOPPING=1\nSTATUS=stopping")
        assert host.process.wait(20) == 0
    assert not any(text.startswith("STOPPING") for text in told[:-1])


def test_unit_file(bgworker_host: Callable[..., RunningHost]) -> None:
    """The printed unit names this interpreter, file and directory, and gives the shutdown the time that it may take."""
    host = bgworker_host('[host]\nmax_worker_processes = 10\n[[worker]]\nbgw_name = "w"\nbgw_library_name = "x"\n'
                         'bgw_function_name = "y"\nstop_timeout = 90.5\n[[worker]]\nbgw_name = "v"\n'
                         'bgw_library_name = "x"\nbgw_function_name = "y"\nafter = ["w"]\n', start=False)  # fmt: skip
    result = host.run_cli("systemd-unit", "--user", "shop")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "Type=notify-reload" in lines
    assert "User=shop" in lines
    assert "TimeoutStopSec=106" in lines
    # Fewer would be refused by the very host that it is for.
    assert f"LimitNOFILE={needed(HostSettings(max_worker_processes=10))}" in lines
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    assert start.endswith(f"-m bgworker run -c {host.config_path} -D {host.data_directory}")
    wrong = host.run_cli("systemd-unit", "--user", "a\nExecStart=/bin/sh")
    assert wrong.returncode == 2
    assert "cannot be the user of a service" in wrong.stderr
