"""Log lines on stderr, and readers that are slow, stuck or gone."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.collector.host_end import PATIENCE, HostEnd, wait_until

from bgworker._collector.standard_error import StandardError


def notice(count: int, reason: str) -> bytes:
    return f"{count} lost: {reason}\n".encode()


class Pipe:
    """A small pipe whose reader takes its time."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, 4096)

    def close_writer(self) -> None:
        """Leave the write end to the collector alone."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close_reader(self) -> None:
        """Be a reader that goes away."""
        if self.read_fd >= 0:
            os.close(self.read_fd)
            self.read_fd = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Give a small pipe."""
    pipe = Pipe()
    yield pipe
    pipe.close_writer()
    pipe.close_reader()


def read_all(fd: int) -> bytes:
    data = b""
    while chunk := os.read(fd, 65_536):
        data += chunk
    return data


@pytest.mark.parametrize(
    ("log", "has_files", "has_stderr"), [("files", True, False), ("stderr", False, True), ("both", True, True)]
)
def test_setting_chooses_where_lines_go(
    start_host: Callable[..., HostEnd], tmp_path: Path, log: str, has_files: bool, has_stderr: bool
) -> None:
    """With log = "files", "stderr" or "both" the same lines go there, the host's and the workers'."""
    with (tmp_path / "stderr").open("wb") as stderr:
        host = start_host(log=log, stderr=stderr.fileno())
    worker = host.attach("w")
    worker.out(b"worker says\n")
    host.exited(worker, "it exited")
    host.log_fact("host says")
    assert host.stop() == 0
    in_files = [line for path in host.data_directory.rglob("*.log") for line in path.read_text().splitlines()]
    on_stderr = (tmp_path / "stderr").read_text().splitlines()
    assert sorted(line.partition("] ")[2] for line in in_files) == (
        ["LOG:  host says", "w: LOG:  it exited", "w: worker says"] if has_files else []
    )
    # The host's own fact about the exit goes to stderr; the one for the worker's file would repeat it.
    assert [line.partition("] ")[2] for line in on_stderr] == (["w: worker says", "LOG:  host says"] if has_stderr else [])


def test_setting_can_change(start_host: Callable[..., HostEnd], tmp_path: Path) -> None:
    """A second configuration redirects what comes after it, of workers that are attached already too."""
    with (tmp_path / "stderr").open("wb") as stderr:
        host = start_host(log="files", stderr=stderr.fileno())
    worker = host.attach("w")
    worker.out(b"to the file\n")
    wait_until(lambda: host.lines("workers", "w.log"), "the first line")
    host.send({"type": "configure", "data_directory": str(host.data_directory), "log": "stderr", "format": "plain"})
    host.sync()
    worker.out(b"to stderr\n")
    host.exited(worker)
    assert host.stop() == 0
    assert (host.data_directory / "log" / "workers" / "w.log").read_text().endswith("w: to the file\n")
    assert (tmp_path / "stderr").read_text().endswith("w: to stderr\n")


@pytest.mark.slow  # a reader that gets no processor for a second is a dead one to the collector
def test_slow_reader_slows_the_workers_down(start_host: Callable[..., HostEnd], pipe: Pipe) -> None:
    """A reader that is slower than the workers gets every line, and they wait for it."""
    host = start_host(log="stderr", stderr=pipe.write_fd)
    pipe.close_writer()
    worker = host.attach("w")
    count = 40_000
    lines = [b"%06d %s\n" % (n, b"x" * 40) for n in range(count)]
    received = bytearray()

    def read() -> None:
        while data := os.read(pipe.read_fd, 65_536):
            received.extend(data)

    writing = threading.Thread(target=worker.out, args=(b"".join(lines),))
    reading = threading.Thread(target=read)
    writing.start()
    reading.start()
    writing.join(PATIENCE)
    host.exited(worker)
    assert host.stop() == 0
    reading.join(PATIENCE)
    assert [line.partition(b"w: ")[2] + b"\n" for line in bytes(received).splitlines()] == lines


def test_stuck_reader_stops_nobody(start_host: Callable[..., HostEnd], pipe: Pipe) -> None:
    """When nobody reads stderr, files are written and the host is heard; later stderr says how many lines it missed."""
    host = start_host(log="both", stderr=pipe.write_fd)
    pipe.close_writer()
    worker = host.attach("w")
    count = 30_000
    writing = threading.Thread(target=worker.out, args=(b"".join(b"%06d %s\n" % (n, b"x" * 40) for n in range(count)),))
    writing.start()
    for n in range(10):
        host.log_fact(f"fact {n}")
        host.sync()
    writing.join(PATIENCE)
    host.exited(worker, "it exited")
    path = host.data_directory / "log" / "workers" / "w.log"
    with path.open() as file:
        assert sum(1 for _ in file) == count + 1
    received = bytearray()
    reading = threading.Thread(target=lambda: received.extend(read_all(pipe.read_fd)))
    reading.start()

    host.log_fact("next")
    assert host.stop() == 0
    reading.join(PATIENCE)
    assert b" lines lost: standard error is not read\n" in received


