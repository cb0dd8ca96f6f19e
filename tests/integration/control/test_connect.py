"""Reaching a host: the socket, the peer, the greeting, the tables."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.control.fake_host import PATIENCE, FakeHost

from bgworker import connect
from bgworker._control.client import Client
from bgworker._control.protocol import encode, refusal
from bgworker._control.transport import attach
from bgworker.errors import HostError, HostNotRunning, PermissionDenied, ProtocolError, WaitTimeout


def test_connect(host: FakeHost) -> None:
    """connect() takes a path of any kind, says who the host is and gives everything back at close."""
    with connect(host.data_directory) as client:
        client.ping()
        assert client.is_host_alive()
        assert (client.host_pid, client.max_worker_processes) == (os.getpid(), 8)
        assert client.data_directory == str(host.data_directory)


def test_finds_the_directory_like_every_command(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """connect() without a path looks where the commands look, BGWORKER_DATA among others."""
    monkeypatch.setenv("BGWORKER_DATA", str(host.data_directory))
    with connect() as client:
        assert client.data_directory == str(host.data_directory)


def test_no_directory(tmp_path: Path) -> None:
    """Without a data directory the error names the absolute path and what to do."""
    with pytest.raises(HostNotRunning) as caught:
        attach(str(tmp_path / "none"))
    assert str(tmp_path / "none") in caught.value.message_primary
    assert caught.value.message_detail == "The directory does not exist."
    assert "bgworker run" in caught.value.message_hint
    assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("leftover", ["log/host.log", "host.lock"])
def test_host_that_was_killed(host: FakeHost, leftover: str) -> None:
    """A socket that a dead host left behind is no host, and the error says since when it is down."""
    trace = host.data_directory / leftover
    trace.parent.mkdir(exist_ok=True)
    trace.touch()
    os.utime(trace, (1_800_000_000, 1_800_000_000))
    host.die()
    with pytest.raises(HostNotRunning) as caught:
        attach(str(host.data_directory))
    assert "down since about 2027-01-15T08:00:00Z" in caught.value.message_detail
    assert f"{host.data_directory}/run/control.sock" in caught.value.message_detail


def test_directory_where_no_host_ever_ran(tmp_path: Path) -> None:
    """Without a trace of an earlier host nothing is said about its end."""
    with pytest.raises(HostNotRunning) as caught:
        attach(str(tmp_path))
    assert caught.value.message_detail == f"Nobody listens on {tmp_path}/run/control.sock."


def test_path_that_the_kernel_does_not_take(tmp_path: Path) -> None:
    """A socket path beyond the kernel's 107 bytes is reached all the same."""
    fake = FakeHost(tmp_path / ("d" * 200))
    try:
        with Client._open(str(fake.data_directory)) as client:
            client.ping()
    finally:
        fake.close()


def test_symbolic_link_to_the_run_directory(host: FakeHost, tmp_path: Path) -> None:
    """A run directory that is a symbolic link is refused, whatever it points to."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run").symlink_to(host.data_directory / "run")
    with pytest.raises(PermissionDenied, match="symbolic link"):
        attach(str(tmp_path / "other"))


@pytest.mark.parametrize("kind", ["file", "link"])
def test_something_else_in_place_of_the_socket(tmp_path: Path, host: FakeHost, kind: str) -> None:
    """A name that is no socket itself is refused: a link could lead to somebody else's."""
    run = tmp_path / "other" / "run"
    run.mkdir(parents=True)
    if kind == "file":
        (run / "control.sock").touch()
    else:
        (run / "control.sock").symlink_to(host.data_directory / "run" / "control.sock")
    with pytest.raises(PermissionDenied, match="it is not a socket"):
        attach(str(tmp_path / "other"))


