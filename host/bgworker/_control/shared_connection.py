"""One connection used by any number of threads at once.

Threads that wait for replies share the reading: one of them leads, which is to sleep in poll(2)
and take in what arrives for everybody; the others sleep on a gate of their own, a lock that
whoever has news for them opens. A leader that has its reply, or whose time is over, leaves and
opens the gate of another one that waits. So a long wait in one thread holds up nobody, and no
thread of ours runs in the background.

Who may touch what: everything but the gates and the slot table only with ``_lock`` held; it is
never held while sleeping. The descriptors are closed only while nobody leads, because their
numbers would otherwise be reused under a poll that is about to begin.
"""

from __future__ import annotations

import os
import select
import time
import warnings

# Condition and Event of threading are built from the same lock; importing that module costs 1 ms of `status --json`.
from _thread import TIMEOUT_MAX, allocate_lock
from typing import Any

from bgworker._control.link import Link
from bgworker._control.protocol import Message
from bgworker._control.session import Call
from bgworker._control.transport import Attachment, Tables
from bgworker._shm.layout import SlotRecord
from bgworker.errors import HostError, WaitTimeout

__all__ = ["SharedConnection"]

#: poll(2) takes milliseconds in 32 bits; a longer wait is several.
_LONGEST_POLL = 2_000_000.0


