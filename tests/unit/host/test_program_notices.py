"""_host/program_notices.py: who is listened to, what is understood, and where there is no socket."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bgworker._baggage import Baggage
from bgworker._host import program_notices
from bgworker._host.program_notices import ProgramNotices
from bgworker._loop import Loop
from bgworker._shm.layout import read_activity
from bgworker._shm.table import ActivityTable
from bgworker.errors import ConfigurationError

SEND = "import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), sys.argv[1]); input()"


class Bench:
    """A socket, its table, and what reached the host."""

    def __init__(self, directory: Path) -> None:
        (directory / "run").mkdir()
        self.loop, self.table = Loop(()), ActivityTable(2)
        self.said: list[Any] = []
        self.processes: dict[int, Any] = {}
        self.logged: list[str] = []
        self.notices = ProgramNotices(
            self.loop, str(directory), self.processes, self.table, lambda p, m: self.said.append((p, m)), self.log
        )

    def log(self, _level: str, message: str, _detail: str, _hint: str) -> None:
        """Keep a message."""
        self.logged.append(message)

    def process(self, pid: int, *, command: tuple[str, ...] | None = ("x",), says: bool = True) -> Any:
        """Have a worker of this pid."""
        worker = SimpleNamespace(command=command, says_when_ready=says)
        self.processes[pid] = SimpleNamespace(worker=worker, life=SimpleNamespace(slotno=1, generation=3))
        return self.processes[pid]

    def send(self, data: bytes) -> None:
        """Say something as this process."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, self.notices.path)
        self.loop.turn(0.0)

    def activity(self) -> tuple[int, str]:
        """Return generation and text of the worker's record."""
        record = read_activity(os.pread(self.table.fd, 1 << 20, 0), 1)
        return record.generation, record.text


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.notices.close()
    made.table.close()
    made.loop.close()


def test_who_is_listened_to(bench: Bench) -> None:
    """A process of a worker with the key, by itself or through its session; neither strangers nor other workers."""
    bench.send(b"READY=1")
    for keys in ({"command": None}, {"says": False}):
        bench.process(os.getpid(), **keys)  # type: ignore[arg-type]
        bench.send(b"READY=1\nSTATUS=x")
    assert bench.said == []
    bench.processes.clear()
    with subprocess.Popen(
        [sys.executable, "-c", SEND, bench.notices.path, "READY=1"], stdin=subprocess.PIPE, start_new_session=True
    ) as child:
        process = bench.process(child.pid)
        while not bench.said:
            bench.loop.turn(None)
        child.communicate(b"\n")
    assert bench.said == [(process, {"type": "ready"})]


def test_what_is_understood(bench: Bench) -> None:
    """READY and STATUS, in any order and with others; a text that a terminal would obey is made inert, and cut."""
    process = bench.process(os.getpid())
    assert bench.notices.begin(process) == bench.notices.path
    bench.send(b"STOPPING=1\nSTATUS= \x1b[31mred \xff " + b"x" * 500 + b"\nMAINPID=1")
    assert bench.said == []
    assert bench.activity() == (3, ("?[31mred \N{REPLACEMENT CHARACTER} " + "x" * 500)[:200])
    bench.send(b"FDSTORE=1\nREADY=1\n")
    assert bench.said == [(process, {"type": "ready"})]
    bench.send(b"READY=1" + b"\n" * 5000)
    assert len(bench.said) == 1, "what is cut is not read"
    bench.notices.begin(process)
    assert bench.activity() == (3, "")


def test_flood_is_read_in_pieces(bench: Bench) -> None:
    """A sender that never stops keeps nobody waiting: one turn reads a bounded number."""
    bench.process(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)

        def flood() -> None:
            while True:
                sender.sendto(b"READY=1", bench.notices.path)

        with pytest.raises(BlockingIOError):
            flood()
    bench.loop.turn(0.0)
    assert 0 < len(bench.said) <= 64


def test_place(bench: Bench, tmp_path: Path) -> None:
    """The socket of a dead host is replaced, what is no socket is not, and a path that is too long gives none."""
    mode = stat.S_IMODE(os.stat(bench.notices.path).st_mode)
    assert mode == (0o666 if os.geteuid() == 0 else 0o600)
    bench.notices.close()
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(bench.notices.path)
    dead.close()
    again = ProgramNotices(bench.loop, str(tmp_path), {}, bench.table, lambda p, m: None, bench.log)
    again.close()
    assert not os.path.exists(bench.notices.path)
    Path(bench.notices.path).write_text("precious")
    with pytest.raises(ConfigurationError, match="could not create socket"):
        ProgramNotices(bench.loop, str(tmp_path), {}, bench.table, lambda p, m: None, bench.log)
    os.unlink(bench.notices.path)
    long = ProgramNotices(bench.loop, f"/{'x' * 100}", {}, bench.table, lambda p, m: None, bench.log)
    assert long.path == ""
    long.close()


