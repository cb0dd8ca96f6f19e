"""The client's end of the protocol, byte by byte and without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgworker._control.protocol import MAX_REQUEST_BYTES, encode, refusal, reply
from bgworker._control.session import Call, Greeting, Session, read_greeting
from bgworker.errors import HostError, HostNotRunning, NoFreeSlot, PermissionDenied, ProtocolError

GREETING: dict[str, Any] = {"bgworker": 1, "version": "0.1.0", "pid": 123, "max_worker_processes": 64, "fds": 2}


def test_greeting() -> None:
    """The greeting tells who the host is; keys of a newer host of the same protocol are passed over."""
    assert read_greeting(encode({**GREETING, "shoe_size": 43})) == Greeting("0.1.0", 123, 64)


@pytest.mark.parametrize("key", ["pid", "max_worker_processes", "fds"])
@pytest.mark.parametrize("value", [None, 0, -1, True, "2", 2.5])
def test_greeting_that_is_incomplete(key: str, value: object) -> None:
    """A greeting without a usable pid, number of slots or descriptors is refused."""
    with pytest.raises(ProtocolError, match="incomplete"):
        read_greeting(encode({**GREETING, key: value}))


@pytest.mark.parametrize("version", [2, 99])
def test_greeting_of_another_protocol(version: int) -> None:
    """A host of another protocol version is refused, both versions named."""
    with pytest.raises(ProtocolError, match=f"version {version} of the control protocol.* version 1") as caught:
        read_greeting(encode({"bgworker": version, "version": "9.9"}))
    assert "9.9" in caught.value.message_detail


@pytest.mark.parametrize("message", [{}, {"bgworker": "1"}, {"bgworker": True}, {"bgworker": 0}, {"error": "text"}])
def test_greeting_of_somebody_else(message: dict[str, Any]) -> None:
    """What is no greeting is refused as such."""
    with pytest.raises(ProtocolError, match="not a bgworker host"):
        read_greeting(encode(message))


def test_refusal_instead_of_a_greeting() -> None:
    """A host that turns a peer away is quoted."""
    with pytest.raises(PermissionDenied, match="no entry") as caught:
        read_greeting(encode(refusal(None, PermissionDenied("no entry", "Detail.", "Hint."))))
    assert (caught.value.message_detail, caught.value.message_hint) == ("Detail.", "Hint.")


def test_request() -> None:
    """A request is one line with an id of its own, method and parameters."""
    session = Session()
    first, line = session.request("find", {"name": "ä\n"})
    assert json.loads(line) == {"id": first.call_id, "method": "find", "params": {"name": "ä\n"}}
    assert line.count(b"\n") == 1
    second, _line = session.request("ping", {})
    assert second.call_id != first.call_id
    assert not first.is_done


def test_replies_in_any_order() -> None:
    """A reply ends the call with its id, whenever it comes."""
    session = Session()
    calls = [session.request("ping", {})[0] for _ in range(3)]
    for call in reversed(calls):
        assert session.feed(encode(reply(call.call_id, {"number": call.call_id}))) == [call]
    assert [call.outcome() for call in calls] == [{"number": call.call_id} for call in calls]
    assert not session.is_awaited


def test_error_reply() -> None:
    """An error reply is raised as the error it is, anew each time."""
    session = Session()
    call, _line = session.request("register", {})
    session.feed(encode(refusal(call.call_id, NoFreeSlot("no free slot", "Detail.", "Hint."))))
    with pytest.raises(NoFreeSlot) as first:
        call.outcome()
    with pytest.raises(NoFreeSlot) as second:
        call.outcome()
    assert first.value is not second.value
    assert first.value.args == second.value.args == ("no free slot", "Detail.", "Hint.")


@pytest.mark.parametrize("answer", [{}, {"result": None}, {"result": [1]}, {"error": "text"}])
def test_reply_that_is_none(answer: dict[str, Any]) -> None:
    """A reply with neither result nor error ends its own call only."""
    session = Session()
    call, _line = session.request("ping", {})
    other, _line = session.request("ping", {})
    session.feed(encode({"id": call.call_id, **answer}))
    with pytest.raises(ProtocolError, match="neither result nor error"):
        call.outcome()
    session.feed(encode(reply(other.call_id, {})))
    assert other.outcome() == {}


def test_abandoned_call() -> None:
    """The reply to a call that its caller gave up is dropped, and the next one is not."""
    session = Session()
    abandoned, _line = session.request("wait", {})
    session.abandon(abandoned)
    call, _line = session.request("ping", {})
    assert session.feed(encode(reply(abandoned.call_id, {}))) == []
    assert session.feed(encode(reply(call.call_id, {}))) == [call]


@pytest.mark.parametrize("call_id", [0, 2, -1, "1", 1.5, None])
def test_reply_to_nobody(call_id: object) -> None:
    """A reply to a request that was never made ends the connection: nothing can be matched any more."""
    session = Session()
    call, _line = session.request("ping", {})
    assert session.feed(encode({"id": call_id, "result": {}})) == [call]
    with pytest.raises(ProtocolError, match="never made"):
        call.outcome()
    with pytest.raises(ProtocolError, match="never made"):
        session.request("ping", {})


@pytest.mark.parametrize("said", [b"not json\n", b"[]\n", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_nonsense_from_the_host(said: bytes) -> None:
    """Nonsense ends every call with a protocol error."""
    session = Session()
    calls = [session.request("ping", {})[0], session.expect_notice(), session.expect_end()]
    assert session.feed(said) == [calls[0], calls[2], calls[1]]
    for call in calls:
        with pytest.raises(ProtocolError):
            call.outcome()


def test_host_could_not_read_us() -> None:
    """An error without an id is about what we sent, so it ends the connection with that error."""
    session = Session()
    call, _line = session.request("ping", {})
    session.feed(encode(refusal(None, ProtocolError("message is not valid"))))
    with pytest.raises(ProtocolError, match="message is not valid"):
        call.outcome()


def test_request_that_is_too_long() -> None:
    """A request beyond the host's limit is refused here: the host would close the connection."""
    session = Session()
    with pytest.raises(ProtocolError, match="too long"):
        session.request("find", {"name": "x" * MAX_REQUEST_BYTES})
    assert not session.is_awaited
    room = MAX_REQUEST_BYTES - len(encode({"id": 3, "method": "find", "params": {"name": ""}}))
    assert len(session.request("find", {"name": "x" * room})[1]) == MAX_REQUEST_BYTES