class SharedConnection:
    """A connection to the host, made by ``attach``. Thread-safe; refuses use in a forked child."""

    def __init__(self, attachment: Attachment) -> None:
        self.data_directory = attachment.data_directory
        self.greeting = attachment.greeting
        self._tables: Tables | None = attachment.tables
        self._lock = allocate_lock()
        self._link = Link(attachment)
        self._is_led = False
        #: Calls whose threads sleep on their gate, longest first.
        self._followers: list[Call] = []
        self._is_closed = False
        #: Wakes the leader: to send what another thread could not, or because of close().
        self._wake_read_fd, self._wake_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def request(self, method: str, params: Message | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Ask the host and wait for its answer.

        Args:
            method: One of docs/protocol.md.
            params: Its parameters.
            timeout: Seconds until this caller gives up; None waits as long as the host lives.

        Raises:
            HostError: What the host answered, or why the connection cannot be used.
            HostNotRunning: The host has gone.
            WaitTimeout: The timeout passed; the host may still do what it was asked.
        """
        deadline = _deadline(timeout)
        self._link.check_process()  # before the lock: a thread of the parent may hold it for ever
        with self._lock:
            call = self._ask(method, params or {})
            if self._link.has_unsent:
                self._wake_leader()
            self._wait(call, deadline)
        return call.outcome()

    def next_notice(self, timeout: float | None = None) -> Message:
        """Wait for the next notice.

        Raises:
            HostNotRunning: The host has gone.
            WaitTimeout: The timeout passed.
        """
        deadline = _deadline(timeout)
        self._link.check_process()
        with self._lock:
            call = self._link.session.expect_notice()
            self._wait(call, deadline)
        return call.outcome()

    def wait_until_gone(self, timeout: float | None = None) -> HostError:
        """Wait until the connection has ended and return how.

        Raises:
            WaitTimeout: The timeout passed; the connection stands.
        """
        deadline = _deadline(timeout)
        self._link.check_process()
        with self._lock:
            if self._link.session.failure is None:
                self._wait(self._link.session.expect_end(), deadline)
            assert self._link.session.failure is not None  # that is what was waited for
            return self._link.session.failure

    def read_slot(self, slotno: int) -> SlotRecord:
        """Return a slot's record from shared memory; no lock, no system call. May be stale when you read it."""
        return self.tables.read_slot(slotno)

    @property
    def tables(self) -> Tables:
        """Both shared tables.

        Raises:
            HostError: The connection was closed on this side.
        """
        tables = self._tables  # once: close() in another thread drops it, and the mappings with the last reader
        if tables is None:
            raise _closed()
        return tables

    def check_usable(self) -> None:
        """Refuse what could be done without this connection, but not in its name.

        Raises:
            HostError: The connection was closed on this side, or inherited through fork.
        """
        self._link.check_process()
        if self._is_closed:
            raise _closed()

    def is_host_alive(self) -> bool:
        """Whether the host lives; one system call.

        Raises:
            HostError: The connection was closed on this side, or inherited through fork.
        """
        if not self._link.is_hung_up():
            return True
        self.check_usable()
        return False

    def fileno(self) -> int:
        """Return the descriptor on which something from the host arrives, for a selector; -1 once closed."""
        return self._link.fileno()

    def close(self) -> None:
        """End the connection; waits in other threads end with an error. May be called again, and in a forked child."""
        if self._link.is_inherited():
            self._is_closed = True  # the socket is closed already, and the lock may be held for ever
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._tables = None
            self._end(self._link.session.fail(_closed()))
            if self._is_led:
                self._wake_leader()  # it closes the descriptors when it leaves
            else:
                self._close_descriptors()

    def __del__(self) -> None:
        # Nobody leads: a leader would hold a reference.
        if not getattr(self, "_is_closed", True):
            warnings.warn(f"unclosed connection to the host of {self.data_directory}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    # -- with the lock held ----------------------------------------------------------------------------------------------

    def _ask(self, method: str, params: Message) -> Call:
        try:
            return self._link.ask(method, params)
        except HostError:
            raise  # refused before anything was sent
        except BaseException:
            self._interrupted()
            raise

    def _exchange(self) -> None:
        try:
            self._link.send()
            self._end(self._link.receive())
        except BaseException:
            self._interrupted()
            raise

    def _interrupted(self) -> None:
        # What a signal handler raised right after a system call has taken that call's result with it:
        # nobody knows how much was sent or received, so no message boundary can be found again.
        error = HostError(
            "connection to the host was interrupted",
            "A signal handler raised an exception in the middle of a message.",
            "Connect again.",
        )
        self._link.session.fail(error)
        self._end(self._followers)  # all of them: which calls were done is lost as well

    def _wait(self, call: Call, deadline: float | None) -> None:
        """Return when the call is done, as leader or as follower."""
        try:
            while not call.is_done:
                if self._is_led:
                    self._follow(call, deadline)
                else:
                    self._lead(call, deadline)
                # Only now: a timeout of 0 still takes what has arrived.
                if not call.is_done and deadline is not None and deadline <= time.monotonic():
                    raise WaitTimeout(
                        f'host did not answer "{call.method}" in time',
                        "The request was made, and the host may still carry it out.",
                    )
        finally:
            if not call.is_done:
                self._link.session.abandon(call)
            if not self._is_led:
                self._pass_lead()

    def _follow(self, call: Call, deadline: float | None) -> None:
        call.waiter = gate = allocate_lock()
        gate.acquire()
        self._followers.append(call)
        try:
            self._lock.release()  # inside: a signal handler may raise as soon as it returns
            gate.acquire(True, -1 if deadline is None else min(max(deadline - time.monotonic(), 0), TIMEOUT_MAX))
        finally:
            self._lock.acquire()
            self._followers.remove(call)
            call.waiter = None

    def _lead(self, call: Call, deadline: float | None) -> None:
        self._is_led = True
        try:
            while not call.is_done:
                remaining = None if deadline is None else max(deadline - time.monotonic(), 0)
                is_sending = self._link.has_unsent
                is_awake = False
                try:
                    self._lock.release()
                    is_awake = self._sleep(is_sending, remaining)
                finally:
                    self._lock.acquire()
                if is_awake:
                    os.read(self._wake_read_fd, 64)
                if self._is_closed:
                    return
                self._exchange()
                if remaining == 0:
                    return
        finally:
            self._is_led = False
            if self._is_closed:
                self._close_descriptors()

    def _pass_lead(self) -> None:
        # Those that are done have been woken already, and would not read on.
        heir = next((call for call in self._followers if not call.is_done), None)
        if heir is not None:
            self._open_gate(heir)

    def _end(self, calls: list[Call]) -> None:
        for call in calls:
            if call.waiter is not None:
                self._open_gate(call)

    @staticmethod
    def _open_gate(call: Call) -> None:
        if call.waiter.locked():  # opened twice before its owner woke: once is enough
            call.waiter.release()

    def _wake_leader(self) -> None:
        if self._is_led:
            try:
                os.write(self._wake_write_fd, b"\0")
            except BlockingIOError:
                pass  # full of wake-ups already

    def _close_descriptors(self) -> None:
        self._link.close()
        os.close(self._wake_read_fd)
        os.close(self._wake_write_fd)

    # -- without the lock ------------------------------------------------------------------------------------------------

    def _sleep(self, is_sending: bool, timeout: float | None) -> bool:
        """Sleep until the socket or the wake-up pipe is ready; return whether it is the pipe. Only the leader."""
        poller = select.poll()
        poller.register(self._link, select.POLLIN | (select.POLLOUT if is_sending else 0))
        poller.register(self._wake_read_fd, select.POLLIN)
        ready = poller.poll(None if timeout is None else min(timeout, _LONGEST_POLL) * 1000)
        return any(fd == self._wake_read_fd for fd, _bits in ready)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _closed() -> HostError:
    return HostError("connection to the host is closed", "This client closed it.")
