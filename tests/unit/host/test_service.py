"""What a service manager is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgworker._host.service import Service


class Manager:
    """A service manager that is only its socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """Return the datagrams that have come, in lines."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    """A service manager, and its name in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@bgworker-test-{os.getpid()}"
    made = Manager(name.replace("@", "\0"))
    yield made, name
    made.close()


def test_a_life(manager: tuple[Manager, str]) -> None:
    """Ready with a status, reloading with the clock that systemd compares, ready again, stopping once."""
    heard, name = manager
    status = "run; 2 workers started"
    service = Service(lambda: status, {"NOTIFY_SOCKET": name})
    service.ready()
    service.reloading()
    service.ready()
    service.stopping()
    service.stopping()
    service.ready()
    service.close()
    first, reloading, again, *rest = heard.heard()
    assert first == again == ["READY=1", "STATUS=run; 2 workers started"]
    assert reloading[0] == "RELOADING=1"
    assert reloading[1].startswith("MONOTONIC_USEC=")
    assert rest == [["STOPPING=1", "STATUS=run; 2 workers started"]]


def test_status_is_told_when_it_changed(manager: tuple[Manager, str]) -> None:
    """A change is told at once, further ones after a second, and what reads as before not at all."""
    heard, name = manager
    texts = ["a"]
    service = Service(lambda: texts[-1], {"NOTIFY_SOCKET": name})
    assert service.next_deadline() is None
    service.changed()
    service.tick(1000.0)
    texts.append("b\nREADY=1")
    service.changed()
    service.tick(1000.5)
    assert heard.heard() == [["STATUS=a"]]
    assert service.next_deadline() == 1001.0
    service.tick(1001.0)
    service.changed()
    service.tick(1002.0)
    service.close()
    assert heard.heard() == [["STATUS=b READY=1"]], "a status is one line and never another message"


def test_watchdog_gets_signs_of_life(manager: tuple[Manager, str]) -> None:
    """With WATCHDOG_USEC for this process a sign of life is due every half of it; for another process, or none, never."""
    heard, name = manager
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}
    service = Service(lambda: "", environ)
    due = service.next_deadline()
    assert due is not None
    service.tick(due)
    assert service.next_deadline() == due + 2.0
    service.tick(due + 1.0)
    service.close()
    assert heard.heard() == [["WATCHDOG=1"]]
    for change in ({"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"NOTIFY_SOCKET": ""}):
        other = Service(lambda: "", {**environ, **change})
        assert other.next_deadline() is None
        other.close()


@pytest.mark.parametrize("name", ["", "@", "relative", "vsock:2:1", "/nowhere/at/all", "/" + "x" * 300])
def test_nobody_listens(name: str) -> None:
    """Without a usable socket everything goes on as ever."""
    service = Service(lambda: "x", {"NOTIFY_SOCKET": name})
    service.ready()
    service.changed()
    service.tick(1000.0)
    service.stopping()
    service.close()


def test_a_manager_that_does_not_read_is_not_waited_for(manager: tuple[Manager, str]) -> None:
    """A full queue costs the manager's knowledge and no time of the host."""
    _heard, name = manager
    service = Service(lambda: "x", {"NOTIFY_SOCKET": name})
    for _ in range(5000):
        service.ready()
    service.close()
