"""Reading logs and history, without a host and while they are written."""

from __future__ import annotations

import datetime
import json
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.integration.collector.host_end import PATIENCE, HostEnd

from bgworker._collector.names import file_name
from bgworker._logs import last_host_log, log_files, read_history, read_lines
from bgworker.errors import HostError

STOP = "this line ends the test"


def stamp(milliseconds: int) -> str:
    return f"2026-11-21 09:00:{milliseconds // 1000:02d}.{milliseconds % 1000:03d} UTC"


class Logs:
    """Writes log files as the collector does."""

    def __init__(self, data_directory: Path) -> None:
        self.data_directory = data_directory
        (data_directory / "log" / "workers").mkdir(parents=True, exist_ok=True)

    def host(self, at: int, text: str) -> str:
        """Append a fact of the host."""
        return self._append(self.data_directory / "log" / "host.log", f"{stamp(at)} [77] LOG:  {text}")

    def worker(self, at: int, name: str, text: str, *, bgw_type: str = "", life: str = "0.1") -> str:
        """Append a line of a worker."""
        path = self.data_directory / "log" / "workers" / file_name(bgw_type or name)
        return self._append(path, f"{stamp(at)} [{life} 4711] {name}: {text}")

    def _append(self, path: Path, line: str) -> str:
        with path.open("a") as file:
            file.write(line + "\n")
        return line


@pytest.fixture
def logs(data_directory: Path) -> Logs:
    """Give log files to write to."""
    return Logs(data_directory)


def read(data_directory: Path, *names: str, tail: int | None = None) -> list[str]:
    return list(read_lines(str(data_directory), names, tail=tail))


def test_nothing_is_there(tmp_path: Path) -> None:
    """A directory without logs, or no directory, has no files, no lines, no last line and no history."""
    for path in (tmp_path, tmp_path / "missing"):
        assert log_files(str(path)) == {}
        assert read(path) == []
        assert last_host_log(str(path)) is None
        assert list(read_history(str(path))) == []


def test_files_have_labels(logs: Logs) -> None:
    """Each file is found by its label; the host's is "host", whatever a worker is called."""
    logs.host(0, "x")
    logs.worker(0, "host", "x")
    logs.worker(0, "a b", "x")
    logs.worker(0, "export 1", "x", bgw_type="export")
    files = log_files(str(logs.data_directory))
    assert files["host"] == str(logs.data_directory / "log" / "host.log")
    assert files["export"] == str(logs.data_directory / "log" / "workers" / "export.log")
    assert sorted(label[:5] for label in files) == ["a_b-" + file_name("a b")[4], "expor", "host", "host-"]


def test_files_are_merged_by_time(logs: Logs) -> None:
    """Lines come in the order of their times, at equal times the host's last; torn remains stay behind the line before them."""
    logs.worker(2, "a", "two")
    logs.host(1, "one")
    logs.host(4, "four")
    logs.worker(3, "b", "three")
    logs._append(logs.data_directory / "log" / "workers" / "a.log", "torn remains")
    logs.worker(5, "a", "five")
    logs.host(5, "six")
    texts = [line.rpartition(" ")[2] for line in read(logs.data_directory)]
    assert texts == ["one", "two", "remains", "three", "four", "five", "six"]


def test_names_choose(logs: Logs) -> None:
    """A name means its file; a dynamic worker, a slot or a life the lines that say so."""
    host = logs.host(0, "fact")
    a = logs.worker(1, "a b", "x", life="3.1")
    one = logs.worker(2, "export 1", "x", bgw_type="export", life="4.1")
    two = logs.worker(3, "export 10", "x", bgw_type="export", life="5.1")
    again = logs.worker(4, "export 1", "x", bgw_type="export", life="5.2")
    directory = logs.data_directory
    assert read(directory, "host") == [host]
    assert read(directory, "a b") == [a]
    assert read(directory, "export") == [one, two, again]
    assert read(directory, "export 1") == [one, again]
    assert read(directory, "5") == [two, again]
    assert read(directory, "5.2") == [again]
    assert read(directory, "host", "a b", "export 10") == [host, a, two]
    assert read(directory, "nobody") == []
    assert read(directory, "export 1", tail=1) == [again]


def test_type_means_all_its_workers(logs: Logs) -> None:
    """A type of static workers has no file of its own: the history says whose files are meant."""
    first = logs.worker(1, "web 1", "x", life="0.1")
    logs.worker(2, "mail", "x", life="1.1")
    second = logs.worker(3, "web 2", "x", life="2.1")
    records = [
        {"event": "started", "bgw_name": "web 1", "bgw_type": "web"},
        {"event": "started", "bgw_name": "web 2", "bgw_type": "web"},
        {"event": "started", "bgw_name": "mail", "bgw_type": "mail"},
        {"event": "started", "bgw_name": None, "bgw_type": "web"},
        {"event": "started", "bgw_name": "web 3", "bgw_type": ["web"]},
    ]
    (logs.data_directory / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert read(logs.data_directory, "web") == [first, second]
    assert read(logs.data_directory, "web 2") == [second]
    assert read(logs.data_directory, "web", tail=1) == [second]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 5000, 100_000])
