"""From a worker's pipes into its log file."""

from __future__ import annotations

import os
import re
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.collector.host_end import HostEnd, wait_until


def test_every_line_has_time_name_slot_and_pid(host: HostEnd) -> None:
    """A worker's lines, of stdout and stderr, are in the file of its name; the runtime's keep their level."""
    worker = host.attach("order-drain", slot=3, generation=2, pid=99)
    worker.out(b"hello\n")
    host.exited(worker)
    worker = host.attach("order-drain", slot=3, generation=3, pid=100)
    worker.err(b"WARNING:  queue is long\n")
    host.exited(worker, 'background worker "order-drain" (PID 100) exited with exit code 1')
    lines = host.lines("workers", "order-drain.log")
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", "TIME ", line) for line in lines] == [
        "TIME UTC [3.2 99] order-drain: hello",
        "TIME UTC [3.3 100] order-drain: WARNING:  queue is long",
        'TIME UTC [3.3 100] order-drain: LOG:  background worker "order-drain" (PID 100) exited with exit code 1',
    ]


def test_dynamic_workers_share_the_file_of_their_type(host: HostEnd) -> None:
    """There is one file per static worker and one per type of dynamic ones."""
    for slot, (name, is_static) in enumerate([("report", True), ("export 1", False), ("export 2", False)]):
        worker = host.attach(name, bgw_type="export" if not is_static else "other", is_static=is_static, slot=slot)
        worker.out(b"x\n")
        host.exited(worker)
    assert sorted(os.listdir(host.data_directory / "log" / "workers")) == ["export.log", "report.log"]
    assert host.texts("workers", "export.log") == ["[1.1 4711] export 1: x", "[2.1 4711] export 2: x"]


def test_files_are_ours_alone(host: HostEnd) -> None:
    """Log files have mode 0600 and their directories 0700, whatever the umask is."""
    worker = host.attach("w")
    worker.out(b"x\n")
    host.exited(worker)
    host.log_fact("x")
    host.send({"type": "history", "record": {"event": "x"}})
    host.sync()
    modes = {
        str(path.relative_to(host.data_directory)): stat.S_IMODE(path.stat().st_mode) for path in host.data_directory.rglob("*")
    }
    assert modes == {"log": 0o700, "log/workers": 0o700, "log/workers/w.log": 0o600, "log/host.log": 0o600, "history.jsonl": 0o600}


def test_names_do_not_leave_the_directory(host: HostEnd) -> None:
    """A name with slashes, dots and blanks becomes a file in the directory, and no two names share one."""
    names = ["../../../evil", "a b", "a/b", "host", ".hidden"]
    for slot, name in enumerate(names):
        worker = host.attach(name, slot=slot)
        worker.out(b"x\n")
        host.exited(worker)
    assert len(os.listdir(host.data_directory / "log" / "workers")) == len(names)
    assert os.listdir(host.data_directory.parent) == ["data"]
    assert not (host.data_directory / "log" / "host.log").exists()


def test_nothing_is_lost_before_the_exit(host: HostEnd) -> None:
    """T59: what a worker wrote before it ended, a full pipe and a line without newline included, stands before its exit line."""
    worker = host.attach("w")
    worker.out(b"".join(b"line %d\n" % n for n in range(7000)))  # more than a pipe holds: the first part is read meanwhile
    worker.err(b"last words")
    assert host.exited(worker, "it exited") == "last words"
    texts = [text.partition("w: ")[2] for text in host.texts("workers", "w.log")]
    assert [text for text in texts if text.startswith("line")] == [f"line {n}" for n in range(7000)]
    assert sorted(texts[-2:]) == ["LOG:  it exited", "last words"]
    assert texts[-1] == "LOG:  it exited"


def test_end_of_the_pipes_before_the_exit(host: HostEnd) -> None:
    """The pipes of a dead worker end before the host has reaped it: tail and exit line follow, and eof only then."""
    worker = host.attach("w")
    worker.err(b"ERROR:  connection refused\nDETAIL:  x\n")
    worker.close_writers()
    wait_until(lambda: len(host.lines("workers", "w.log")) == 2, "the last lines")
    host.sync()
    assert not host.has_message("eof")
    assert host.exited(worker, "it exited") == "connection refused"
    assert host.texts("workers", "w.log")[-1] == "[0.1 4711] w: LOG:  it exited"
    host.expect("eof", worker.life)
    host.sync()
    assert not host.has_message("eof")


def test_child_left_behind_is_read_for_a_second(host: HostEnd) -> None:
    """Who inherited a dead worker's pipes is read on for a moment; then eof is told, though the pipes are open."""
    worker = host.attach("w")
    worker.out(b"before\n")
    host.exited(worker, "it exited")
    worker.out(b"from the child\n")
    assert not host.has_message("eof")
    host.expect("eof", worker.life)
    assert [text.partition("w: ")[2] for text in host.texts("workers", "w.log")] == ["before", "LOG:  it exited", "from the child"]
    worker.close_readers()
    with pytest.raises(BrokenPipeError):
        worker.out(b"nobody reads it any more\n")


