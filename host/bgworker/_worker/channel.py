"""The worker's channel to the host: requests and their replies, and what the host pushes in between.

One socket, inherited, one JSON object a line both ways (``_control.protocol``). The socket
never blocks. Whoever waits for a reply - the main thread, another thread, an event loop -
reads what has arrived for everybody and wakes those it concerns, so no thread owns the
reading and a long wait of one does not hold up the short request of another.

A request that is abandoned (its worker was told to end, its task was cancelled) is only
forgotten here; its reply is dropped when it comes. Locks are held for non-blocking steps
only, and are reentrant: an author's own signal handler may call a face.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from bgworker._control.protocol import Decoder, Message, decode_from_host, encode
from bgworker._shm.layout import SlotRecord
from bgworker._worker.interrupts import Interrupts
from bgworker._worker.latch import Latch
from bgworker._worker.notifications import Pending
from bgworker._worker.slot_view import SlotView
from bgworker.errors import HostError, HostNotRunning, ProtocolError, WaitTimeout, error_from_dict

_RECEIVE_BYTES: Final = 65_536
#: Descriptors must not reach programs that the worker starts.
_RECEIVE_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
#: The host sends one descriptor at a time, and the kernel never joins two messages that have some.
_ONE_FD: Final = socket.CMSG_LEN(4)
#: poll() takes milliseconds in 32 bits; a longer wait is several.
_LONGEST_POLL: Final = 2_000_000.0


class Reply:
    """What a request is waiting for."""

    def __init__(self, request_id: int, notify: Callable[[], None]) -> None:
        self.request_id = request_id
        self.is_done = False
        self._result: dict[str, Any] = {}
        self._error: HostError | None = None
        self._notify = notify

    def settle(self, message: Message, fds: list[int]) -> None:
        """Take the host's answer, and the descriptors that came with it, and wake whoever waits for it."""
        error = message.get("error")
        if isinstance(error, dict):
            self._error = error_from_dict(error)
        elif isinstance(message.get("result"), dict):
            self._result = {**message["result"], "fds": fds} if fds else message["result"]
        else:
            self._error = ProtocolError("host sent a reply with neither result nor error")
        self._finish()

    def fail(self, error: HostError) -> None:
        """End without an answer."""
        self._error = error
        self._finish()

    def _finish(self) -> None:
        self.is_done = True
        self._notify()

    def result(self) -> dict[str, Any]:
        """Return the answer, or raise it."""
        if self._error is not None:
            raise self._error
        return self._result


