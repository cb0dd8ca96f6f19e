"""The client's end of the control protocol without any I/O: requests out, replies matched, greeting read.

Both clients drive it, the threaded one and the asyncio one, so that neither has a protocol of
its own. It never touches a socket, a clock or a lock: whoever drives it serialises the calls.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, TypeGuard

from bgworker._control.protocol import MAX_REQUEST_BYTES, PROTOCOL_VERSION, Decoder, Message, decode, decode_from_host, encode
from bgworker.errors import HostError, ProtocolError, error_from_dict

__all__ = ["Call", "Greeting", "Session", "read_greeting"]


class Greeting(NamedTuple):
    """What the host says first, together with two descriptors: slot table and activity table."""

    version: str
    pid: int
    max_worker_processes: int


def read_greeting(line: bytes) -> Greeting:
    """Return the host's first line as a greeting.

    Raises:
        HostError: The host turned this peer away; the error is the host's own.
        ProtocolError: This is no greeting, or one of a protocol that this version does not speak.
    """
    message = decode(line)
    if isinstance(message.get("error"), dict):
        raise error_from_dict(message["error"])
    protocol = message.get("bgworker")
    if not _is_count(protocol):
        raise ProtocolError("what listens on the control socket is not a bgworker host")
    version = str(message.get("version", ""))
    if protocol != PROTOCOL_VERSION:
        raise ProtocolError(
            f"host speaks version {protocol} of the control protocol, and this client speaks version {PROTOCOL_VERSION}",
            f"The host is bgworker {version or 'of a version it does not tell'}.",
            "Use the client of the same installation as the host.",
        )
    pid, slots, fds = message.get("pid"), message.get("max_worker_processes"), message.get("fds")
    if not _is_count(pid) or not _is_count(slots) or fds != 2:
        raise ProtocolError("greeting of the host is incomplete", "It must name pid, max_worker_processes and two descriptors.")
    return Greeting(version, pid, slots)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class Call:
    """Something that whoever drives the session waits for: a reply, a notice or the end of the connection."""

    __slots__ = ("call_id", "error", "is_done", "method", "value", "waiter")

    def __init__(self, call_id: int, method: str) -> None:
        self.call_id = call_id
        self.method = method
        self.is_done = False
        self.value: Message = {}
        self.error: HostError | None = None
        #: Belongs to whoever drives the session: how the one who waits is woken.
        self.waiter: Any = None

    def outcome(self) -> Message:
        """Return the value, or raise the error, of a call that is done."""
        if self.error is not None:
            # A copy: one error can end many calls, and each raise writes a traceback into the object.
            raise type(self.error)(*self.error.args)
        return self.value


class Session:
    """One connection's calls, from after the greeting to its end."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._last_id = 0
        self._calls: dict[int, Call] = {}
        #: Calls that no reply answers.
        self._notice_calls: deque[Call] = deque()
        self._notices: deque[Message] = deque()
        #: Why the connection can no longer be used; set once.
        self.failure: HostError | None = None

    def request(self, method: str, params: Message) -> tuple[Call, bytes]:
        """Return a new call and the line that asks for it.

        Raises:
            ProtocolError: The parameters are not JSON, or too long for a host to accept.
            HostError: The connection has ended.
        """
        call = self._new_call(method)
        line = encode({"id": call.call_id, "method": method, "params": params})
        if len(line) > MAX_REQUEST_BYTES:
            # The host would close the connection, with everybody else's calls on it.
            raise ProtocolError(f"request is too long: {len(line)} bytes, at most {MAX_REQUEST_BYTES} are allowed")
        self._calls[call.call_id] = call
        return call, line

    def expect_notice(self) -> Call:
        """Return a call that is done with the next notice."""
        if self._notices:
            call = Call(0, "notice")
            self._finish(call, self._notices.popleft())
            return call
        call = self._new_call("notice")
        self._notice_calls.append(call)
        return call

    def expect_end(self) -> Call:
        """Return a call that is done when the connection has ended; its error says how."""
        call = self._new_call("end")
        self._calls[call.call_id] = call
        return call

    def abandon(self, call: Call) -> None:
        """Forget a call; a reply that still comes is dropped."""
        if self._calls.pop(call.call_id, None) is None and call in self._notice_calls:
            self._notice_calls.remove(call)

    def feed(self, data: bytes) -> list[Call]:
        """Take what arrived and return the calls that it ends."""
        done: list[Call] = []
        try:
            for line in self._decoder.feed(data):
                call = self._take(decode_from_host(line))
                if call is not None:
                    done.append(call)
        except HostError as error:
            done += self.fail(error)
        return done

    def fail(self, error: HostError) -> list[Call]:
        """End everything with an error and return the calls that this ends; later errors change nothing."""
        if self.failure is None:
            self.failure = error
        ended = [*self._calls.values(), *self._notice_calls]
        self._calls.clear()
        self._notice_calls.clear()
        for call in ended:
            call.error = self.failure
            call.is_done = True
        return ended

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits for something to arrive."""
        return bool(self._calls or self._notice_calls)

    def _new_call(self, method: str) -> Call:
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)
        self._last_id += 1
        return Call(self._last_id, method)

    def _take(self, message: Message) -> Call | None:
        if "id" not in message:
            if self._notice_calls:
                return self._finish(self._notice_calls.popleft(), message)
            self._notices.append(message)
            return None
        call_id, error = message["id"], message.get("error")
        if call_id is None and isinstance(error, dict):
            raise error_from_dict(error)  # the host could not read what we sent, so it cannot say which call that ends
        if not isinstance(call_id, int) or not 0 < call_id <= self._last_id:
            raise ProtocolError("host answered a request that was never made")
        call = self._calls.get(call_id)
        if call is None or call.method == "end":
            return None  # abandoned: its caller's deadline passed first
        del self._calls[call_id]
        if isinstance(error, dict):
            call.error = error_from_dict(error)
        elif not isinstance(message.get("result"), dict):
            call.error = ProtocolError("reply of the host has neither result nor error")
        return self._finish(call, message.get("result") or {})

    @staticmethod
    def _finish(call: Call, value: Message) -> Call:
        call.value = value
        call.is_done = True
        return call