def test_tail_is_the_end_of_everything(logs: Logs, count: int) -> None:
    """Reading the last lines backwards gives what reading all and cutting gives."""
    for name in ("a", "b"):
        path = logs.data_directory / "log" / "workers" / f"{name}.log"
        with path.open("w") as file:
            file.writelines(f"{stamp(n)} [0.1 1] {name}: {n} {'é' * (n % 90)}\n" for n in range(6000))
    everything = read(logs.data_directory)
    assert len(everything) == 12_000
    assert sorted(read(logs.data_directory, tail=count)) == sorted(everything[len(everything) - min(count, 12_000) :])


def test_hostile_content_is_inert(logs: Logs) -> None:
    """T61: control characters that somebody put into a file do not come out; links and FIFOs are not followed."""
    path = logs.data_directory / "log" / "workers" / "w.log"
    path.write_bytes(b"\x1b]0;title\x07 \xff \xe2\x80\xae\ttab\n" + b"x" * 300_000 + b"\n")
    (logs.data_directory / "log" / "workers" / "link.log").symlink_to("/etc/passwd")
    os.mkfifo(logs.data_directory / "log" / "workers" / "fifo.log")
    first, *rest = read(logs.data_directory)
    assert first == "\\x1b]0;title\\x07 \\xff \\u202e\ttab"
    assert "".join(rest) == "x" * 300_000


