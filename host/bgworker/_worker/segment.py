"""Shared memory segments as a worker has them: the mapping, its first user's part, and its locks (C31).

The host makes the memory and says whom a crash concerns; it never looks inside. The first
page says how far the first user is (``_shm.layout``), written under a lock of its own, so
that nobody sees a segment half-made: who finds an initialiser that ended half-way clears the
memory and begins again. ``bgworker.worker`` and ``bgworker.aio`` are the faces of this file.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from bgworker._shm.layout import SEGMENT_BEGUN, SEGMENT_HEADER_SIZE, SEGMENT_READY, SEGMENT_STATE, SEGMENT_UNTOUCHED
from bgworker._worker import kernel_locks
from bgworker._worker.refusals import UsageError, refuse_in_event_loop, refuse_outside_main_thread
from bgworker._worker.runtime import current
from bgworker.errors import SharedMemoryError, WaitTimeout

if TYPE_CHECKING:
    import asyncio

    from bgworker._worker.runtime import Runtime

#: Seconds that the host may take to answer; it does so out of its own memory.
REPLY_TIMEOUT: Final = 30.0
#: Cleared at a time, so that no second segment of memory is needed to clear one.
_CLEAR_BYTES: Final = 1 << 20


class Segment:
    """Memory that this worker shares with others. It stays attached as long as the process lives.

    Made by ``bgworker.worker.shared_memory()``, never directly.
    """

    def __init__(self, runtime: Runtime, name: str, size: int, generation: int, fd: int) -> None:
        self._runtime = runtime
        self._name, self._size, self._generation = name, size, generation
        # Never closed, and neither is the mapping, which has a descriptor of its own: see kernel_locks.
        self._fd = fd
        self._mapping = mmap.mmap(fd, SEGMENT_HEADER_SIZE + size)
        self._buffer = memoryview(self._mapping)[SEGMENT_HEADER_SIZE:]
        #: Locks that this process holds, and in an async worker those that a task waits for.
        self._held: set[int] = set()
        self._turns: dict[int, asyncio.Lock] = {}

    def __repr__(self) -> str:
        return f"<Segment {self._name!r} of {self._size} bytes>"

    @property
    def name(self) -> str:
        """Its name in this host."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes in ``buffer``."""
        return self._size

    @property
    def generation(self) -> int:
        """How often memory of this name has been made: one more after each crash that took it."""
        return self._generation

    @property
    def buffer(self) -> memoryview:
        """The memory itself, writable. What others write shows at once; a lock keeps them from writing meanwhile."""
        return self._buffer

    def lock(self, name: str = "", timeout: float | None = None) -> SegmentLock:
        """Return a block that holds the segment's lock of this name: ``with segment.lock("counters"):``.

        One process at a time is inside. A process that dies inside gives the lock up, however
        it dies. SIGTERM raises nothing inside; it ends the wait for the lock, once signals are
        unblocked, and is raised at the end of the block otherwise. In an async worker:
        ``async with``.

        Args:
            name: Any text; locks of different names do not wait for each other.
            timeout: Seconds to wait for it; None waits as long as it takes.

        Raises:
            WaitTimeout: The timeout passed.
            DeadlockDetected: Its holder waits for a lock that this process holds.
            Terminated: The worker has been told to end.
            UsageError: This process holds it already, or is no worker.
        """
        what = f'lock "{name}"' if name else "the lock"
        return SegmentLock(self, kernel_locks.offset_of(name), f'{what} of shared memory segment "{self._name}"', timeout)

    def prepare(self, initialise: Callable[[Segment], object] | None, *, may_be_first: bool) -> None:
        """Return when the memory is ready for use; make it so if nobody has."""
        if not self._is_ready():
            with self._initialisation():
                self._make_ready(initialise, may_be_first=may_be_first)

    async def prepare_async(self, initialise: Callable[[Segment], object] | None, *, may_be_first: bool) -> None:
        """The same in an event loop."""
        if not self._is_ready():
            async with self._initialisation():
                self._make_ready(initialise, may_be_first=may_be_first)

    def _initialisation(self) -> SegmentLock:
        what = f'initialisation of shared memory segment "{self._name}"'
        return SegmentLock(self, kernel_locks.INITIALISATION, what, None)

    def _is_ready(self) -> bool:
        return bool(SEGMENT_STATE.unpack_from(self._mapping)[0] == SEGMENT_READY)

    def _make_ready(self, initialise: Callable[[Segment], object] | None, *, may_be_first: bool) -> None:
        (state,) = SEGMENT_STATE.unpack_from(self._mapping)
        if state == SEGMENT_READY:
            return
        if not may_be_first:
            raise SharedMemoryError(
                f'shared memory segment "{self._name}" is not initialised',
                "The worker that made it ended before it was ready, and this one gives neither a size nor an initialiser.",
                "Give both in every worker that may come first.",
            )
        try:
            # Now, while there can be an error: memory that is missing at the first write ends the process with SIGBUS.
            os.posix_fallocate(self._fd, 0, SEGMENT_HEADER_SIZE + self._size)
        except OSError as error:
            raise SharedMemoryError(
                f'could not get the memory of shared memory segment "{self._name}": {error.strerror}',
                f"It has {self._size} bytes.",
            ) from None
        if state != SEGMENT_UNTOUCHED:
            for begin in range(0, self._size, _CLEAR_BYTES):
                part = self._buffer[begin : begin + _CLEAR_BYTES]
                part[:] = bytes(len(part))
        SEGMENT_STATE.pack_into(self._mapping, 0, SEGMENT_BEGUN)
        if initialise is not None:
            initialise(self)
        SEGMENT_STATE.pack_into(self._mapping, 0, SEGMENT_READY)


