"""A host that the test plays: births of real worker processes, and both ends of what they are born with."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tests.integration.stillness import is_asleep

from bgworker._control.protocol import Decoder, Message, decode, encode
from bgworker._shm.layout import ActivityRecord, InconsistentTable, SlotRecord, read_activity
from bgworker._shm.table import ActivityTable, SlotTable
from bgworker._spec import BackgroundWorker
from bgworker._worker.main import Boot, run

#: Longest wait for any condition.
DEADLINE = 20.0
#: Where the modules with the workers' functions are.
HERE = Path(__file__).parent
SLOTS = 4


def inheritable_fds() -> set[str]:
    """Return the descriptors above the standard streams that this process hands down, as text."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            if int(fd) > 2 and os.get_inheritable(int(fd)):
                found.add(fd)
        except OSError:
            pass  # the one that listed the directory
    return found


class Deadline:
    """Counts down; a test that waits for something that does not come fails with what it waited for."""

    def __init__(self, what: str, seconds: float = DEADLINE) -> None:
        self._what = what
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left."""
        left = self._at - time.monotonic()
        assert left > 0, f"nothing happened: waited for {self._what}"
        return left


class Life:
    """One worker process and the host's ends of what it holds."""

    def __init__(self, tables: tuple[SlotTable, ActivityTable], *, executed: bool) -> None:
        self._activity = tables[1]
        self.channel, theirs = socket.socketpair()
        lifeline, self._lifeline_end = os.pipe()
        out, their_out = os.pipe()
        err, their_err = os.pipe()
        self._pipes = {"out": out, "err": err}
        self._text = {"out": b"", "err": b""}
        self._decoder = Decoder()
        self._arrived: list[Message] = []
        self._last_request = 0
        self.status: int | None = None
        sys.stdout.flush()
        # As the loader bears: blocked across the fork, or a signal could meet the handlers of this process in the other.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGQUIT})
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                for fd, number in ((their_out, 1), (their_err, 2), (os.open("/dev/null", os.O_RDONLY), 0)):
                    os.dup2(fd, number)
                for fd in (out, err, their_out, their_err, self._lifeline_end, self.channel.fileno()):
                    os.close(fd)
                boot = Boot(theirs.detach(), lifeline, tables[0].read_only_fd, tables[1].fd)
                if executed:
                    execute(boot)
                run(boot)
            finally:
                os._exit(99)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        for fd in (lifeline, their_out, their_err):
            os.close(fd)
        self._pidfd = os.pidfd_open(self.pid)

    # -- the channel -----------------------------------------------------------------------------------------------------

    def assign(self, function: str, arg: Any = None, *, library: str = "functions", slot: int = 1, **keys: Any) -> None:
        """Tell the blank worker what it is; settings, database and python_path are the message's, other keys the worker's."""
        parts: dict[str, Any] = {key: keys.pop(key) for key in ("settings", "database", "python_path") if key in keys}
        worker = BackgroundWorker(
            **{"bgw_name": "tested", "bgw_main_arg": arg, "bgw_library_name": library, "bgw_function_name": function, **keys}
        )
        self.send(
            {
                "type": "assign",
                "slot": slot,
                "generation": 7,
                "worker": worker.to_dict(),
                "settings": {},
                "database": None,
                "python_path": [str(HERE)],
                "host_pid": os.getpid(),
                "host_version": "0",
                "max_worker_processes": SLOTS,
                **parts,
            }
        )

    def send(self, message: Message) -> None:
        """Send one message."""
        self.channel.sendall(encode(message))

    def receive(self, what: str = "a message") -> Message:
        """Return the next message of the worker."""
        deadline = Deadline(what)
        while not self._arrived:
            self.channel.settimeout(deadline.left)
            data = self.channel.recv(65536)
            assert data, f"channel closed while waiting for {what}; stderr: {self.read('err', wait=False)!r}"
            self._arrived += [decode(line) for line in self._decoder.feed(data)]
        return self._arrived.pop(0)

    def expect_started(self) -> None:
        """See the worker reach its function."""
        message = self.receive("started")
        assert message["type"] == "started", message

    def serve(self, method: str, result: dict[str, Any]) -> Message:
        """Answer the next request, which must be for this method."""
        request = self.receive(f"request {method}")
        assert request.get("method") == method, request
        self.send({"id": request["id"], "result": result})
        return request

    # -- output ----------------------------------------------------------------------------------------------------------

    def read(self, which: str, *, wait: bool = True) -> str:
        """Return everything written so far; with wait, until the worker's end of the pipe is closed."""
        deadline = Deadline(f"end of std{which}")
        fd = self._pipes[which]
        while select.select([fd], [], [], deadline.left if wait else 0)[0]:
            data = os.read(fd, 65536)
            if not data:
                break
            self._text[which] += data
        return self._text[which].decode()

    def read_until(self, text: str, which: str = "out") -> str:
        """Read until this has been written."""
        deadline = Deadline(f"{text!r} on std{which}")
        while text not in self._text[which].decode():
            assert select.select([self._pipes[which]], [], [], deadline.left)[0], deadline.left
            data = os.read(self._pipes[which], 65536)
            self._text[which] += data
            assert data, f"worker exited; stdout {self._text['out']!r} stderr {self.read('err', wait=False)!r}, wanted {text!r}"
        return self._text[which].decode()

    def read_byte(self) -> bytes:
        """Return one byte of standard output."""
        return os.read(self._pipes["out"], 1)

    def activity(self, slot: int = 1) -> ActivityRecord:
        """Return what the worker says about itself."""
        data = os.pread(self._activity.read_only_fd, 512 * SLOTS, 0)
        return read_activity(data, slot)

    def wait_for_activity(self, **fields: str) -> None:
        """Wait until the worker says this about itself."""
        deadline = Deadline(f"activity {fields}")
        while deadline.left:
            try:
                record = self.activity()
            except InconsistentTable:
                continue  # one copy of the bytes can be torn; the next one is another copy
            if all(getattr(record, key) == value for key, value in fields.items()):
                return
            os.sched_yield()

    # -- life and death ----------------------------------------------------------------------------------------------------

    def signal(self, signum: int) -> None:
        """Signal the worker."""
        signal.pidfd_send_signal(self._pidfd, signum)

    def wait_until_asleep(self) -> None:
        """Wait until the kernel says that the worker sleeps."""
        deadline = Deadline("the worker to sleep")
        while deadline.left:
            if is_asleep(self.pid):
                return
            os.sched_yield()

    def die_as_host(self) -> None:
        """Close what only the host holds, as the kernel does when the host dies."""
        os.close(self._lifeline_end)
        self._lifeline_end = -1
        self.channel.close()

    def is_gone(self, seconds: float) -> bool:
        """Whether the worker exits within so many seconds."""
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def wait(self) -> int:
        """Reap the worker; return its exit code, or minus the number of the signal."""
        if self.status is None:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if not poller.poll(DEADLINE * 1000):
                self.close()
                raise AssertionError(f"worker does not exit; stderr: {self._text['err']!r}")
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def close_output(self) -> None:
        """Close the collector's ends."""
        for fd in self._pipes.values():
            os.close(fd)
        self._pipes.clear()

    def close(self) -> None:
        """Kill what still runs, and close everything."""
        if self.status is None:
            self.signal(signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        for stream, fd in self._pipes.items():
            self.read(stream, wait=False)
            os.close(fd)
        self._pipes.clear()
        self.channel.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._lifeline_end >= 0:
            os.close(self._lifeline_end)
            self._lifeline_end = -1


def execute(boot: Boot) -> None:
    """Become a fresh interpreter, as the loader does for workers that are not preloaded."""
    pairs = (
        ("--channel", boot.channel_fd),
        ("--lifeline", boot.lifeline_fd),
        ("--slot-table", boot.slot_table_fd),
        ("--activity", boot.activity_fd),
    )
    for _option, fd in pairs:
        os.set_inheritable(fd, True)
    arguments = [text for option, fd in pairs for text in (option, str(fd))]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "bgworker._worker", *arguments])


class PlayedHost:
    """The tables, and the workers born so far."""

    def __init__(self) -> None:
        self.slot_table = SlotTable(SLOTS)
        self.activity_table = ActivityTable(SLOTS)
        self.lives: list[Life] = []

    def bear(self, *, executed: bool = False) -> Life:
        """Give birth to a blank worker."""
        self.lives.append(Life((self.slot_table, self.activity_table), executed=executed))
        return self.lives[-1]

    def start(self, function: str, arg: Any = None, *, executed: bool = False, **keys: Any) -> Life:
        """Give birth, assign, and wait until the function is about to be called."""
        life = self.bear(executed=executed)
        life.assign(function, arg, **keys)
        life.expect_started()
        return life

    def publish(self, slotno: int, record: SlotRecord) -> None:
        """Write a slot's record."""
        self.slot_table.write(slotno, record)

    def close(self) -> None:
        """End everything."""
        for life in self.lives:
            life.close()
        self.slot_table.close()
        self.activity_table.close()
