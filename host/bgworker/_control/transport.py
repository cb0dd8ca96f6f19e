"""How a client reaches the host of a data directory: socket, peer check, greeting, shared tables.

Blocking, and over once the greeting is in: what follows is ``link``, which never blocks. Both
clients use this file. Only cheap modules are imported, since ``status --json`` waits for it.

Nothing here writes into the data directory or takes its locks: a client that looked for the
host with a lock of its own could keep a host from starting.
"""

from __future__ import annotations

import mmap
import os
import socket
import stat
import struct
import time

from bgworker._control.protocol import Message
from bgworker._control.session import Greeting, read_greeting
from bgworker._shm.layout import (
    ACTIVITY_SIZE,
    ActivityRecord,
    InconsistentTable,
    SlotRecord,
    read_activity,
    read_slot,
    slot_table_size,
    unpack_header,
)
from bgworker.errors import HostError, HostNotRunning, PermissionDenied, ProtocolError, WaitTimeout

__all__ = ["Attachment", "Tables", "attach", "fill_activity", "last_heard_of"]

#: Where the socket is, below the data directory.
_SOCKET_DIRECTORY = "run"
_SOCKET_NAME = "control.sock"
#: How long a host may take to say hello, in seconds; it is one thread that never blocks, so more means it hangs or is stopped.
GREETING_TIMEOUT = 10.0
#: A greeting is about a hundred bytes; what is longer comes from no host.
_MAX_GREETING_BYTES = 4096
#: struct ucred of unix(7) and struct timeval of socket(7).
_UCRED = struct.Struct("iII")
_TIMEVAL = struct.Struct("ll")


class Tables:
    """Both shared tables, mapped read-only. May be stale when you read them, never torn.

    There is no close: the mappings go with the last reference, so that no other thread can be
    in the middle of a read.

    Raises:
        ProtocolError: These are not the tables of the host that sent the greeting.
    """

    def __init__(self, greeting: Greeting, slot_table_fd: int, activity_fd: int) -> None:
        slots = greeting.max_worker_processes
        self.slots = slots
        self._slots = _map(slot_table_fd, slot_table_size(slots))
        self._activity = _map(activity_fd, slots * ACTIVITY_SIZE)
        try:
            header = unpack_header(self._slots[:64].tobytes())
        except InconsistentTable as error:
            raise ProtocolError(f"slot table of the host cannot be read: {error}") from None
        if header != (slots, greeting.pid):
            raise ProtocolError("slot table belongs to another host than the one that sent it")

    def read_slot(self, slotno: int) -> SlotRecord:
        """Return one slot's record.

        Raises:
            InconsistentTable: The record is being written, for longer than a reader waits.
        """
        return read_slot(self._slots, slotno)

    def read_activity(self, slotno: int) -> ActivityRecord:
        """Return what the worker in the slot last said about itself.

        Raises:
            InconsistentTable: The worker died while it wrote.
        """
        return read_activity(self._activity, slotno)


def _map(fd: int, size: int) -> memoryview:
    # Sealed by the host; a file that is too short all the same would be SIGBUS at the first read.
    if os.fstat(fd).st_size < size:
        raise ProtocolError("shared table of the host is shorter than its greeting says")
    return memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ))


def fill_activity(status: Message, tables: Tables) -> None:
    """Write into a status what the workers say of themselves; the host never reads it, so its answer leaves that empty."""
    for slot in status.get("slots", ()):
        # Between two lives the record still has the last words of the one before.
        if slot.get("pid") is None or not 0 <= slot["slot"] < tables.slots:
            continue
        try:
            record = tables.read_activity(slot["slot"])
        except InconsistentTable:
            continue
        if record.generation == slot["generation"]:
            slot["activity"] = {"state": record.state, "text": record.text, "wait_event": record.wait_event}


class Attachment:
    """A connected socket whose greeting has been read."""

    def __init__(self, data_directory: str, connected: socket.socket, greeting: Greeting, tables: Tables) -> None:
        self.data_directory = data_directory
        self.socket = connected
        self.greeting = greeting
        self.tables = tables


def attach(data_directory: str, timeout: float = GREETING_TIMEOUT) -> Attachment:
    """Connect to the host of a data directory and take its greeting.

    Args:
        data_directory: An absolute path.
        timeout: Seconds the host may take.

    Raises:
        HostNotRunning: Nobody listens there.
        PermissionDenied: This user may not connect, or what listens there is not the directory's owner.
        ProtocolError: What listens there is no host of this version.
        WaitTimeout: A host is there and does not answer.
        HostError: The host turned this client away.
    """
    deadline = time.monotonic() + timeout
    connected = _connect(data_directory, timeout)
    try:
        greeting, tables = _receive_greeting(connected, data_directory, deadline)
        connected.setblocking(False)
    except BaseException:
        connected.close()
        raise
    return Attachment(data_directory, connected, greeting, tables)