def test_unreadable_file_is_an_error(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that must not be read is named in an error, not left out."""
    logs.worker(0, "w", "x")

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HostError, match=r'could not read file ".*w.log": Permission denied'):
        read(logs.data_directory)


def test_last_host_log(logs: Logs) -> None:
    """The last whole line with a time counts, and its time is UTC."""
    logs.host(1, "one")
    line = logs.host(1234, "two")
    path = logs.data_directory / "log" / "host.log"
    with path.open("a") as file:
        file.write("torn\n2026-11-21 09:59:00.000 UTC [77] LOG:  no newli")
    when = datetime.datetime(2026, 11, 21, 9, 0, 1, 234_000, tzinfo=datetime.UTC)
    assert last_host_log(str(logs.data_directory)) == (when, line)


def test_history(data_directory: Path) -> None:
    """Records come oldest first, those of predecessors before; what is no record is skipped."""
    (data_directory / "history.jsonl.20261121T090000.000").write_text('{"n": 1}\n{"n": 2}\n')
    (data_directory / "history.jsonl").write_text('{"n": 3}\ntorn {"n"\n[4]\n\n' + "[" * 100_000 + '\n{"n": 5}\n{"n": 6')
    assert [record["n"] for record in read_history(str(data_directory))] == [1, 2, 3, 5]


# --- following ---


class Follower:
    """Follows in a thread; a line with STOP ends it."""

    def __init__(self, data_directory: Path, names: Sequence[str] = (), tail: int | None = None) -> None:
        self.lines: queue.Queue[str] = queue.Queue()
        self._reader = read_lines(str(data_directory), names, follow=True, tail=tail)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for line in self._reader:
            if STOP in line:
                break
            self.lines.put(line)
        self._reader.close()  # type: ignore[attr-defined]

    def next(self) -> str:
        """Return the next line."""
        return self.lines.get(timeout=PATIENCE)

    def join(self) -> list[str]:
        """Wait for its end and return the lines that nobody took."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return list(self.lines.queue)


@pytest.fixture
def follow(logs: Logs) -> Iterator[Callable[..., Follower]]:
    """Return what starts a follower; ends them all."""
    followers: list[Follower] = []

    def start(*names: str, tail: int | None = None) -> Follower:
        followers.append(Follower(logs.data_directory, names, tail))
        return followers[-1]

    yield start
    logs.host(59_000, STOP)
    logs.worker(59_000, "w", STOP)
    for follower in followers:
        assert follower.join() == []


def test_follow_goes_on_with_what_is_written(logs: Logs, follow: Callable[..., Follower]) -> None:
    """After the old lines, new ones of old and new files come as they are written, each once."""
    old = [logs.host(0, "one"), logs.worker(1, "w", "two")]
    follower = follow()
    assert [follower.next(), follower.next()] == old
    for n in range(20):
        line = logs.worker(n, "w", "more") if n % 2 else logs.host(n, "more")
        assert follower.next() == line
    line = logs.worker(30, "newcomer", "x")
    assert follower.next() == line


def test_follow_begins_with_a_tail(logs: Logs, follow: Callable[..., Follower]) -> None:
    """With a tail the old lines are as many, and a half-written line waits for its end."""
    logs.worker(0, "w", "one")
    two = logs.worker(1, "w", "two")
    with (logs.data_directory / "log" / "workers" / "w.log").open("a") as file:
        file.write(f"{stamp(2)} [0.1 4711] w: ha")
        file.flush()
        follower = follow(tail=1)
        assert follower.next() == two
        file.write("lf\n")
    assert follower.next() == f"{stamp(2)} [0.1 4711] w: half"


def test_follow_chosen_names(logs: Logs, follow: Callable[..., Follower]) -> None:
    """Only the lines of the chosen ones come, also when their file is made later."""
    old = logs.worker(0, "w", "x")
    follower = follow("w", "late")
    assert follower.next() == old
    logs.worker(0, "other", "x")
    one = logs.worker(1, "w", "x")
    assert follower.next() == one
    late = logs.worker(2, "late", "x")
    assert follower.next() == late


@pytest.mark.parametrize("what", ["rename", "remove", "truncate"])
def test_follow_over_rotation(logs: Logs, follow: Callable[..., Follower], what: str) -> None:
    """A file that is renamed, removed or emptied is followed into its successor."""
    one = logs.worker(0, "w", "one and a bit longer")
    follower = follow()
    assert follower.next() == one
    path = logs.data_directory / "log" / "workers" / "w.log"
    if what == "rename":
        path.rename(path.with_suffix(".log.1"))
    elif what == "remove":
        path.unlink()
    else:
        os.truncate(path, 0)
    two = logs.worker(1, "w", "two")
    assert follower.next() == two
    three = logs.worker(2, "w", "three")
    assert follower.next() == three


def test_follow_loses_nothing_of_a_renamed_file(logs: Logs, follow: Callable[..., Follower]) -> None:
    """Lines written to the old file just before it was renamed come before those of the new one."""
    old = logs.worker(0, "w", "x")
    follower = follow()
    assert follower.next() == old
    path = logs.data_directory / "log" / "workers" / "w.log"
    written = []
    for n in range(300):
        written.append(logs.worker(n, "w", f"line {n}"))
        if n % 50 == 49:
            path.rename(path.with_suffix(f".log.{n}"))
            written.append(logs.worker(n, "w", f"new {n}"))
            assert [follower.next() for _ in written] == written
            written.clear()


def test_follow_over_a_removed_directory(logs: Logs, follow: Callable[..., Follower]) -> None:
    """When the log directories are removed and made again, following goes on."""
    logs.host(0, "one")
    follower = follow()
    assert follower.next().endswith("one")
    shutil.rmtree(logs.data_directory / "log")
    Logs(logs.data_directory)
    two = logs.worker(1, "w", "two")
    assert follower.next() == two
    three = logs.host(2, "three")
    assert follower.next() == three


def test_follow_a_directory_that_is_empty_yet(data_directory: Path) -> None:
    """Following may begin before the host has ever run; without a data directory it is an error."""
    follower = Follower(data_directory)
    logs = Logs(data_directory)
    one = logs.worker(0, "w", "one")
    assert follower.next() == one
    logs.host(1, STOP)
    assert follower.join() == []
    with pytest.raises(HostError, match="does not exist"):
        next(read_lines(str(data_directory / "missing"), follow=True))


def test_reader_and_collector_agree(host: HostEnd) -> None:
    """What the collector writes is what the reader finds: names, lives, order and history."""
    for slot, name in enumerate(["a b/\u00e9", "plain"]):
        worker = host.attach(name, slot=slot, generation=5)
        worker.out(f"line of {name}\n".encode())
        host.exited(worker, "it exited")
    host.log_fact("fact")
    host.send({"type": "history", "record": {"event": "exited"}})
    host.sync()
    directory = host.data_directory
    assert [line.partition("] ")[2] for line in read(directory)] == [
        "a b/\u00e9: line of a b/\u00e9",
        "a b/\u00e9: LOG:  it exited",
        "plain: line of plain",
        "plain: LOG:  it exited",
        "LOG:  fact",
    ]
    assert len(read(directory, "a b/\u00e9")) == len(read(directory, "0.5")) == len(read(directory, "0")) == 2
    last = last_host_log(str(directory))
    assert last is not None
    assert last[1].endswith("LOG:  fact")
    assert abs((datetime.datetime.now(datetime.UTC) - last[0]).total_seconds()) < PATIENCE
    assert list(read_history(str(directory))) == [json.loads('{"event": "exited"}')]