class SegmentLock:
    """The block of ``Segment.lock()``, for ``with`` and, in an async worker, ``async with``."""

    def __init__(self, segment: Segment, offset: int, what: str, timeout: float | None) -> None:
        self._segment = segment
        self._offset = offset
        self._what = what
        self._timeout = timeout

    def __enter__(self) -> None:
        refuse_in_event_loop("with segment.lock()", "async with segment.lock()")
        refuse_outside_main_thread("segment.lock()")
        segment = self._segment
        runtime = self._refuse_in_child()
        if self._offset in segment._held:
            raise self._held_already()
        interrupts = runtime.interrupts
        # From here to the end of the block no handler raises: first because it is deferred, then because it is held.
        interrupts.deferred += 1
        try:
            if not kernel_locks.try_lock(segment._fd, self._offset):
                runtime.activity.wait_event("SharedMemoryLock")
                try:
                    if not kernel_locks.wait_for_lock(runtime, segment._fd, self._offset, self._timeout):
                        raise self._timed_out()
                finally:
                    runtime.activity.wait_event("")
            segment._held.add(self._offset)
            interrupts.held += 1
        finally:
            interrupts.deferred -= 1

    def __exit__(self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._give_up(error)

    async def __aenter__(self) -> None:
        import asyncio  # 30 ms, of which a blocking worker has nothing

        segment = self._segment
        runtime = self._refuse_in_child()
        runtime.interrupts.check()
        # Tasks of this process take turns among themselves first: to the kernel they are one owner.
        turn = segment._turns.setdefault(self._offset, asyncio.Lock())
        try:
            async with asyncio.timeout(self._timeout):
                await turn.acquire()
                try:
                    if not kernel_locks.try_lock(segment._fd, self._offset):
                        await self._wait()
                except BaseException:
                    turn.release()
                    raise
        except TimeoutError:
            raise self._timed_out() from None
        segment._held.add(self._offset)
        runtime.interrupts.held += 1

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._give_up(error)
        self._segment._turns[self._offset].release()

    async def _wait(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def settle() -> None:
            if not over.done():
                over.set_result(None)

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:
                pass  # the loop has been closed: nobody waits any more

        waiter = kernel_locks.Waiter(self._segment._fd, self._offset, notify)
        try:
            await over
        except BaseException:
            if waiter.cancel():
                kernel_locks.unlock(self._segment._fd, self._offset)
            raise
        waiter.check()

    def _give_up(self, error: BaseException | None) -> None:
        segment = self._segment
        kernel_locks.unlock(segment._fd, self._offset)
        segment._held.discard(self._offset)
        interrupts = segment._runtime.interrupts
        interrupts.held -= 1
        interrupts.resume(error)

    def _refuse_in_child(self) -> Runtime:
        runtime = current()  # there is none in a process that a worker has forked
        assert runtime is self._segment._runtime
        return runtime

    def _held_already(self) -> UsageError:
        return UsageError(f"{self._what} is held already", "This process is inside of another block of the same lock.")

    def _timed_out(self) -> WaitTimeout:
        return WaitTimeout(f"timed out waiting for {self._what}", f"Another process held it for {self._timeout} s.")


def request_of(runtime: Runtime, name: str, size: int | None) -> dict[str, Any] | None:
    """Return what to ask the host for, or None when the process has the segment already.

    Raises:
        UsageError: Name or size has the wrong type.
        SharedMemoryError: The process has it, with another size.
    """
    if not isinstance(name, str) or not (size is None or (isinstance(size, int) and not isinstance(size, bool))):
        raise UsageError("shared_memory() needs a name and a whole number of bytes", f"It was given {name!r} and {size!r}.")
    segment = runtime.segments.get(name)
    if segment is not None and size not in (None, segment.size):
        raise SharedMemoryError(
            f'shared memory segment "{name}" has another size: {segment.size} bytes, not {size}',
            "This worker has attached to it before.",
        )
    return {"name": name, "size": size} if segment is None else None


def take(runtime: Runtime, answer: dict[str, Any]) -> None:
    """Map what the host has answered with."""
    (fd,) = answer["fds"]
    name, size = str(answer["name"]), int(answer["size"])
    try:
        runtime.segments[name] = Segment(runtime, name, size, int(answer["generation"]), fd)
    except OSError as error:
        os.close(fd)
        raise SharedMemoryError(
            f'could not map shared memory segment "{name}": {error.strerror}', f"It has {size} bytes."
        ) from None
