"""Log files that make room: put aside, compressed, read and followed all the same."""

from __future__ import annotations

import gzip
import json
import os
import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.collector.host_end import PATIENCE, HostEnd, Worker, wait_until

from bgworker._collector.compression import Compressor
from bgworker._collector.names import predecessors
from bgworker._logs import Wish, log_files, read_lines

SIZE = 20_000
StartHost = Callable[..., HostEnd]


def old_names(data_directory: Path, name: str = "w.log") -> list[str]:
    directory = data_directory / "log" / "workers"
    return [each.name for each in predecessors(name, os.listdir(directory))]


def all_compressed(data_directory: Path, name: str = "w.log") -> list[str] | None:
    directory = data_directory / "log" / "workers"
    names = old_names(data_directory, name)
    left = [each for each in os.listdir(directory) if each.startswith(f"{name}.") and not each.endswith(".gz")]
    return names if names and not left else None


def write_numbers(worker: Worker, first: int, last: int) -> None:
    worker.out(b"".join(b"%0100d\n" % number for number in range(first, last)))


def numbers(lines: list[str]) -> list[int]:
    return [int(line.rpartition(" ")[2]) for line in lines if " w: 0" in line]


def test_logs_are_put_aside_compressed_and_read(data_directory: Path, start_host: StartHost) -> None:
    """A log makes room at its size, keeps as many files as asked for, compressed and ours alone, and is read as one."""
    host = start_host(data_directory, rotation_size=SIZE, rotation_keep=1000)
    worker = host.attach("w")
    write_numbers(worker, 0, 2000)
    host.exited(worker)
    names = wait_until(lambda: all_compressed(data_directory), "every predecessor to be compressed")
    assert len(names) >= 2
    directory = data_directory / "log" / "workers"
    assert {(directory / name).stat().st_mode & 0o777 for name in names} == {0o600}
    assert gzip.decompress((directory / names[0]).read_bytes()).startswith(host.lines("workers", "w.log")[0][:10].encode())
    assert numbers(list(read_lines(str(data_directory)))) == list(range(2000))
    assert numbers(list(read_lines(str(data_directory), ["w"], tail=777))) == list(range(1223, 2000))
    found = list(read_lines(str(data_directory), wish=Wish(pattern=re.compile("0001[0-9]0$"))))
    assert numbers(found) == list(range(100, 200, 10))


def test_oldest_go(data_directory: Path, start_host: StartHost) -> None:
    """No more files stay than asked for, and what is left is the end."""
    host = start_host(data_directory, rotation_size=SIZE, rotation_keep=2)
    worker = host.attach("w")
    for first in range(0, 2000, 100):
        write_numbers(worker, first, first + 100)
        wait_until(worker.is_drained, "the lines to be read")
    host.exited(worker)
    assert len(wait_until(lambda: all_compressed(data_directory), "every predecessor to be compressed")) == 2
    left = numbers(list(read_lines(str(data_directory))))
    assert left == list(range(left[0], 2000))
    assert left[0] > 1000


def test_flood_of_one_worker_takes_nothing_of_another(data_directory: Path, start_host: StartHost) -> None:
    """A worker that writes far more than is kept costs its own lines alone, and the others' come through meanwhile."""
    host = start_host(data_directory, rotation_size=SIZE, rotation_keep=1)
    flood, quiet = host.attach("flood", slot=0), host.attach("quiet", slot=1)
    for number in range(30):
        quiet.out(b"quiet %d\n" % number)
        flood.out(b"x" * 99 + b"\n" + (b"y" * 99 + b"\n") * 600)
    host.exited(flood)
    host.exited(quiet)
    texts = [line.rpartition("quiet: ")[2] for line in read_lines(str(data_directory), ["quiet"])]
    assert texts == [f"quiet {number}" for number in range(30)]
    assert len(old_names(data_directory, "flood.log")) == 1


def test_what_a_killed_collector_left_is_compressed(data_directory: Path, start_host: StartHost) -> None:
    """Files that were put aside but not compressed, and half a compressed one, are seen to at the next time."""
    directory = data_directory / "log" / "workers"
    directory.mkdir(parents=True)
    (directory / "w.log.20200101T000000.000").write_text("left\n")
    (directory / "w.log.20200101T000000.000.gz.tmp").write_text("half")
    host = start_host(data_directory, rotation_size=SIZE, rotation_keep=1000)
    worker = host.attach("w")
    write_numbers(worker, 0, 1000)
    host.exited(worker)
    names = wait_until(lambda: all_compressed(data_directory), "every predecessor to be compressed")
    assert gzip.decompress((directory / names[0]).read_bytes()) == b"left\n"


def test_stop_leaves_no_half_of_a_file(data_directory: Path, start_host: StartHost) -> None:
    """A stop in the middle of the compressing waits for nothing, and leaves the file as it was."""
    host = start_host(data_directory, rotation_size=1_000_000, rotation_keep=5)
    worker = host.attach("w")
    write_numbers(worker, 0, 9000)
    assert host.stop() == 0
    left = os.listdir(data_directory / "log" / "workers")
    assert not any(name.endswith(".tmp") for name in left)
    assert numbers(list(read_lines(str(data_directory)))) == list(range(9000))


def test_removed_file_does_not_come_back(data_directory: Path) -> None:
    """A file that is removed while it is being compressed stays away; so does one that was never there."""
    (data_directory / "f").write_bytes(os.urandom(200_000))
    compressor = Compressor()
    compressor.add(str(data_directory), (), "f")
    compressor.add(str(data_directory), (), "f")
    compressor.step()
    compressor.step()
    assert sorted(os.listdir(data_directory)) == ["f", "f.gz.tmp"]
    (data_directory / "f").unlink()
    compressor.add(str(data_directory), (), "missing")
    while compressor.has_work:
        compressor.step()
    assert os.listdir(data_directory) == []