def _connect(data_directory: str, timeout: float) -> socket.socket:
    directory = os.path.join(data_directory, _SOCKET_DIRECTORY)
    path = os.path.join(directory, _SOCKET_NAME)
    # O_PATH asks for no permission on the directory itself, only on the way to it.
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    candidate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory_fd = os.open(directory, flags)
        try:
            found = os.stat(_SOCKET_NAME, dir_fd=directory_fd, follow_symlinks=False)
            if not stat.S_ISSOCK(found.st_mode):
                raise _distrust(path, "it is not a socket")
            # Blocking, with the kernel's own time-out: a non-blocking connect to a full backlog fails at once (unix(7)).
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6)))
            candidate.connect(_short_path(directory_fd, path))
            _check_peer(candidate, path, owner=os.fstat(directory_fd).st_uid)
        finally:
            os.close(directory_fd)
    except BaseException as error:
        candidate.close()
        if isinstance(error, OSError) and not isinstance(error, HostError):
            raise _connect_error(error, data_directory, directory, path) from None
        raise
    return candidate


def _short_path(directory_fd: int, path: str) -> str:
    """Return a name for the socket that the kernel takes: sun_path holds 107 bytes, and the path may be longer."""
    link = f"/proc/self/fd/{directory_fd}"
    return f"{link}/{_SOCKET_NAME}" if os.path.exists(link) else path


def _check_peer(connected: socket.socket, path: str, owner: int) -> None:
    """Refuse a listener that is neither us, nor root, nor the owner of the directory in which it listens."""
    if not hasattr(socket, "SO_PEERCRED"):
        return  # other systems: the directory's permissions must do
    _pid, uid, _gid = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid not in (0, os.geteuid(), owner):
        raise _distrust(path, f"user {uid} listens there, and the directory belongs to user {owner}")


def _distrust(path: str, reason: str) -> PermissionDenied:
    return PermissionDenied(
        f'control socket "{path}" cannot be trusted: {reason}',
        "A host listens on a socket of its own, in a directory that only its owner can change.",
        "Look who put it there before you connect.",
    )


def _connect_error(error: OSError, data_directory: str, directory: str, path: str) -> HostError:
    if isinstance(error, PermissionError):
        return PermissionDenied(
            f'could not connect to the host in "{data_directory}": permission denied',
            f"Connecting to {path} failed.",
            "Connect as the user who runs the host, as root, or as a member of its control_group.",
        )
    if isinstance(error, BlockingIOError):
        return _silent(data_directory, "It does not accept connections.")
    if os.path.islink(directory):
        return _distrust(directory, "it is a symbolic link")
    if isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionRefusedError):
        return _not_running(data_directory, f"Nobody listens on {path}.")
    return HostNotRunning(f'could not connect to the host in "{data_directory}": {error.strerror}', f"Connecting to {path} failed.")


def _not_running(data_directory: str, detail: str) -> HostNotRunning:
    if not os.path.isdir(data_directory):
        detail = "The directory does not exist."
    elif heard := last_heard_of(data_directory):
        detail += f" The last host there has been down since about {heard}."
    return HostNotRunning(
        f'no host is running in "{data_directory}"',
        detail,
        "Start it with: bgworker run - or name another data directory with -D or BGWORKER_DATA.",
    )


def last_heard_of(data_directory: str) -> str | None:
    """Return when a host that is down last left a trace here, as RFC 3339; None when none ever ran or it cannot be told.

    A host that was killed writes no farewell. Its collector notes the end in log/host.log; where that is
    not written, or is an earlier host's, history.jsonl has the last exit, and the lock file the time of the start.
    """
    changed_at = 0.0
    for name in ("log/host.log", "history.jsonl", "host.lock"):
        try:
            changed_at = max(changed_at, os.stat(os.path.join(data_directory, name)).st_mtime)
        except OSError:
            continue
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(changed_at)) if changed_at else None


def _silent(data_directory: str, detail: str) -> WaitTimeout:
    return WaitTimeout(
        f'host in "{data_directory}" does not answer',
        detail,
        "It may have been stopped with SIGSTOP, or be short of processor time.",
    )


def _receive_greeting(connected: socket.socket, data_directory: str, deadline: float) -> tuple[Greeting, Tables]:
    line = bytearray()
    fds: list[int] = []
    try:
        while b"\n" not in line:
            connected.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data, arrived = _receive_with_fds(connected)
            except TimeoutError:
                raise _silent(data_directory, "It accepted the connection, and its greeting did not come.") from None
            except ConnectionError:
                data, arrived = b"", []
            fds += arrived
            line += data
            if not data:
                raise HostNotRunning(f'host in "{data_directory}" closed the connection instead of a greeting')
            if len(line) > _MAX_GREETING_BYTES:
                raise ProtocolError("what listens on the control socket is not a bgworker host")
        greeting = read_greeting(bytes(line.partition(b"\n")[0]))
        if len(fds) != 2:
            raise ProtocolError(f"greeting of the host came with {len(fds)} descriptors instead of 2")
        return greeting, Tables(greeting, *fds)
    finally:
        # The mappings stay; whatever else was sent along is none of ours.
        for fd in fds:
            os.close(fd)


def _receive_with_fds(connected: socket.socket) -> tuple[bytes, list[int]]:
    # Room for a few more than are due, so that a peer that sends too many is found out.
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, _flags, _address = connected.recvmsg(_MAX_GREETING_BYTES, socket.CMSG_SPACE(4 * 8), flags)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds += struct.unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
    return data, fds
