"""Disks that are full, directories that are gone, traps in the place of files."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.collector.host_end import HostEnd, Worker, wait_until

from bgworker._collector import files
from bgworker._collector.compression import Compressor
from bgworker._collector.files import AppendFile, Rotation
from bgworker._collector.history import HISTORY_KEPT, HISTORY_LIMIT
from bgworker._collector.names import predecessors


def notice(count: int, reason: str) -> bytes:
    return f"{count} lost: {reason}\n".encode()


def log_of(host: HostEnd, name: str = "w.log") -> list[str]:
    return [text.partition("] ")[2] for text in host.texts("workers", name)]


def write_until_notice(host: HostEnd, worker: Worker, name: str = "w.log") -> str:
    """Write one line after the other until the file says how many were lost before; return that line."""

    def next_line() -> str:
        worker.out(b"and again\n")
        wait_until(worker.is_drained, "the collector reads")
        return next((text for text in log_of(host, name) if " lost: " in text), "")

    return wait_until(next_line, "a notice of lost lines")


def can_mount() -> bool:
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def small_disk(data_directory: Path, start_host: Callable[..., HostEnd]) -> HostEnd:
    """Give a collector whose data directory is a file system of 64 KiB with room for few files."""
    if not can_mount():
        pytest.skip("no user and mount namespaces here")
    script = f"mount -t tmpfs -o size=64k,nr_inodes=16 tmpfs '{data_directory}' && exec \"$@\""
    host = start_host(prefix=["unshare", "-Urm", "sh", "-c", script, "sh"])
    host.sync()
    return host


def test_full_disk_is_survived(small_disk: HostEnd) -> None:
    """T23: on a full disk lines are dropped and counted, and told once there is room; nobody exits, nothing is torn for good."""
    host = small_disk
    worker = host.attach("w")
    filler = host.seen_directory / "filler"
    filler.write_bytes(b"x" * 40_000)
    sent = 400
    for n in range(sent):
        worker.out(b"%d %s\n" % (n, b"y" * 100))
    wait_until(worker.is_drained, "the collector reads")
    host.log_fact("not written either")
    host.send({"type": "history", "record": {"event": "not written either"}})
    host.sync()
    filler.unlink()
    before = len(log_of(host))
    assert 0 < before < sent
    match = re.fullmatch(r"WARNING:  (\d+) lines lost: No space left on device", write_until_notice(host, worker))
    assert match is not None
    whole = [text for text in log_of(host) if re.fullmatch(r"w: \d+ y{100}", text)]
    again = sum("and again" in text for text in log_of(host))
    assert int(match[1]) + len(whole) + again >= sent
    # All but the line that was torn by the full disk has its place in one of the two.
    torn = [line for line in host.lines("workers", "w.log") if not re.fullmatch(r".* UTC \[.*\] (w: .*|WARNING: .*)", line)]
    assert len(torn) <= 1
    wait_until(lambda: (host.log_fact("written"), host.sync(), host.lines("host.log"))[2], "the host's log")
    assert re.search(r"WARNING:  \d+ lines? lost: No space left on device$", host.texts("host.log")[0])

    def records() -> list[str]:
        host.send({"type": "history", "record": {"event": "next"}})
        host.sync()
        path = host.seen_directory / "history.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    lost, following = map(json.loads, wait_until(records, "the history")[:2])
    assert (lost["event"], lost["reason"], following["event"]) == ("records_lost", "No space left on device", "next")
    assert host.stop() == 0


def test_disk_without_inodes_is_survived(small_disk: HostEnd) -> None:
    """T23: where no file can be made any more, lines are dropped, counted and told later."""
    host = small_disk
    fillers = [host.seen_directory / f"filler{n}" for n in range(100)]
    with pytest.raises(OSError, match="No space left"):
        [filler.touch() for filler in fillers]
    worker = host.attach("w")
    worker.out(b"one\ntwo\n")
    assert host.exited(worker, "it exited") == ""
    for filler in fillers:
        filler.unlink(missing_ok=True)
    worker = host.attach("w", generation=2)
    assert write_until_notice(host, worker).endswith("lines lost: No space left on device")


def test_file_size_limit_is_survived(data_directory: Path, start_host: Callable[..., HostEnd]) -> None:
    """T23: a file that must not grow further costs its own lines; others are written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        host = start_host()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    big, small = host.attach("big", slot=0), host.attach("small", slot=1)
    big.out((b"x" * 99 + b"\n") * 500)
    small.out(b"fine\n")
    host.exited(big)
    host.exited(small)
    assert (data_directory / "log" / "workers" / "big.log").stat().st_size == 10_000
    assert log_of(host, "small.log") == ["small: fine"]
    assert host.stop() == 0