def test_stuck_reader_is_told_by_the_next_collector(start_host: Callable[..., HostEnd], pipe: Pipe) -> None:
    """What a collector that hands over could not give to a reader that is stuck the next one counts to it."""
    first = start_host(log="stderr", stderr=pipe.write_fd)
    worker = first.attach("w")
    worker.out(b"%s\n" % (b"x" * 99) * 1500)
    first.exited(worker)
    first.send({"type": "hand_over"})
    (lost,) = first.expect("lost")["lines"]
    assert first.process.wait(PATIENCE) == 0
    assert lost == {"place": "", "count": lost["count"], "reason": "standard error is not read"}
    second = start_host(log="stderr", stderr=pipe.write_fd, lost=[lost])
    pipe.close_writer()
    received = bytearray()
    reading = threading.Thread(target=lambda: received.extend(read_all(pipe.read_fd)))
    reading.start()
    second.log_fact("next")
    assert second.stop() == 0
    reading.join(PATIENCE)
    lines = bytes(received).splitlines()
    # The last line that the reader had begun to take is torn: it is none that was taken.
    assert sum(line.endswith(b" w: " + b"x" * 99) for line in lines) + lost["count"] == 1500
    assert b"%d lines lost: standard error is not read" % lost["count"] in received


def test_reader_that_has_gone_stops_nobody(start_host: Callable[..., HostEnd], pipe: Pipe) -> None:
    """When stderr's reader has gone, the files are written and the collector lives."""
    host = start_host(log="both", stderr=pipe.write_fd)
    host.sync()
    pipe.close_writer()
    pipe.close_reader()
    worker = host.attach("w")
    worker.out(b"x\n" * 10_000)
    host.exited(worker)
    assert len(host.lines("workers", "w.log")) == 10_000
    assert host.stop() == 0


def test_flags_of_a_shared_descriptor_stay(pipe: Pipe) -> None:
    """The descriptor that the host and others share does not become non-blocking, though writing never waits."""
    error = StandardError(notice, pipe.write_fd)
    for _ in range(100):
        error.write(b"x" * 4095 + b"\n")
    assert os.get_blocking(pipe.write_fd)
    assert error.is_waiting
    error.close()


def test_terminal_is_not_taken(tmp_path: Path) -> None:
    """Writing to a terminal that stands still does not wait, and does not make it our controlling terminal."""
    leader, follower = pty.openpty()
    try:
        termios.tcflow(follower, termios.TCOOFF)
        error = StandardError(notice, follower)
        for _ in range(1000):
            error.write(b"x" * 99 + b"\n")
        assert error.is_waiting
        termios.tcflow(follower, termios.TCOON)
        os.set_blocking(leader, False)
        seen = b""

        def is_through() -> bool:
            nonlocal seen
            try:
                seen += os.read(leader, 65_536)
            except BlockingIOError:
                error.flush()
            return seen.count(b"\n") == 1000

        wait_until(is_through, "everything on the terminal")
        error.close()
    finally:
        os.close(leader)
        os.close(follower)


def test_socket_is_never_waited_for() -> None:
    """The journal's socket is written to without waiting."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        error = StandardError(notice, ours.fileno())
        while not error.is_waiting:
            error.write(b"x" * 9_999 + b"\n")
        assert os.get_blocking(ours.fileno())
        theirs.setblocking(False)
        seen = b""

        def is_through() -> bool:
            nonlocal seen
            try:
                seen += theirs.recv(1 << 20)
            except BlockingIOError:
                error.flush()
            return not error.is_waiting

        wait_until(is_through, "everything in the socket")
        error.close()


def test_stuck_reader_is_given_up_and_told(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a second without progress lines are dropped; when the reader moves, the count stands where the gap is."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    error = StandardError(notice, pipe.write_fd)
    block = b"x" * 999 + b"\n"
    written = 0
    while not error.is_clogged:
        error.write(block)
        written += 1
    assert error.deadline == now + 1.0
    now += 0.9
    error.tick()
    assert error.is_clogged
    now += 0.2
    error.tick()
    assert not error.is_clogged
    for _ in range(7):
        error.write(block)
    os.set_blocking(pipe.read_fd, False)
    seen = b""
    while error.is_waiting:
        try:
            seen += os.read(pipe.read_fd, 65_536)
        except BlockingIOError:
            error.flush()
    error.write(b"after the gap\n")
    seen += os.read(pipe.read_fd, 65_536)
    assert seen == block * written + b"7 lost: standard error is not read\nafter the gap\n"
    error.close()


def test_queue_is_bounded(pipe: Pipe) -> None:
    """What the host says to a stuck stderr is kept in bounds too."""
    error = StandardError(notice, pipe.write_fd)
    for _ in range(200):
        error.write(b"x" * 99_999 + b"\n")
    fcntl.fcntl(pipe.write_fd, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(pipe.read_fd, False)
    size = 0
    while error.is_waiting:
        try:
            size += len(os.read(pipe.read_fd, 1 << 20))
        except BlockingIOError:
            error.flush()
    assert size < 5_000_000
    error.close()


def test_closed_stderr_is_no_trouble(start_host: Callable[..., HostEnd]) -> None:
    """A collector that was started without a stderr works."""
    host = start_host(log="both", prefix=["sh", "-c", 'exec "$@" 2>&-', "sh"])
    worker = host.attach("w")
    worker.out(b"x\n")
    host.exited(worker)
    assert len(host.lines("workers", "w.log")) == 1
    assert host.stop() == 0
