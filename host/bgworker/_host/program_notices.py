"""What programs say with sd_notify(3): that they are ready, and what they are doing.

One datagram socket in the run directory for all commands with ``ready = "notify"``. The kernel says
which process has sent a datagram, and only a process in the session of such a worker is listened to, so
it needs no secret in its name. Never blocks, opens no file after the start, and is never waited for: who sends
more than is read in a turn waits itself. Where the kernel tells no senders (other systems than Linux), or the
directory's path is longer than the kernel takes, there is no such socket. A name that somebody removes is made
again, as that of the control socket is. Used by the host alone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bgworker._baggage import Baggage
from bgworker._control.protocol import Message
from bgworker._control.socket_name import NOTIFY_NAME, RUN_NAME, Log
from bgworker._host.births import WorkerProcess
from bgworker._loop import Loop
from bgworker._shm.layout import ActivityRecord
from bgworker._shm.table import ActivityTable
from bgworker._spec import printable
from bgworker.errors import ConfigurationError

#: sun_path holds that many bytes and a zero (unix(7)); programs connect by the name as it is.
_LONGEST_PATH: Final = 107
#: Longer datagrams are not read; sd_notify's own users stay far below.
_MAX_BYTES: Final = 4096
#: Read in one turn of the loop; the rest is read in the next one.
_MAX_PER_TURN: Final = 64
#: Read of a socket that has lost its name, at most, so that those who wait for room in its queue get in.
_MAX_AT_END: Final = 1024
#: Longest status that is kept, in characters.
_MAX_STATUS: Final = 200
_CREDENTIALS: Final = struct.Struct("iII")


class ProgramNotices:
    """The host's end of the socket.

    Args:
        loop: The host's loop.
        data_directory: Absolute, ours and writable by nobody else.
        processes: Every worker process, by its pid.
        activities: Where STATUS goes.
        on_message: Called with a process that is ready, and the message that a worker in Python would send.
        log: Is told when the name was lost, and what became of it.
        carried: The socket and what its name leads to, from ``carry`` of this host before it executed itself anew; None makes one.
        baggage: Has its descriptor.

    Raises:
        ConfigurationError: Something that is no socket of ours has the name.
    """

    def __init__(
        self,
        loop: Loop,
        data_directory: str,
        processes: Mapping[int, WorkerProcess],
        activities: ActivityTable,
        on_message: Callable[[WorkerProcess, Message], None],
        log: Log,
        carried: Sequence[int] | None = None,
        baggage: Baggage | None = None,
    ) -> None:
        self._loop, self._processes, self._activities, self._on_message = loop, processes, activities, on_message
        self._log = log
        #: What the log was told last; nothing is said twice in a row.
        self._said = ""
        #: Device and inode that the name led to when it was made. A bound socket holds its inode: nothing else gets the number.
        self._bound: tuple[int, int] = (0, 0)
        #: What a program finds in NOTIFY_SOCKET; empty where there is no such socket.
        self.path = f"{data_directory}/{RUN_NAME}/{NOTIFY_NAME}"
        self._socket: socket.socket | None = None
        if carried is not None and baggage is not None and carried:
            fd, device, inode = carried
            self._bound = (int(device), int(inode))
            self._socket = socket.socket(fileno=baggage.unpack(fd))
            self._socket.setblocking(False)
            loop.add(self._socket, selectors.EVENT_READ, self._read)
            return
        if carried is not None or not hasattr(socket, "SO_PASSCRED") or len(os.fsencode(self.path)) > _LONGEST_PATH:
            self.path = ""
            return
        with contextlib.suppress(FileNotFoundError):
            # Of a dead host: the host lock is held, so it is nobody's.
            if stat.S_ISSOCK(os.lstat(self.path).st_mode):
                os.unlink(self.path)
        try:
            self._socket = self._bind()
        except OSError as error:
            raise ConfigurationError(
                f'could not create socket "{self.path}": {error.strerror or error}',
                "Programs say there that they are ready. What is there and is no socket of a dead host is left untouched.",
            ) from None
        loop.add(self._socket, selectors.EVENT_READ, self._read)

    def renew(self) -> None:
        """Make the name again if it is gone; what stands in its place and is not ours is left alone. Never raises.

        Called when a name in the directory has come or gone, at a reload, and before a program that needs the name is
        executed: a try that has failed is made again then, and not by the clock.
        """
        if self._socket is None or self._is_there():
            return
        try:
            fresh = self._bind()
        except OSError as error:
            if (reason := error.strerror or str(error)) != self._said:
                self._said = reason
                detail = 'Programs with ready = "notify" cannot say that they are ready.'
                hint = "Move away what is there: the host then makes the socket again."
                self._log("WARNING", f'socket "{self.path}" is gone and could not be made again: {reason}', detail, hint)
            return
        former, self._socket = self._socket, fresh
        self._loop.remove(former)
        self._loop.add(fresh, selectors.EVENT_READ, self._read)
        self._end(former)
        self._said = ""
        self._log("LOG", f'socket "{self.path}" was removed and is made again', "", "")

    def carry(self, baggage: Baggage) -> list[int]:
        """Return the socket, if there is one; what programs have said meanwhile waits in it."""
        return [] if self._socket is None else [baggage.pack(self._socket.fileno()), *self._bound]

    def close(self) -> None:
        """Stop listening and remove the name, if it is still ours."""
        if self._socket is not None:
            if self._is_there():
                with contextlib.suppress(OSError):
                    os.unlink(self.path)
            self._loop.remove(self._socket)
            self._socket.close()
            self._socket = None

    def _is_there(self) -> bool:
        """Whether the name leads to our socket."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._bound

    def _bind(self) -> socket.socket:
        """Return a new socket of the name. Once the name is made nothing can fail: it would stand in its own way afterwards.

        Raises:
            OSError: The name is taken, or cannot be made, or was removed at once.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        # Root's workers may have users of their own. Who else could write here is not listened to.
        mask = 0o111 if os.geteuid() == 0 else 0o177
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            before = os.umask(mask)  # the host has one thread
            try:
                listener.bind(self.path)
            finally:
                os.umask(before)
            found = os.lstat(self.path)
        except OSError:
            listener.close()
            raise
        self._bound = (found.st_dev, found.st_ino)
        return listener

    def _end(self, former: socket.socket) -> None:
        """Take everything that was said to a socket that has lost its name, and close it."""
        # Who waits for room in its queue goes on there, or finds the new one by the name once this one is closed.
        self._take_some(former, _MAX_AT_END)
        # Who comes in between is told so, by EPIPE: nothing that was taken is thrown away unread.
        former.shutdown(socket.SHUT_RD)
        while self._take_some(former, _MAX_PER_TURN):
            pass
        former.close()

    def _read(self, _events: int) -> None:
        assert self._socket is not None
        self._take_some(self._socket, _MAX_PER_TURN)

    def _take_some(self, listener: socket.socket, limit: int) -> bool:
        """Take what has been said, so many datagrams at most; return whether there may be more."""
        for _ in range(limit):
            try:
                # Room for the sender alone: the kernel closes descriptors that do not fit.
                data, ancillary, flags, _ = listener.recvmsg(_MAX_BYTES, socket.CMSG_LEN(_CREDENTIALS.size))
            except OSError:
                return False
            if flags & socket.MSG_TRUNC:
                continue
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, getattr(socket, "SCM_CREDENTIALS", None)):
                    self._take(_CREDENTIALS.unpack(payload)[0], data)
        return True

    def _take(self, pid: int, data: bytes) -> None:
        process = self._processes.get(pid) or self._session_of(pid)
        if process is None or process.worker.command is None or not process.worker.says_when_ready:
            return
        lines = data.decode("utf-8", "replace").split("\n")
        for line in lines:
            if line.startswith("STATUS="):
                self._show(process, line.removeprefix("STATUS="))
        if "READY=1" in lines:
            self._on_message(process, {"type": "ready"})

    def _session_of(self, pid: int) -> WorkerProcess | None:
        try:
            return self._processes.get(os.getsid(pid))
        except OSError:
            return None  # it has gone, and nobody can say whose it was

    def begin(self, process: WorkerProcess) -> str:
        """Return what a program that is about to be executed is to find in NOTIFY_SOCKET; its last life's status goes."""
        if process.worker.command is None or not process.worker.says_when_ready:
            return ""
        if self._socket is not None and not self._is_there():
            # Not now: what was said before would be taken in the middle of a birth. It is there long before the program is.
            self._loop.soon(self.renew)
        self._show(process, "")
        return self.path

    def _show(self, process: WorkerProcess, text: str) -> None:
        life = process.life
        shown = printable(text.strip())[:_MAX_STATUS]
        self._activities.write(life.slotno, ActivityRecord(life.generation, state="", wait_event="", text=shown))