def test_what_was_lost_is_handed_over(data_directory: Path, start_host: Callable[..., HostEnd]) -> None:
    """T23: what a collector that hands over could not tell of lost lines the next one tells, each file its own."""
    first = start_host(data_directory, stderr=subprocess.DEVNULL)
    worker = first.attach("w")
    worker.out(b"before\n")
    first.log_fact("before")
    first.send({"type": "history", "record": {"event": "before"}})
    first.sync()
    wait_until(lambda: log_of(first) == ["w: before"], "the line is written")
    resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, (10, 10))
    worker.out(b"lost\n" * 3)
    wait_until(worker.is_drained, "the collector reads")
    for _ in range(2):
        first.log_fact("lost")
    first.send({"type": "history", "record": {"event": "lost"}})
    first.sync()
    first.send({"type": "hand_over"})
    lost = first.expect("lost")["lines"]
    assert first.process.wait(20) == 0
    reason = {"reason": "File too large"}
    assert lost == [
        {"place": "log/host.log", "count": 2, **reason},
        {"place": "log/workers/w.log", "count": 3, **reason},
        {"place": "history.jsonl", "count": 1, **reason},
    ]
    second = start_host(data_directory, lost=lost)
    second.attach_again(worker)
    worker.out(b"after\n")
    second.exited(worker)
    assert second.stop() == 0

    def told(*parts: str) -> list[str]:
        return [line.partition("] ")[2] for line in data_directory.joinpath("log", *parts).read_text().splitlines()]

    assert told("workers", "w.log") == ["w: before", "WARNING:  3 lines lost: File too large", "w: after"]
    assert told("host.log") == ["LOG:  before", "WARNING:  2 lines lost: File too large"]
    records = [json.loads(line) for line in (data_directory / "history.jsonl").read_text().splitlines()]
    assert [(record["event"], record.get("count")) for record in records] == [("before", None), ("records_lost", 1)]


def test_removed_directory_comes_back(host: HostEnd) -> None:
    """T23: a log directory that somebody removed is made again, and the next line is in it."""
    worker = host.attach("w")
    worker.out(b"one\n")
    host.log_fact("one")
    wait_until(lambda: log_of(host), "the first line")
    host.sync()
    shutil.rmtree(host.data_directory / "log")
    worker.out(b"two\n")
    host.log_fact("two")
    host.exited(worker)
    assert log_of(host) == ["w: two"]
    assert [text.partition("] ")[2] for text in host.texts("host.log")] == ["LOG:  two"]


def test_missing_data_directory_is_no_reason_to_exit(host: HostEnd) -> None:
    """T23: without the data directory itself lines are dropped; it is not ours to make."""
    shutil.rmtree(host.data_directory)
    worker = host.attach("w")
    worker.out(b"lost\n")
    host.exited(worker, "it exited")
    assert not host.data_directory.exists()
    host.data_directory.mkdir(mode=0o700)
    worker = host.attach("w", generation=2)
    assert write_until_notice(host, worker).endswith("lines lost: No such file or directory")


