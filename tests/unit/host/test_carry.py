"""What rooms of the host write for themselves, and read again, when it executes itself anew."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest

from bgworker._baggage import Baggage
from bgworker._control.connection import Connection, socket_of
from bgworker._control.protocol import MAX_REQUEST_BYTES, Message, encode
from bgworker._core import codec
from bgworker._core.codec import UnreadableError
from bgworker._core.exits import Exit
from bgworker._core.record import Slot
from bgworker._core.scope import Segment
from bgworker._core.states import Origin, SlotState
from bgworker._core.timetable import Run
from bgworker._host import document
from bgworker._host.askers import Askers
from bgworker._host.records import Records
from bgworker._host.segments import Segments
from bgworker._host.status import Finished
from bgworker._host.strays import Strays
from bgworker._loop import Loop
from bgworker._process.lifeline import Lifeline
from bgworker._shm.layout import ActivityRecord, SlotRecord
from bgworker._shm.table import ActivityTable, SlotTable
from bgworker._spec import BackgroundWorker, sanity_check

WORKER = sanity_check(
    BackgroundWorker(
        bgw_name="w", bgw_library_name="l", bgw_function_name="f", bgw_main_arg={"n": [1, None, "ö"]}, wake_on=("a", "b"),
        environment={"A": "ä"}, restart_backoff={"factor": 2.0}, success_exit_codes=(3,), bgw_restart_time=2.5,
        rlimits={"nofile": {"soft": 1, "hard": "unlimited"}}, max_memory="20M",
    ),
    is_dynamic=True,
)  # fmt: skip


def through_json(carried: Any) -> Any:
    """Return what the other side reads."""
    return json.loads(json.dumps(carried))


def packed(carry: Any) -> tuple[Any, Baggage]:
    """Return what a room carries, as the other side gets it."""
    baggage = Baggage()
    carried = through_json(carry(baggage))
    return carried, Baggage(baggage.packed)


def test_slot_with_everything_set() -> None:
    """No field of a slot is lost, and none is added that the other version does not know."""
    slot = Slot(
        3, generation=7, state=SlotState.STARTED, worker=WORKER, origin=Origin.STATIC, pid=99, attempt=4, started_at=1.5,
        run=Run(8.0, "soon", 1e9), last_exit=Exit(None, 9, 3.0, "signal 9 (Killed)", True, False), replacement=WORKER,
        segments=frozenset({Segment("box", 2), Segment("ax", 1)}), reason="why",
    )  # fmt: skip
    carried = through_json(codec.write(slot))
    assert codec.read(Slot, carried) == slot
    with pytest.raises(UnreadableError, match="a Slot differs: strange"):
        codec.read(Slot, {**carried, "strange": 1})
    del carried["quick_exits"]
    with pytest.raises(UnreadableError, match="a Slot differs: quick_exits"):
        codec.read(Slot, carried)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(int, True), (int, "1"), (bool, 1), (SlotState, "asleep"), (list[int], [1, "x"]), (tuple[int, str], [1]), (Segment, ["box"])],
)
def test_what_is_of_another_type_is_refused(kind: Any, value: Any) -> None:
    """Nothing is taken for what it is not."""
    with pytest.raises(UnreadableError):
        codec.read(kind, value)


def test_format_is_looked_at_first() -> None:
    """A state of another format is refused in words, whatever else is in it."""
    with pytest.raises(UnreadableError, match="the state differs: about, births"):
        document.check({"format": document.FORMAT})
    with pytest.raises(UnreadableError, match="the state is in format 99"):
        document.check({"format": 99})
    with pytest.raises(UnreadableError, match="is not a document"):
        document.check([])


def test_connection_goes_on_in_the_middle_of_everything() -> None:
    """Half a line, lines that were not served and an answer that was not sent go on; descriptors on their way, too."""
    loop, heard = Loop(()), []
    ours, theirs = socket.socketpair()
    first = Connection(loop, ours, heard.append, lambda reason: None, limit=MAX_REQUEST_BYTES)
    first._unserved.append(encode({"id": "unserved"}).rstrip())
    theirs.sendall(b'{"id": "ha')
    loop.turn(None)
    first._unserved.append(encode({"id": "next"}).rstrip())
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    first.send({"long": "x" * 200_000})
    read_fd, write_fd = os.pipe()
    first.hand_over({"with": "a descriptor"}, read_fd)
    carried, baggage = packed(first.carry)
    ours.detach()
    loop.close()
    loop = Loop(())
    second_heard: list[Message] = []
    second = Connection(
        loop, socket_of(carried, baggage), second_heard.append, lambda reason: None, limit=MAX_REQUEST_BYTES,
        carried=carried, baggage=baggage,
    )  # fmt: skip
    assert not baggage.left()
    theirs.setblocking(False)
    data, fds = b"", []
    theirs.send(b'lf"}\n')
    while b"a descriptor" not in data:
        loop.turn(None)
        try:
            more, found, _flags, _address = socket.recv_fds(theirs, 65_536, 1)
        except BlockingIOError:
            continue
        data, fds = data + more, [*fds, *found]
    for _ in range(3):
        loop.turn(0.0)
    served = [*heard, *second_heard]
    assert [message["id"] for message in served] in (["unserved", "next", "half"], ["next", "half"])
    assert data.count(b"\n") == 2
    assert len(fds) == 1
    assert json.loads(data.splitlines()[0])["long"] == "x" * 200_000
    for fd in (*fds, write_fd):
        os.close(fd)
    second.close()
    theirs.close()
    loop.close()


def test_connection_that_has_ended_stays_ended() -> None:
    """A worker that had closed its channel, unread, is that also afterwards."""
    loop = Loop(())
    ours, theirs = socket.socketpair()
    first = Connection(loop, ours, lambda message: None, lambda reason: None, limit=100)
    first.send({"never": "read"})
    theirs.close()
    first.drain()
    carried, baggage = packed(first.carry)
    second = Connection(
        loop, socket_of(carried, baggage), lambda message: None, lambda reason: None, limit=100, carried=carried, baggage=baggage
    )
    assert (second.is_open, second.is_unread, second.messages_sent) == (False, True, 1)
    loop.close()


def test_tables_go_on_counting() -> None:
    """The tables are the same memory, and their sequence numbers go on."""
    slots, activities = SlotTable(2), ActivityTable(2)
    slots.write(1, SlotRecord(5, 99, 1))
    activities.write(0, ActivityRecord(1, "idle", "", "text"))
    before = os.pread(slots.read_only_fd, 4096, 0), os.pread(activities.read_only_fd, 4096, 0)
    carried, baggage = packed(lambda baggage: [slots.carry(baggage), activities.carry(baggage)])
    again, activities_again = SlotTable.resume(carried[0], baggage), ActivityTable.resume(carried[1], baggage)
    assert not baggage.left()
    assert {**vars(again), "_records": None} == {**vars(slots), "_records": None}
    assert vars(activities_again) == vars(activities)
    assert before == (os.pread(again.read_only_fd, 4096, 0), os.pread(activities_again.read_only_fd, 4096, 0))
    again.close()
    activities_again.close()


def test_segments_and_lifeline_are_the_same_descriptors() -> None:
    """Memory that was lost in a crash stays lost, and its name goes on counting."""
    segments, lifeline = Segments(1_000_000), Lifeline()
    for name in ("kept", "lost"):
        segment, _size, fd = segments.open(name, 100)
        os.close(fd)
    segments.drop([segment])
    carried, baggage = packed(lambda baggage: [segments.carry(baggage), lifeline.carry(baggage)])
    again = Segments(1_000_000)
    again.resume(carried[0], baggage)
    assert vars(Lifeline.resume(carried[1], baggage)) == vars(lifeline)
    assert not baggage.left()
    assert again.carry(Baggage()) == segments.carry(Baggage())
    assert again.open("lost", 100)[0] == Segment("lost", 2)
    again.close()
    lifeline.close()


def test_books_of_the_host() -> None:
    """Who asked, what has finished, which marks are given and what nobody has written yet arrive as they were."""
    finished, askers, strays = Finished(), Askers(), Strays()
    finished.add(1, 2, WORKER, Origin.STATIC, Exit(1, None, 2.0, "exit 1: no", False, False), "it ended")
    askers.note_reload((3, 4))
    strays.mark_for(4711)
    strays.killed = {5}
    records = Records(lambda message: False)
    records.log("LOG", "nobody has written this")
    again = Finished(), Askers(), Strays(), Records(lambda message: False)
    for room, other in zip((finished, askers, strays, records), again, strict=True):
        other.resume(through_json(room.carry()))  # type: ignore[attr-defined]
        assert other.carry() == room.carry()  # type: ignore[attr-defined]
    assert again[0].last_exit(1, 2) == finished.last_exit(1, 2)


def test_descriptor_that_was_not_carried_is_not_taken() -> None:
    """A number in the document that names no carried descriptor, or one that somebody has taken, is an error."""
    baggage = Baggage([0])
    baggage.unpack(0)
    for fd in (0, 1, None, "2"):
        with pytest.raises(ValueError, match="was not carried"):
            baggage.unpack(fd)
    os.set_inheritable(0, True)
