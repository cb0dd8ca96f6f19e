"""The thread that reads log files, and the pager."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgworker.errors import HostError
from bgworker.testing import DEADLINE
from bgworker.top.logs import Lines, LogReader, short
from bgworker.top.pager import show_in_pager

HEAD = "2026-11-21 09:00:01.123 UTC [0.1 77] "


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "log" / "workers").mkdir(parents=True)
    for name in ("keeper", "mail"):
        (tmp_path / "log" / "workers" / f"{name}.log").write_text(f"{HEAD}{name}: hello from {name}\n")
    return tmp_path


@pytest.fixture
def delivered() -> queue.SimpleQueue[Lines]:
    return queue.SimpleQueue()


@pytest.fixture
def reader(directory: Path, delivered: Any) -> Iterator[LogReader]:
    made = LogReader(str(directory), delivered.put)
    yield made
    made.close()
    assert not made._thread.is_alive()


def test_first_the_last_lines_then_the_news(reader: LogReader, delivered: Any, directory: Path) -> None:
    """What was there comes first, what is added afterwards, each once; another worker's lines after another request."""
    assert reader.read(["keeper"]) == 1
    assert delivered.get(timeout=DEADLINE) == Lines(1, ["09:00:01 [0.1 77] hello from keeper"], True)
    path = directory / "log" / "workers" / "keeper.log"
    with path.open("a") as file:
        file.write(f"{HEAD}keeper: more\n")
    reader.taken()
    assert delivered.get(timeout=DEADLINE) == Lines(1, ["09:00:01 [0.1 77] more"])
    # Asked for again before the last lines were taken.
    assert reader.read(["mail"]) == 2
    assert delivered.get(timeout=DEADLINE).lines == ["09:00:01 [0.1 77] hello from mail"]


def test_lines_wait_in_the_file_until_there_is_room(reader: LogReader, delivered: Any, directory: Path) -> None:
    """Nothing is read while nobody takes: a pager for an hour costs no memory."""
    reader.read(["keeper"])
    delivered.get(timeout=DEADLINE)
    path = directory / "log" / "workers" / "keeper.log"
    for number in range(3):
        with path.open("a") as file:
            file.write(f"{HEAD}keeper: {number}\n")
    with pytest.raises(queue.Empty):
        delivered.get(timeout=0.3)
    reader.taken()
    assert [line[-1] for line in delivered.get(timeout=DEADLINE).lines] == ["0", "1", "2"]


def test_a_directory_that_is_not_there(delivered: Any, tmp_path: Path) -> None:
    """An error is handed on as one line, and the next request is served."""
    reader = LogReader(str(tmp_path / "nowhere"), delivered.put)
    try:
        for number in (1, 2):
            reader.read(["keeper"])
            found = delivered.get(timeout=DEADLINE)
            assert (found.number, found.lines, found.is_begin) == (number, (), True)
            assert "could not watch directory" in found.error
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"{HEAD}keeper: a: b", "09:00:01 [0.1 77] a: b"),
        (f"{HEAD}other: a", "09:00:01 [0.1 77] other: a"),
        ("torn keeper: rest", "torn keeper: rest"),
        ("", ""),
    ],
)
def test_short_lines(line: str, shown: str) -> None:
    """The day, the zone and the worker's own name are left out; a line that is none of ours stays as it is."""
    assert short(line, "keeper") == shown


def test_pager(directory: Path) -> None:
    """PAGER gets the whole log, cleaned; one that leaves early is no error, and one that is not there is a good one."""
    path = directory / "log" / "workers" / "keeper.log"
    path.write_text(f"{HEAD}keeper: \x1b[2J\u202e\n" * 20_000)
    copy = directory / "copy"
    show_in_pager(str(directory), ["keeper"], {"PATH": "/usr/bin:/bin", "PAGER": f"sh -c 'cat > {copy}'"})
    text = copy.read_text()
    assert text.count("\n") == 20_000
    assert not {"\x1b", "\u202e"} & set(text)
    show_in_pager(str(directory), ["keeper"], {"PATH": "/usr/bin:/bin", "PAGER": "true"})
    with pytest.raises(HostError, match='could not run pager "no-such-pager"'):
        show_in_pager(str(directory), ["keeper"], {"PATH": "/usr/bin:/bin", "PAGER": "no-such-pager +x"})
    with pytest.raises(HostError, match="there is no pager"):
        show_in_pager(str(directory), ["keeper"], {"PATH": "/nowhere"})
