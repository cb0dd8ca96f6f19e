"""The host's facts, its history, and what becomes of the collector when the host or it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from tests.integration.collector.host_end import PATIENCE, HostEnd, wait_until


def test_facts_go_to_the_host_log(host: HostEnd) -> None:
    """A fact has the host's pid, its time and level; detail and hint are lines of their own, a traceback several."""
    host.log_fact("first", at=1_000_000_000.5)
    host.send(
        {
            "type": "log",
            "level": "WARNING",
            "message": "plugin is\x1b broken",
            "detail": "Traceback:\n  KeyError",
            "hint": "Mend it.",
            "at": 1_000_000_001,
        }
    )
    host.sync()
    pid = os.getpid()
    assert host.lines("host.log") == [
        f"2001-09-09 01:46:40.500 UTC [{pid}] LOG:  first",
        f"2001-09-09 01:46:41.000 UTC [{pid}] WARNING:  plugin is\\x1b broken",
        f"2001-09-09 01:46:41.000 UTC [{pid}] DETAIL:  Traceback:",
        f"2001-09-09 01:46:41.000 UTC [{pid}] DETAIL:    KeyError",
        f"2001-09-09 01:46:41.000 UTC [{pid}] HINT:  Mend it.",
    ]


def test_exit_is_not_told_before_the_last_lines(host: HostEnd) -> None:
    """A fact that was on its way while the worker's last lines were read has a time that is not before theirs."""
    worker = host.attach("w")
    at = time.time()
    wait_until(lambda: time.time() > at + 0.01, "some milliseconds")
    worker.out(b"last line\n")
    host.exited(worker)
    host.log_fact("it exited", at=at)
    host.sync()
    assert host.lines("host.log")[0][:23] >= host.lines("workers", "w.log")[0][:23]


def test_history_is_one_json_object_per_line(host: HostEnd) -> None:
    """Each record is one line, whatever is in it."""
    records = [{"event": "exited", "bgw_name": "a\nb\x1b\u202e", "n": n, "last_exit": {"code": 1}} for n in range(3)]
    for record in records:
        host.send({"type": "history", "record": record})
    host.sync()
    raw = (host.data_directory / "history.jsonl").read_bytes()
    assert raw.isascii()
    assert b"\x1b" not in raw
    assert [json.loads(line) for line in raw.splitlines()] == records


@pytest.mark.parametrize(
    "message",
    [
        {"type": "surprise"},
        {"no": "type"},
        {"type": ["list"]},
        {"type": "log"},
        {"type": "log", "message": "x", "at": 1e300},
        {"type": "log", "message": "x", "at": "yesterday"},
        {"type": "history", "record": []},
        {"type": "exited"},
        {"type": "attach", "life": "0.1.1"},
    ],
)
def test_message_without_sense_is_reported(host: HostEnd, message: dict[str, object]) -> None:
    """A message that cannot be used costs a warning and its descriptors, nothing else."""
    host.sync()
    before = len(os.listdir(f"/proc/{host.process.pid}/fd"))
    read_fd, write_fd = os.pipe()
    host.send(message, [read_fd])
    os.close(read_fd)
    host.sync()
    with pytest.raises(BrokenPipeError):
        os.write(write_fd, b"x")
    os.close(write_fd)
    assert "WARNING:  collector could not use a message of type" in host.lines("host.log")[0]
    host.send({"type": "reopen"})
    host.sync()
    assert len(os.listdir(f"/proc/{host.process.pid}/fd")) <= before


def test_exit_of_a_worker_whose_pipes_ended_before_a_replacement(host: HostEnd) -> None:
    """An exit that names its worker is written though nothing was ever attached."""
    host.send({"type": "exited", "life": "4.2.1", "message": "it exited", "bgw_name": "w", "slot": 4, "generation": 2, "pid": 7})
    assert host.expect("tail", "4.2.1")["line"] == ""
    assert host.texts("workers", "w.log") == ["[4.2 7] w: LOG:  it exited"]


def test_stop_drains_everything(host: HostEnd) -> None:
    """What is in the pipes when the host says stop is written, and the exit code is 0."""
    workers = [host.attach(f"w{n}", slot=n) for n in range(5)]
    for worker in workers:
        worker.out(b"whole line\nand no newline")
    host.log_fact("shutting down")
    assert host.stop() == 0
    for worker in workers:
        name = worker.identity["bgw_name"]
        lines = (host.data_directory / "log" / "workers" / f"{name}.log").read_text().splitlines()
        assert [line.partition(f"{name}: ")[2] for line in lines] == ["whole line", "and no newline"]
    assert "shutting down" in (host.data_directory / "log" / "host.log").read_text()