def test_flooding_child_left_behind_holds_nothing_up(host: HostEnd) -> None:
    """A child that floods the pipes of a dead worker delays neither the exit line nor the end."""
    worker = host.attach("w")

    def flood() -> None:
        try:
            while True:
                worker.out(b"flood\n" * 1000)
        except BrokenPipeError:
            pass

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        wait_until(lambda: host.lines("workers", "w.log"), "a line of the flood")
        host.exited(worker, "it exited")
        host.expect("eof", worker.life)
    finally:
        worker.close_readers()
        flooding.join()
    assert sum("it exited" in line for line in host.lines("workers", "w.log")) == 1


def test_flood_starves_nobody(host: HostEnd) -> None:
    """T59: while workers flood their logs, another one's lines and the host's messages are taken, and the flood loses nothing."""
    floods = [host.attach(f"flood{n}", slot=n) for n in range(3)]
    count = 60_000
    rounds = {flood.life: 0 for flood in floods}
    is_over = threading.Event()

    def write(life: str, out: Callable[[bytes], None]) -> None:
        while not is_over.is_set():
            out(b"".join(b"%d %060d\n" % (rounds[life], n) for n in range(1000)))
            rounds[life] += 1

    threads = [threading.Thread(target=write, args=(flood.life, flood.out)) for flood in floods]
    for thread in threads:
        thread.start()
    try:
        for flood in floods:
            wait_until(lambda flood=flood: rounds[flood.life] > count // 1000, "the flood")  # type: ignore[misc]
        quiet = host.attach("quiet", slot=9)
        for n in range(20):
            quiet.out(b"line %d\n" % n)
            host.sync()
            wait_until(lambda n=n: len(host.lines("workers", "quiet.log")) > n, "the quiet worker's line")  # type: ignore[misc]
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    for flood in floods:
        host.exited(flood)
        name = flood.identity["bgw_name"]
        with (host.data_directory / "log" / "workers" / f"{name}.log").open() as file:
            assert sum(1 for _ in file) == rounds[flood.life] * 1000


def test_long_and_hostile_lines_are_tamed(host: HostEnd) -> None:
    """T61: a line of any length and content becomes lines of the file that begin as every other and obey nobody."""
    worker = host.attach("w")
    worker.out(b"x" * 40_000 + b"\n")
    worker.out(b"\x1b]52;c;aGk=\x07 [/bold] \x9b31m \xe2\x80\xae\r\n")
    host.exited(worker)
    raw = (host.data_directory / "log" / "workers" / "w.log").read_bytes()
    lines = raw.decode().splitlines()
    assert all(" UTC [0.1 4711] w: " in line for line in lines)
    assert [len(line.partition("w: ")[2]) for line in lines[:3]] == [16_384 + 12, 16_384 + 24, 40_000 - 2 * 16_384 + 12]
    assert lines[3].endswith("w: \\x1b]52;c;aGk=\\x07 [/bold] \\x9b31m \\u202e")
    assert b"\x1b" not in raw


def test_pipe_that_cannot_be_read_is_closed(host: HostEnd) -> None:
    """T59: after a read error the pipe is closed and reported, not left for the worker to block on; the other one is read on."""
    ours, theirs = socket.socketpair()
    ours.sendall(b"x")
    theirs.close()  # with unread data on the way: reading gets ECONNRESET
    stderr_read, stderr_write = os.pipe()
    host.send(
        {
            "type": "attach",
            "life": "0.1.1",
            "bgw_name": "w",
            "bgw_type": "w",
            "slot": 0,
            "generation": 1,
            "pid": 5,
            "is_static": True,
        },
        [ours.fileno(), stderr_read],
    )
    ours.close()
    os.close(stderr_read)
    host.expect("eof", "0.1.1")
    os.write(stderr_write, b"ERROR:  still heard\n")
    host.send({"type": "exited", "life": "0.1.1", "message": None})
    assert host.expect("tail")["line"] == "still heard"
    os.close(stderr_write)
    warning, error = host.texts("workers", "w.log")
    assert warning == '[0.1 5] w: WARNING:  could not read standard output of background worker "w": Connection reset by peer'
    assert error == "[0.1 5] w: ERROR:  still heard"


def test_descriptors_and_lives_do_not_pile_up(host: HostEnd) -> None:
    """After many lives, reported in either order, the collector holds what it held before."""

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{host.process.pid}/fd"))

    host.log_fact("opens host.log")
    host.sync()
    before = descriptors()
    for n in range(100):
        worker = host.attach(f"w{n}", slot=n % 7, generation=n)
        worker.out(b"x\n")
        if n % 2:
            worker.close_writers()
            host.exited(worker, "it exited")
        else:
            host.exited(worker, "it exited")
            worker.close_writers()
        host.expect("eof", worker.life)
        worker.close_readers()
    host.sync()
    assert descriptors() == before
    assert all(len(host.lines("workers", f"w{n}.log")) == 2 for n in range(100))


def test_idle_collector_sleeps(host: HostEnd) -> None:
    """With nothing to do the collector waits without a timeout."""
    worker = host.attach("w")
    worker.out(b"x\n")
    wait_until(lambda: host.lines("workers", "w.log"), "the line")
    path = Path(f"/proc/{host.process.pid}/syscall")
    # epoll_wait(fd, events, maxevents, timeout, ...): -1 is no timeout.
    wait_until(
        lambda: path.read_text().split()[4:5] == ["0xffffffff"] or path.read_text().split()[4:5] == ["0xffffffffffffffff"],
        "epoll_wait for ever",
    )
