"""A way into closed directories for one process: a mount namespace of its own.

The service user often cannot reach what PostgreSQL needs: the virtual environment or the
data directory lies below /root, or below what mktemp -d made. Loosening those permissions
would be an attack on the machine's owner. Instead the start-up child, still root, takes a
private copy of the mount table, and covers each closed directory - in that copy only - with
an empty one that can be entered and that holds nothing but the way to what is needed.
Paths stay what they are, inside and outside.

Covering was chosen over binding to directories elsewhere (below /tmp, say): the kernel
unmounts what is mounted on a directory that somebody removes outside, and cleaners of /tmp
remove empty directories. A closed directory on the way to a running server is neither empty
nor in /tmp.

Linux only. Called in the start-up child, between clone and exec.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

_CLONE_NEWNS: Final = 0x00020000  # <linux/sched.h>
_MS_NOSUID: Final = 2  # <linux/mount.h>, also below
_MS_NODEV: Final = 4
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_SLAVE: Final = 1 << 19

_libc = ctypes.CDLL(None, use_errno=True)


class Way(NamedTuple):
    """What must be reachable, and the topmost directory that closes it off."""

    target: str
    closed: str


class NamespaceRefused(OSError):  # noqa: N818 - a finding about the system, not a mistake of the caller
    """The kernel, a container or a security module does not allow a mount namespace."""


def open_ways(ways: Sequence[Way]) -> None:
    """Give this process a mount table in which every target can be reached. Call only in a child, as root.

    Raises:
        NamespaceRefused: A step was refused; its name is in the message.
    """
    if not hasattr(_libc, "unshare") or not hasattr(_libc, "mount"):
        raise NamespaceRefused("this system has no mount namespaces")
    _check(_libc.unshare(_CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    # Slave, not private: nothing of ours gets out, but a file system that is unmounted outside goes here too.
    _mount(None, "/", None, _MS_REC | _MS_SLAVE)
    # The targets are held open while they are covered, and found again through /proc.
    held = [(way.target, os.open(way.target, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)) for way in ways]
    for closed in sorted({way.closed for way in ways}):
        _mount("none", closed, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0711,size=64k")
    for target, fd in held:
        os.makedirs(target, 0o711, exist_ok=True)
        _mount(f"/proc/self/fd/{fd}", target, None, _MS_BIND | _MS_REC)
        os.close(fd)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    result = _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    _check(result, f"mount on {target}")


def _check(result: int, step: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise NamespaceRefused(error, f"{step}: {os.strerror(error)}")