def test_last_words_survive_the_host(host: HostEnd) -> None:
    """A host that dies leaves no collector behind, but its last messages and its workers' last lines are written."""
    worker = host.attach("w")
    worker.out(b"before\n")
    host.log_fact("the last fact")
    host.log_fact("PANIC")
    finished = threading.Timer(0.2, lambda: (worker.out(b"dying"), worker.close_writers()))
    finished.start()
    assert host.die() == 0
    finished.join()
    text = (host.data_directory / "log" / "workers" / "w.log").read_text()
    assert text.splitlines()[-1].endswith("w: dying")
    assert (host.data_directory / "log" / "host.log").read_text().splitlines()[-1].endswith("PANIC")


def test_last_words_survive_a_killed_host(data_directory: Path) -> None:
    """SIGKILL of the host takes its last messages not along, and a collector that was stopped then goes on, and ends."""
    program = textwrap.dedent("""
        import os, signal, sys
        from tests.integration.collector.host_end import HostEnd
        host = HostEnd(sys.argv[1])
        worker = host.attach("w")
        host.sync()
        print(host.process.pid, flush=True)
        host.process.send_signal(signal.SIGSTOP)
        worker.out(b"last line")
        host.log_fact("last words")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    # A file: the collector inherits it and holds a pipe open.
    output = data_directory / "output"
    with output.open("wb") as file:
        run = subprocess.run([sys.executable, "-c", program, str(data_directory)], stdout=file, check=False, timeout=PATIENCE)
    assert run.returncode == -signal.SIGKILL
    pid = int(output.read_text())
    stat = Path(f"/proc/{pid}/stat")
    wait_until(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z", "the end of the collector")
    assert (data_directory / "log" / "host.log").read_text().endswith("LOG:  last words\n")
    assert (data_directory / "log" / "workers" / "w.log").read_text().endswith("w: last line\n")


def test_collector_does_not_outlive_the_host_for_long(host: HostEnd) -> None:
    """A pipe that somebody holds open keeps the collector of a dead host for a second, no longer."""
    worker = host.attach("w")
    worker.out(b"still here\n")
    assert host.die() == 0
    assert (host.data_directory / "log" / "workers" / "w.log").read_text().endswith("still here\n")


def test_signals_to_everybody_are_ignored(host: HostEnd) -> None:
    """Ctrl-C or a TERM to the whole group does not end the collector: the host tells it when."""
    host.sync()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        host.process.send_signal(signum)
    host.log_fact("still here")
    host.sync()
    assert host.stop() == 0


def test_replacement_goes_on_with_the_same_pipes(host: HostEnd) -> None:
    """After a SIGKILL of the collector everything that a worker wrote meanwhile reaches the next one, in order."""
    worker = host.attach("w")
    worker.out(b"".join(b"%d\n" % n for n in range(1000)))
    wait_until(lambda: len(host.lines("workers", "w.log")) == 1000, "the first lines")
    host.kill()
    worker.out(b"".join(b"%d\n" % n for n in range(1000, 2000)))
    host.start()
    host.attach_again(worker)
    worker.out(b"".join(b"%d\n" % n for n in range(2000, 3000)))
    host.exited(worker, "it exited")
    texts = [text.partition("w: ")[2] for text in host.texts("workers", "w.log")]
    assert texts == [*map(str, range(3000)), "LOG:  it exited"]


def test_kill_in_full_flood_loses_little(host: HostEnd) -> None:
    """SIGKILL of a busy collector costs at most what it had read and not written: one buffer, and the two lines torn by that."""
    worker = host.attach("w")
    is_over = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not is_over.is_set():
            worker.out(b"".join(b"%09d\n" % n for n in range(written, written + 1000)))
            written += 1000

    writing = threading.Thread(target=write)
    writing.start()
    path = host.data_directory / "log" / "workers" / "w.log"
    kills = 5
    for _ in range(kills):
        size = path.stat().st_size if path.exists() else 0
        wait_until(lambda size=size: path.exists() and path.stat().st_size > size + 1_000_000, "some of the flood")  # type: ignore[misc]
        host.kill()
        host.start()
        host.attach_again(worker)
    is_over.set()
    writing.join(PATIENCE)
    host.exited(worker)
    with path.open() as file:
        texts = [line.rstrip("\n").partition("w: ")[2] for line in file]
    numbers = [int(text) for text in texts if len(text) == 9]
    assert numbers == sorted(set(numbers))
    # Per kill: the lines of one read; torn may be the line that was half read and the one that was half written.
    assert written - len(numbers) <= kills * (65_536 // 10 + 2)
    assert len(texts) - len(numbers) <= 2 * kills