def trap_symlink(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def trap_dangling(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / "not" / "there")


def trap_fifo(path: Path, _elsewhere: Path) -> None:
    os.mkfifo(path)


def trap_directory(path: Path, _elsewhere: Path) -> None:
    path.mkdir()


def trap_foreign(path: Path, _elsewhere: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path.touch()
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("trap", [trap_symlink, trap_dangling, trap_fifo, trap_directory, trap_foreign])
def test_trap_in_the_place_of_a_log_is_refused(host: HostEnd, tmp_path: Path, trap: Callable[[Path, Path], None]) -> None:
    """What is not a regular file of ours is not written to, and no link is followed; once it is gone, writing goes on."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious\n")
    path = host.data_directory / "log" / "workers" / "w.log"
    path.parent.mkdir(parents=True, mode=0o700)
    trap(path, elsewhere)
    worker = host.attach("w")
    worker.out(b"lost\n")
    host.exited(worker)
    assert elsewhere.read_text() == "precious\n"
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    worker = host.attach("w", generation=2)
    assert "lost: " in write_until_notice(host, worker)


@pytest.mark.parametrize("part", ["log", "log/workers"])
def test_link_in_the_place_of_a_directory_is_refused(host: HostEnd, tmp_path: Path, part: str) -> None:
    """A symbolic link where a log directory should be is not followed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = host.data_directory / part
    link.parent.mkdir(exist_ok=True, mode=0o700)
    link.symlink_to(elsewhere)
    worker = host.attach("w")
    worker.out(b"lost\n")
    host.exited(worker)
    assert os.listdir(elsewhere) == []


def test_trouble_is_told_once_on_stderr(data_directory: Path, start_host: Callable[..., HostEnd], tmp_path: Path) -> None:
    """Where the logs cannot be written, stderr says so: once, however many files and lines are concerned."""
    (data_directory / "log").write_text("in the way")
    with (tmp_path / "stderr").open("wb") as stderr:
        host = start_host(stderr=stderr.fileno())
    for n in range(5):
        worker = host.attach(f"w{n}", slot=n)
        worker.out(b"x\n")
        host.exited(worker)
    host.log_fact("x")
    assert host.stop() == 0
    first, second = (tmp_path / "stderr").read_text().splitlines()
    assert first.endswith(f'WARNING:  could not write file "{data_directory}/log/workers/w0.log": Not a directory')
    assert second.endswith("DETAIL:  Lines are dropped and counted until it can be written.")


def test_reopen_after_a_rename(host: HostEnd) -> None:
    """After somebody renamed the files, reopen makes new ones, and until then nothing is lost."""
    worker = host.attach("w")
    worker.out(b"one\n")
    wait_until(lambda: log_of(host), "the first line")
    path = host.data_directory / "log" / "workers" / "w.log"
    path.rename(path.with_suffix(".old"))
    worker.out(b"two\n")
    wait_until(lambda: len(log_of(host, "w.old")) == 2, "the second line in the old file")
    host.send({"type": "reopen"})
    host.sync()
    worker.out(b"three\n")
    host.exited(worker)
    assert log_of(host) == ["w: three"]


# --- the file itself ---


def test_full_file_becomes_its_predecessor(data_directory: Path) -> None:
    """A file with a rotation is put aside when the next block does not fit, and as many predecessors as asked for are kept."""
    file = AppendFile(str(data_directory), (), "f", notice, Rotation(100, 2, Compressor()))
    for n in range(9):
        assert file.append(b"%039d\n" % n)  # two fit
    file.close()
    first, second = predecessors("f", os.listdir(data_directory))
    assert sorted(os.listdir(data_directory)) == ["f", first.name, second.name]
    assert (data_directory / "f").read_bytes() == b"%039d\n" % 8
    assert (data_directory / first.name).read_bytes() == b"%039d\n%039d\n" % (4, 5)
    assert (data_directory / second.name).read_bytes() == b"%039d\n%039d\n" % (6, 7)


def test_limit_counts_what_an_earlier_process_wrote(data_directory: Path) -> None:
    """A file that is full when it is opened is renamed first; a block larger than the limit is written all the same."""
    (data_directory / "f").write_bytes(b"x" * 99 + b"\n")
    file = AppendFile(str(data_directory), (), "f", notice, Rotation(100, 5, Compressor()))
    assert file.append(b"y" * 200 + b"\n")
    file.close()
    (old,) = predecessors("f", os.listdir(data_directory))
    assert (data_directory / old.name).read_bytes() == b"x" * 99 + b"\n"
    assert (data_directory / "f").stat().st_size == 201


def test_torn_line_is_ended(data_directory: Path) -> None:
    """A line that a full disk left torn does not swallow the next one."""
    (data_directory / "f").write_bytes(b"whole\ntor")
    file = AppendFile(str(data_directory), (), "f", notice)
    assert file.append(b"next\n")
    file.close()
    assert (data_directory / "f").read_bytes() == b"whole\ntor\nnext\n"


def test_tries_are_rare(data_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be written is tried once a second, however many lines come, and the count is exact."""
    now = 1000.0
    monkeypatch.setattr(files.time, "monotonic", lambda: now)
    tries = 0
    original = files.open_directory

    def counted(*arguments: object) -> int:
        nonlocal tries
        tries += 1
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "open_directory", counted)
    file = AppendFile(str(data_directory / "missing"), (), "f", notice)
    for _ in range(1000):
        assert not file.append(b"a\nb\n")
    assert tries == 1
    now += files.RETRY_INTERVAL
    assert not file.append(b"c\n")
    assert tries == 2
    (data_directory / "missing").mkdir()
    assert not file.append(b"d\n")
    now += files.RETRY_INTERVAL
    assert file.append(b"e\n")
    assert file.lost == 0
    file.close()
    assert (data_directory / "missing" / "f").read_bytes() == b"2002 lost: No such file or directory\ne\n"


def test_count_after_a_write_in_part_is_exact(data_directory: Path) -> None:
    """When the disk takes a part of a block, exactly the lines that are not whole in the file are counted, also in a row."""
    file = AppendFile(str(data_directory), (), "f", notice)
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
    try:
        assert not file.append(b"123456789\n" * 5)
        assert file.lost == 3
        assert not file.append(b"a\nb\n")
        assert file.lost == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    file.settle()
    file.close()
    assert (data_directory / "f").read_bytes() == b"123456789\n123456789\n12345\n5 lost: File too large\n"


def test_history_is_bounded(host: HostEnd) -> None:
    """A history of 8 MiB is put aside and compressed, and the oldest of six goes."""
    for number in range(HISTORY_KEPT):
        (host.data_directory / f"history.jsonl.20200101T00000{number}.000.gz").write_text("old\n")
    with (host.data_directory / "history.jsonl").open("wb") as file:
        file.truncate(HISTORY_LIMIT)
    host.send({"type": "history", "record": {"n": 1}})
    host.sync()
    assert (host.data_directory / "history.jsonl").read_text() == '{"n":1}\n'

    def compressed() -> list[str] | None:
        names = sorted(path.name for path in host.data_directory.glob("history.jsonl.*"))
        return names if all(name.endswith(".gz") for name in names) else None

    names = wait_until(compressed, "the predecessor to be compressed")
    assert len(names) == HISTORY_KEPT
    assert names[0] == "history.jsonl.20200101T000001.000.gz"
    assert gzip.decompress((host.data_directory / names[-1]).read_bytes()) == bytes(HISTORY_LIMIT) + b"\n"


def test_end_tells_what_was_lost(data_directory: Path) -> None:
    """At the end the count is written though its second is not over and no line comes."""
    file = AppendFile(str(data_directory / "missing"), (), "f", notice)
    assert not file.append(b"a\n")
    (data_directory / "missing").mkdir()
    file.settle()
    file.close()
    assert (data_directory / "missing" / "f").read_bytes() == b"1 lost: No such file or directory\n"