def test_request_that_is_not_json() -> None:
    """Parameters that JSON cannot say are refused, and the session goes on."""
    session = Session()
    with pytest.raises(ProtocolError, match="not JSON"):
        session.request("find", {"name": object()})
    session.request("ping", {})


def test_notices() -> None:
    """Notices end the calls that expect one, in order; those that nobody expects yet are kept."""
    session = Session()
    session.feed(encode({"event": "a"}))
    early = session.expect_notice()
    assert early.is_done
    assert early.outcome() == {"event": "a"}
    late = session.expect_notice()
    later = session.expect_notice()
    assert session.feed(encode({"event": "b"}) + encode({"event": "c"})) == [late, later]
    assert (late.outcome(), later.outcome()) == ({"event": "b"}, {"event": "c"})


def test_notice_that_is_not_awaited_any_more() -> None:
    """A notice that comes after its caller gave up is for the next one."""
    session = Session()
    session.abandon(session.expect_notice())
    session.feed(encode({"event": "a"}))
    assert session.expect_notice().outcome() == {"event": "a"}


def test_end() -> None:
    """The end of the connection ends all calls with its reason; a later one changes nothing."""
    session = Session()
    calls = [session.request("ping", {})[0], session.expect_end()]
    assert session.fail(HostNotRunning("gone")) == calls
    assert session.fail(HostError("closed")) == []
    for call in calls:
        with pytest.raises(HostNotRunning, match="gone"):
            call.outcome()
    makers: list[Any] = [session.expect_end, session.expect_notice, lambda: session.request("ping", {})]
    for make in makers:
        with pytest.raises(HostNotRunning, match="gone"):
            make()


def test_end_is_not_for_the_host_to_answer() -> None:
    """A reply that happens to have the number of a wait for the end does not end that wait."""
    session = Session()
    call = session.expect_end()
    assert session.feed(encode(reply(call.call_id, {}))) == []
    assert not call.is_done
    assert session.fail(HostNotRunning("gone")) == [call]


def test_notices_before_the_end_are_kept() -> None:
    """What came before the end can still be read after it."""
    session = Session()
    session.feed(encode({"event": "a"}))
    session.fail(HostNotRunning("gone"))
    assert session.expect_notice().outcome() == {"event": "a"}


@given(st.data())
def test_any_division_into_blocks(data: st.DataObject) -> None:
    """However the stream is cut into blocks, the same calls end with the same values."""
    session = Session()
    calls = [session.request("find", {"name": str(number)})[0] for number in range(8)]
    order = data.draw(st.permutations(calls))
    stream = b"".join(encode(reply(call.call_id, {"text": "ä" * call.call_id})) for call in order)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    done: list[Call] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        done += session.feed(stream[start:end])
    assert done == list(order)
    assert all(call.outcome() == {"text": "ä" * call.call_id} for call in calls)
