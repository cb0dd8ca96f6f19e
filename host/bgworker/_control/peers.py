"""Who is at the other end of a UNIX socket, as the kernel knows it: user, groups, process.

All of it is what held when the peer connected, and cannot be forged. The host decides by
user and groups, never by the pid: a pid may be somebody else's by now; ``pidfd_of`` cannot.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Final

#: struct ucred of unix(7).
_UCRED: Final = struct.Struct("iII")
_GID: Final = struct.Struct("I")
# Numbers of <asm-generic/socket.h>; the socket module does not name them.
_SO_PEERGROUPS: Final = 59  # Linux 4.13
_SO_PEERPIDFD: Final = 77  # Linux 6.5
#: The longest answer that socket.getsockopt() takes, in bytes; nearly nobody is in more than 256 groups.
_SHORT: Final = 1024
#: All groups that a process can be in: NGROUPS_MAX.
_LONG: Final = 65_536 * _GID.size


def credentials_of(peer: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and primary gid of the process that connected."""
    pid, uid, gid = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


def supplementary_groups_of(peer: socket.socket) -> frozenset[int] | None:
    """Return the supplementary groups of the process that connected; None on a kernel that does not tell."""
    try:
        data = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _SHORT)
    except OSError as error:
        if error.errno != errno.ERANGE:
            return None
        data = _long_answer(peer)
    return frozenset(gid for (gid,) in _GID.iter_unpack(data))


def _long_answer(peer: socket.socket) -> bytes:
    buffer = ctypes.create_string_buffer(_LONG)
    size = ctypes.c_uint(_LONG)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(peer.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size)) != 0:
        return b""
    return buffer.raw[: size.value]


def pidfd_of(peer: socket.socket, pid: int) -> int:
    """Return a descriptor of the process that connected, for the caller to close; never that of another process.

    An older kernel gives the process that has the pid now: the peer, unless it has gone while its
    connection lived on in a child, and the pid is given again.

    Raises:
        OSError: It has ended.
    """
    try:
        fd = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return os.pidfd_open(pid)
    os.set_inheritable(fd, False)
    return fd