def test_link_is_not_compressed(data_directory: Path, tmp_path: Path) -> None:
    """T61: somebody's symbolic link is neither read nor replaced."""
    (tmp_path / "secret").write_text("secret")
    (data_directory / "f").symlink_to(tmp_path / "secret")
    compressor = Compressor()
    compressor.add(str(data_directory), (), "f")
    while compressor.has_work:
        compressor.step()
    assert os.listdir(data_directory) == ["f"]


def test_follower_misses_nothing(data_directory: Path, start_host: StartHost) -> None:
    """Following goes on over many files that are put aside faster than they are read, each line once and in order."""
    host = start_host(data_directory, rotation_size=SIZE, rotation_keep=1000)
    worker = host.attach("w")
    worker.out(b"%0100d\n" % 0)
    wait_until(lambda: log_files(str(data_directory)), "the file")
    wait_until(lambda: host.lines("workers", "w.log"), "the first line")
    lines: queue.Queue[str] = queue.Queue()

    def follow() -> None:
        for line in read_lines(str(data_directory), follow=True):
            lines.put(line)
            if "the end" in line:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    assert numbers([lines.get(timeout=PATIENCE)]) == [0]
    write_numbers(worker, 1, 5000)
    worker.out(b"the end\n")
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert numbers(list(lines.queue)) == list(range(1, 5000))


def test_since_skips_what_is_older(data_directory: Path) -> None:
    """Lines before the time are left out, and files that were full before it are not even opened."""
    directory = data_directory / "log" / "workers"
    directory.mkdir(parents=True)
    text = "".join(f"2026-11-21 0{hour}:00:00.000 UTC [0.1 1] w: {hour}\n" for hour in (5, 6))
    (directory / "w.log.20261121T063000.000.gz").write_bytes(gzip.compress(text.encode()))
    (directory / "w.log.20261121T040000.000.gz").write_bytes(b"not even gzip")
    (directory / "w.log").write_text("2026-11-21 07:00:00.000 UTC [0.1 1] w: 7\ntorn\n")
    lines = list(read_lines(str(data_directory), wish=Wish(since="2026-11-21 06:00:00.000")))
    assert [line[-1] for line in lines] == ["6", "7", "n"]
    assert next(read_lines(str(data_directory), tail=2, wish=Wish(since="2026-11-21 07:00:00.000"))).endswith(" 7")
    assert [line[-1] for line in read_lines(str(data_directory))] == ["5", "6", "7", "n"]


def test_json_lines(data_directory: Path, start_host: StartHost) -> None:
    """In the JSON format each line of a file is an object that says stream and level; the reader gives out either format."""
    host = start_host(data_directory, format="json")
    worker = host.attach("w", slot=3, generation=2)
    worker.out(b"hello \x1b[31m\n")
    worker.err(b"WARNING:  queue is long\n")
    host.exited(worker, "it exited")
    host.log_fact("a fact", detail="more")
    host.sync()
    hello, warning, fact = sorted(
        map(json.loads, host.lines("workers", "w.log")), key=lambda each: each.get("stream", "~"), reverse=False
    )
    by_text = {each["message"]: each for each in (hello, warning, fact)}
    assert by_text["hello \\x1b[31m"]["stream"] == "stdout"
    assert (by_text["queue is long"]["stream"], by_text["queue is long"]["level"]) == ("stderr", "WARNING")
    assert by_text["it exited"]["level"] == "LOG"
    assert json.loads(host.lines("host.log")[0])["detail"] == "more"
    plain = list(read_lines(str(data_directory), ["3.2"]))
    assert sorted(line.partition("] ")[2] for line in plain) == [
        "w: LOG:  it exited",
        "w: WARNING:  queue is long",
        "w: hello \\x1b[31m",
    ]
    assert [json.loads(line)["message"] for line in read_lines(str(data_directory), ["host"], wish=Wish(as_json=True))] == [
        "a fact"
    ]


@pytest.mark.parametrize("order", ["exit first", "record first"])
def test_history_has_the_last_words(data_directory: Path, start_host: StartHost, order: str) -> None:
    """The record of an exit gets the last 50 lines of stderr and the traceback, also when it comes before the exit itself."""
    host = start_host(data_directory)
    worker = host.attach("w")
    worker.err(b"".join(b"line %d\n" % number for number in range(60)))
    worker.err(b"Traceback (most recent call last):\n  File x\nKeyError: 'a'")
    record = {"event": "exited", "life": worker.life, "code": 1, "signal": None, "was_requested": False}
    if order == "exit first":
        host.exited(worker)
        host.send({"type": "history", "record": record})
    else:
        host.send({"type": "history", "record": record})
        host.exited(worker)
    host.send({"type": "history", "record": {**record, "was_requested": True, "signal": 9}})
    host.sync()
    first, second = map(json.loads, (data_directory / "history.jsonl").read_text().splitlines())
    assert len(first["stderr"]) == 50
    assert first["stderr"][-4:] == ["line 59", "Traceback (most recent call last):", "  File x", "KeyError: 'a'"]
    assert first["traceback"] == "Traceback (most recent call last):\n  File x\nKeyError: 'a'"
    assert (first["oom_kill"], second["oom_kill"]) == (False, False)
    assert second["traceback"] == ""