def test_a_name_that_was_removed(bench: Bench) -> None:
    """It is made again, and what was said before is still heard; something else in its place is left alone, and said once."""
    process = bench.process(os.getpid())
    bench.notices.renew()
    assert bench.logged == []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", bench.notices.path)
    os.unlink(bench.notices.path)
    bench.notices.renew()
    assert bench.said == [(process, {"type": "ready"})]
    assert bench.logged == [f'socket "{bench.notices.path}" was removed and is made again']
    bench.send(b"READY=1")
    assert len(bench.said) == 2
    place = Path(bench.notices.path)
    place.unlink()
    place.write_text("precious")
    bench.notices.renew()
    bench.notices.renew()
    assert place.read_text() == "precious"
    assert bench.logged[1:] == [f'socket "{place}" is gone and could not be made again: Address already in use']
    bench.notices.close()
    assert place.read_text() == "precious"


def refuse(number: int, *_arguments: object) -> Any:
    """Fail as the kernel does."""
    raise OSError(number, os.strerror(number))


def test_name_that_could_not_be_made_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a program is to use it, with one warning in between; a failure leaves nothing in the way and no descriptor."""
    process = bench.process(os.getpid())
    os.unlink(bench.notices.path)
    descriptors = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        # Nothing of this is needed once the name is made; where it was, a failure left a name that nobody listened to.
        for name in ("chmod", "open", "fstat"):
            patch.setattr(os, name, lambda *arguments: refuse(errno.EMFILE))
        patch.setattr(socket, "socket", lambda *arguments: refuse(errno.EMFILE))
        for _ in range(3):
            assert bench.notices.begin(process) == bench.notices.path
            bench.loop.turn(0.0)
    assert bench.logged == [f'socket "{bench.notices.path}" is gone and could not be made again: Too many open files']
    assert os.listdir("/proc/self/fd") == descriptors
    assert not os.path.lexists(bench.notices.path)
    with monkeypatch.context() as patch:
        for name in ("chmod", "open", "fstat"):
            patch.setattr(os, name, lambda *arguments: refuse(errno.EMFILE))
        bench.notices.begin(process)
        bench.loop.turn(0.0)
    assert bench.logged[1:] == [f'socket "{bench.notices.path}" was removed and is made again']
    bench.send(b"READY=1")
    assert bench.said == [(process, {"type": "ready"})]


def test_nothing_that_was_said_before_is_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is longer than one turn reads is read to its end before the socket that lost its name is closed."""
    monkeypatch.setattr(program_notices, "_MAX_PER_TURN", 2)
    monkeypatch.setattr(program_notices, "_MAX_AT_END", 3)
    bench.process(os.getpid())
    said = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while said < 9:  # unix(7): a queue holds ten at least
                sender.sendto(b"READY=1", bench.notices.path)
                said += 1
    assert said == 9
    os.unlink(bench.notices.path)
    bench.notices.renew()
    assert len(bench.said) == said


def test_sender_that_waits_for_room_finds_the_new_socket(bench: Bench) -> None:
    """Who was held up by a full queue when the name went loses no word, whichever of the two sockets takes it."""
    bench.process(os.getpid())
    count = 500

    def send() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            for _ in range(count):
                # Whoever is told that it did not arrive has lost nothing.
                with contextlib.suppress(FileNotFoundError, BrokenPipeError, ConnectionRefusedError):
                    sender.sendto(b"READY=1", bench.notices.path)
                    sent.append(1)

    sent: list[int] = []
    sending = threading.Thread(target=send)
    sending.start()
    while sending.is_alive():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(bench.notices.path)
        bench.notices.renew()
        bench.loop.turn(0.0)
    sending.join()
    for _ in range(count):
        bench.loop.turn(0.0)
    assert len(bench.said) == len(sent)


def test_what_is_carried_is_known_again(bench: Bench, tmp_path: Path) -> None:
    """After an execution of the host the name is known as ours, and what was said meanwhile is read."""
    process = bench.process(os.getpid())
    baggage = Baggage()
    carried = json.loads(json.dumps(bench.notices.carry(baggage)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", bench.notices.path)
    bench.loop.remove(bench.notices._socket)
    bench.notices._socket.detach()  # type: ignore[union-attr]
    bench.notices._socket = None
    again = ProgramNotices(
        bench.loop,
        str(tmp_path),
        bench.processes,
        bench.table,
        lambda p, m: bench.said.append((p, m)),
        bench.log,
        carried,
        Baggage(baggage.packed),
    )
    again.renew()
    bench.loop.turn(0.0)
    assert bench.said == [(process, {"type": "ready"})]
    assert bench.logged == []
    again.close()
    assert not os.path.lexists(again.path)