class Channel:
    """The worker's end.

    Args:
        fd: The inherited socket; -1 for a worker without a host.
        lifeline_fd: Shows end of file when the host has died; -1 without a host.
        latch: Set by what the host pushes, woken by replies to the main thread.
        interrupts: Looked at while the main thread waits.
        slots: Answers ``read_slot``.
        absence: Why there is no host, for a channel that never had one.
    """

    def __init__(
        self,
        fd: int,
        lifeline_fd: int,
        latch: Latch,
        interrupts: Interrupts,
        slots: SlotView,
        *,
        absence: HostNotRunning | None = None,
    ) -> None:
        self._socket = socket.socket(fileno=fd) if fd >= 0 else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self._lifeline_fd = lifeline_fd
        self._latch = latch
        self._interrupts = interrupts
        self._slots = slots
        self._decoder = Decoder()
        #: Descriptors that have arrived, in the order of the messages that name them.
        self._fds: deque[int] = deque()
        self._lock = threading.RLock()
        self._unsent = bytearray()
        self._replies: dict[int, Reply] = {}
        self._last_id = 0
        #: Why there is no host, or no more.
        self._loss = absence
        self.notifications = Pending()
        self._events: deque[Message] = deque()
        self._assignment: Message | None = None

    def await_assignment(self) -> Message | None:
        """Wait, blank, for the ``assign`` message; None when the host closes the channel or dies instead."""
        while self._assignment is None and self._loss is None:
            self._poll(None, None)
        return self._assignment

    def request(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Ask the host and wait for its answer. Any thread; in the main thread SIGTERM ends the wait.

        Args:
            method: One of the control socket's methods.
            params: Its parameters.
            timeout: Seconds until the wait is given up; None waits as long as the host lives.

        Raises:
            HostError: The host refused.
            HostNotRunning: The host has gone.
            WaitTimeout: The timeout passed.
            Terminated: The worker has been told to end.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if threading.current_thread() is threading.main_thread():
            self._interrupts.deferred += 1
            try:
                reply = self.begin(method, params, self._latch.wake)
                self._await(reply, self._latch.read_fd, deadline, self._interrupts.check)
            finally:
                self._interrupts.deferred -= 1
            self._interrupts.check()
        else:
            reply = self._request_from_thread(method, params, deadline)
        return reply.result()

    def read_slot(self, slotno: int) -> SlotRecord:
        """Return a slot's record from shared memory. May be stale when you read it."""
        return self._slots.read(slotno)

    def is_host_alive(self) -> bool:
        """Whether the host lives; one system call."""
        if self._loss is not None:
            return False
        life = select.poll()  # a poll object of its own: one cannot be used by two threads at once
        life.register(self._lifeline_fd, select.POLLIN)
        return not life.poll(0)

    # -- the parts, also for an event loop --------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor to watch for arrivals; -1 when nothing can arrive."""
        return -1 if self._socket is None or self._loss is not None else self._socket.fileno()

    def begin(self, method: str, params: dict[str, Any] | None, notify: Callable[[], None]) -> Reply:
        """Send a request without waiting.

        Args:
            method: One of the control socket's methods.
            params: Its parameters.
            notify: Called once the reply is done, in whichever thread read it.
        """
        with self._lock:
            if self._loss is not None:
                raise self._gone()
            self._last_id += 1
            reply = Reply(self._last_id, notify)
            message = encode({"id": reply.request_id, "method": method, "params": params or {}})
            self._replies[reply.request_id] = reply
            self._unsent += message
            self.flush()
        return reply

    def abandon(self, reply: Reply) -> None:
        """Forget a request; its reply is dropped when it comes."""
        self._replies.pop(reply.request_id, None)

    def send(self, message: Message) -> None:
        """Send a notice, waiting until the host has taken it."""
        with self._lock:
            self._unsent += encode(message)
            self.flush()
            while self._unsent and self._loss is None:
                self._poll(None, None)

    def notice(self, message: Message) -> None:
        """Send a notice that the host can do without: dropped while the host takes nothing. Does not block."""
        with self._lock:
            if not self._unsent:
                self._unsent += encode(message)
                self.flush()

    def flush(self) -> bool:
        """Send what the socket takes now; return whether something is left."""
        with self._lock:
            while self._unsent and self._socket is not None and self._loss is None:
                try:
                    sent = self._socket.send(self._unsent)
                except BlockingIOError:
                    return True
                except OSError as error:
                    self._lose(error.strerror or str(error))
                else:
                    del self._unsent[:sent]
            self._unsent.clear()
            return False

    def receive(self) -> None:
        """Take in what has arrived, for everybody. Does not block."""
        with self._lock:
            while self._socket is not None and self._loss is None:
                try:
                    data, fds = _receive(self._socket)
                except BlockingIOError:
                    return
                except OSError as error:
                    self._lose(error.strerror or str(error))
                    return
                self._fds.extend(fds)
                if not data:
                    self._lose("it closed the channel")
                    return
                try:
                    for line in self._decoder.feed(data):
                        self._dispatch(decode_from_host(line))
                except ProtocolError as error:
                    self._lose(str(error))

    def subscribe_events(self) -> None:
        """Ask for the host's events; from then on each sets the latch. For the launcher."""
        self.request("events", {})

    def take_events(self) -> list[Message]:
        """Return the events that have arrived, oldest first, and forget them."""
        self.receive()
        taken = []
        while self._events:
            taken.append(self._events.popleft())
        return taken

    def close(self) -> None:
        """Close the descriptor, in a forked child whose parent goes on using it."""
        if self._socket is not None:
            self._socket.close()
        self._loss = self._loss or HostNotRunning("channel to the host belongs to the parent process")

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _request_from_thread(self, method: str, params: dict[str, Any] | None, deadline: float | None) -> Reply:
        read_fd, write_fd = os.pipe()

        def notify() -> None:
            os.write(write_fd, b"\0")

        try:
            reply = self.begin(method, params, notify)
            try:
                self._await(reply, read_fd, deadline, lambda: None)
            finally:
                with self._lock:  # nobody may be about to write into a pipe that is being closed
                    self.abandon(reply)
            return reply
        finally:
            os.close(read_fd)
            os.close(write_fd)

    def _await(self, reply: Reply, wake_fd: int, deadline: float | None, check: Callable[[], None]) -> None:
        try:
            while not reply.is_done:
                check()
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    raise WaitTimeout(
                        "timed out waiting for an answer of the host", "The worker goes on, and so does what was asked for."
                    )
                self._poll(wake_fd, remaining)
        finally:
            self.abandon(reply)

    def _poll(self, wake_fd: int | None, timeout: float | None) -> None:
        """Sleep until something arrives, can be sent, or the waker's pipe speaks; then do what can be done."""
        poller = select.poll()
        if (fd := self.fileno()) >= 0:
            poller.register(fd, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if self._lifeline_fd >= 0:
            poller.register(self._lifeline_fd, select.POLLIN)
        if wake_fd is not None:
            poller.register(wake_fd, select.POLLIN)
        for ready_fd, bits in poller.poll(None if timeout is None else min(timeout, _LONGEST_POLL) * 1000):
            if ready_fd == wake_fd:
                self._latch.drain() if wake_fd == self._latch.read_fd else os.read(wake_fd, 1)
            elif ready_fd == self._lifeline_fd:
                self.receive()  # the host's last words
                self._lose("it has died")
            else:
                if bits & select.POLLOUT:
                    self.flush()
                self.receive()

    def _dispatch(self, message: Message) -> None:
        if "id" in message:
            reply = self._replies.pop(message["id"], None) if isinstance(message["id"], int) else None
            fds = [self._fds.popleft() for _ in range(message.get("fds", 0))]
            if reply is not None:
                reply.settle(message, fds)
            else:
                for fd in fds:
                    os.close(fd)
            return
        if "event" in message:
            self._events.append(message)
        elif message.get("type") == "assign":
            self._assignment = message
            return
        elif message.get("type") == "notify":
            self.notifications.add(str(message.get("channel")), str(message.get("payload", "")))
        elif message.get("type") == "gap":
            self.notifications.add_gap([str(channel) for channel in message.get("channels", [])])
        else:
            return  # of a newer host; it does not concern us
        self._latch.set()

    def _lose(self, reason: str) -> None:
        """Take the host for gone: every request that waits fails, and so does every later one."""
        if self._loss is None:
            self._loss = HostNotRunning("lost the connection to the host", f"The reason: {reason}.")
        replies = list(self._replies.values())
        self._replies.clear()
        for reply in replies:
            reply.fail(self._gone())

    def _gone(self) -> HostNotRunning:
        # A new one each time: an exception that is raised twice carries two tracebacks.
        return HostNotRunning(*self._loss.args) if self._loss is not None else HostNotRunning("lost the connection to the host")


def _receive(channel: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """Receive what is there, a descriptor close-on-exec. socket.recv_fds() takes flags and ignores them, so it is no help."""
    data, ancillary, _flags, _address = channel.recvmsg(_RECEIVE_BYTES, _ONE_FD, _RECEIVE_FLAGS)
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return data, struct.unpack(f"{len(payload) // 4}i", payload)
    return data, ()