_IMPOSTOR = """
import os, socket, sys
os.setuid(65534)
os.chdir(sys.argv[1])
s = socket.socket(socket.AF_UNIX)
s.bind("control.sock")
s.listen()
os.chmod("control.sock", 0o777)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_listener_of_another_user(tmp_path: Path) -> None:
    """A listener that is neither us, nor root, nor the directory's owner is refused before a byte is read."""
    run = tmp_path / "run"
    run.mkdir()
    run.chmod(0o777)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    impostor = subprocess.Popen([sys.executable, "-c", _IMPOSTOR, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert impostor.stdin is not None
    assert impostor.stdout is not None
    try:
        assert impostor.stdout.readline() == b"ready\n"
        with pytest.raises(PermissionDenied, match="user 65534 listens there"):
            attach(str(tmp_path))
        os.chown(run, 65534, -1)
        with pytest.raises(WaitTimeout):  # the owner's own listener is taken for a host
            attach(str(tmp_path), timeout=0.05)
    finally:
        impostor.stdin.close()
        impostor.stdout.close()
        impostor.wait()


def test_host_that_turns_us_away(tmp_path: Path) -> None:
    """The host's refusal at the door reaches the caller as the error it is."""
    refused = refusal(None, PermissionDenied("permission denied on the control socket", "Detail.", "Hint."))
    with _listener(tmp_path, encode(refused)), pytest.raises(PermissionDenied, match="on the control socket"):
        attach(str(tmp_path))


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (b"", HostNotRunning, "instead of a greeting"),
        (b"SSH-2.0-OpenSSH\n", ProtocolError, "message is not valid"),
        (b"x" * 5000, ProtocolError, "is not a bgworker host"),
        (encode({"hello": 1}), ProtocolError, "is not a bgworker host"),
        (encode({"bgworker": 2, "version": "9.0"}), ProtocolError, "version 2 of the control protocol"),
        (encode({"bgworker": 1, "pid": 1, "max_worker_processes": 8}), ProtocolError, "incomplete"),
        (encode({"bgworker": 1, "pid": 1, "max_worker_processes": 8, "fds": 2}), ProtocolError, "0 descriptors instead of 2"),
    ],
)
def test_what_is_no_host(tmp_path: Path, said: bytes, error: type[HostError], text: str) -> None:
    """Whatever else listens there is told apart from a host."""
    with _listener(tmp_path, said), pytest.raises(error, match=text):
        attach(str(tmp_path))


def test_host_that_is_stopped(host: FakeHost) -> None:
    """A host that accepts and says nothing costs the caller its timeout, not for ever."""
    host.says_hello.clear()
    began_at = time.monotonic()
    with pytest.raises(WaitTimeout, match="does not answer"):
        attach(str(host.data_directory), timeout=0.1)
    assert 0.1 <= time.monotonic() - began_at < PATIENCE


def test_full_backlog(tmp_path: Path) -> None:
    """A listener whose backlog is full, as a stopped host's may be, costs the timeout too."""
    (tmp_path / "run").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "run" / "control.sock"))
    listener.listen(0)
    queued = socket.socket(socket.AF_UNIX)
    queued.connect(str(tmp_path / "run" / "control.sock"))
    with listener, queued, pytest.raises(WaitTimeout, match="does not answer"):
        attach(str(tmp_path), timeout=0.1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"max_worker_processes": 9}, "shorter than its greeting says"),
        ({"max_worker_processes": 7}, "another host"),
        ({"pid": 1}, "another host"),
    ],
)
def test_tables_of_another_host(host: FakeHost, change: dict[str, int], text: str) -> None:
    """Tables that do not fit the greeting are refused, and never read beyond their end."""
    host.greeting |= change
    with pytest.raises(ProtocolError, match=text):
        attach(str(host.data_directory))


def test_tables_that_are_none(host: FakeHost) -> None:
    """A slot table with the wrong magic is refused."""
    host.greeting_fds = [host.activity.read_only_fd, host.slots.read_only_fd]
    with pytest.raises(ProtocolError):
        attach(str(host.data_directory))


@pytest.mark.parametrize("count", [1, 3])
def test_wrong_number_of_descriptors(host: FakeHost, count: int) -> None:
    """Too few or too many descriptors are refused, and all of them closed (no_descriptor_left)."""
    host.greeting_fds = [host.slots.read_only_fd, host.activity.read_only_fd, host.slots.read_only_fd][:count]
    with pytest.raises(ProtocolError, match=f"{count} descriptors instead of 2"):
        attach(str(host.data_directory))


@contextmanager
def _listener(data_directory: Path, said: bytes) -> Iterator[None]:
    """Listen in a data directory, say this to one caller and hang up."""
    (data_directory / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(data_directory / "run" / "control.sock"))
        listener.listen(1)

        def serve() -> None:
            peer, _address = listener.accept()
            with peer:
                peer.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(PATIENCE)
