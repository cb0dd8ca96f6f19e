"""Birth: a child that belongs to the caller's parent from its first instruction.

The loader must not be the parent of the workers: their exits would be its to reap, and
SIGKILL of it would orphan them all. Two ways lead around that, tried in this order:

1. ``clone(CLONE_PARENT)``: the kernel makes the child a sibling of the caller. Python knows
   only fork(), so the call is wrapped in PyOS_BeforeFork and PyOS_AfterFork_*, which is what
   os.fork() does around its own system call (Modules/posixmodule.c). glibc's fork() does two
   things more that matter to a single-threaded process and that are done here by hand: the
   new thread's id is written to the address the C library keeps it at (CLONE_CHILD_SETTID on
   PR_GET_TID_ADDRESS), and the robust futex list, which the kernel clears, is set again.
   glibc's own atfork handlers (malloc's lock among them) are not run: with one task nobody
   else can hold a lock, which is why a second task forbids this way.
2. Fork twice: the child in the middle exits at once, and the nearest subreaper - the host
   has asked to be it - adopts the grandchild.

Measured against the obvious third, a loader that forks and passes exit codes on: SIGKILL of
the loader then kills its workers, and SIGKILL of the host kills neither.

Who may call: the loader (workers) and the database process (PostgreSQL).
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from typing import Final

from bgworker._process.prctl import task_count

_CLONE_PARENT: Final = 0x00008000  # <linux/sched.h>
_CLONE_CHILD_CLEARTID: Final = 0x00200000
_CLONE_CHILD_SETTID: Final = 0x01000000
_PR_GET_TID_ADDRESS: Final = 40  # <linux/prctl.h>

#: Numbers of clone, get_robust_list, set_robust_list where this way is known to hold; clone's argument order differs.
_SYSCALLS: Final = {"x86_64": (56, 274, 273), "aarch64": (220, 100, 99)}

_libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter lock: no other thread may run between the system call and PyOS_AfterFork_*.
_libc_locked = ctypes.PyDLL(None, use_errno=True)
_libc_locked.syscall.restype = ctypes.c_long


class TooManyThreads(RuntimeError):  # noqa: N818 - a state of the process
    """The process has more than one thread, so that a clone of it would inherit locks nobody releases."""


class _Clone:
    """The addresses that a raw clone needs, asked from the kernel once."""

    def __init__(self) -> None:
        self.numbers = _SYSCALLS[platform.machine()]
        self.tid_address = ctypes.c_void_p()
        if _libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(self.tid_address), 0, 0, 0) != 0 or not self.tid_address.value:
            raise OSError(ctypes.get_errno(), "the kernel does not tell where the thread id lives")
        self.robust_list = ctypes.c_void_p()
        self.robust_size = ctypes.c_size_t()
        if _libc.syscall(self.numbers[1], 0, ctypes.byref(self.robust_list), ctypes.byref(self.robust_size)) != 0:
            raise OSError(ctypes.get_errno(), "get_robust_list failed")

    def __call__(self) -> int:
        flags = _CLONE_PARENT | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID | signal.SIGCHLD
        tid_address = self.tid_address.value
        # x86_64: flags, stack, parent tid, child tid, tls; aarch64: flags, stack, parent tid, tls, child tid.
        last = (tid_address, None) if platform.machine() == "x86_64" else (None, tid_address)
        arguments = (ctypes.c_ulong(flags), None, None, *map(ctypes.c_void_p, last))
        ctypes.pythonapi.PyOS_BeforeFork()
        pid: int = _libc_locked.syscall(ctypes.c_long(self.numbers[0]), *arguments)
        error = ctypes.get_errno()
        if pid == 0:
            _libc_locked.syscall(ctypes.c_long(self.numbers[2]), self.robust_list, self.robust_size)
            ctypes.pythonapi.PyOS_AfterFork_Child()
            return 0
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(error, f"clone: {os.strerror(error)}")
        return pid


def _fork_twice() -> int:
    """Fork a grandchild that the nearest subreaper adopts; return its pid, or 0 in it."""
    read_fd, write_fd = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            os.close(read_fd)
            middle_pid = os.getpid()
            pid = os.fork()
            if pid:
                os.write(write_fd, str(pid).encode())
                os._exit(0)
            os.close(write_fd)
            _await_adoption(middle_pid)
            return 0
        except OSError as error:
            os.write(write_fd, f"-{error.errno}".encode())
            os._exit(1)
    os.close(write_fd)
    answer = os.read(read_fd, 32)
    os.close(read_fd)
    os.waitpid(middle, 0)
    pid = int(answer or b"-1")
    if pid < 0:
        raise OSError(-pid, f"fork: {os.strerror(-pid)}")
    return pid


def _await_adoption(middle_pid: int) -> None:
    # The process in the middle exits right after its one write; until the kernel has moved us on, the parent's pid is its.
    while os.getppid() == middle_pid:
        os.sched_yield()


_clone: _Clone | None = None
_is_probed = False


def probe() -> str:
    """Try the first way once, on a child that exits at once; say which way births take: "clone" or "fork twice".

    The probe's child is reaped by the caller's parent, as every child born here: it exits with code 0.
    """
    global _clone, _is_probed
    _is_probed = True
    _clone = None
    if not sys.platform.startswith("linux") or platform.machine() not in _SYSCALLS:
        return "fork twice"
    parent = os.getppid()
    read_fd, write_fd = os.pipe()
    try:
        clone = _Clone()
        if clone() == 0:
            os.write(write_fd, b"+" if os.getppid() == parent else b"-")
            os._exit(0)
        os.close(write_fd)
        write_fd = -1
        if os.read(read_fd, 1) == b"+":
            _clone = clone
    except OSError:
        pass  # a seccomp filter forbids CLONE_PARENT; PID 1 of a namespace has no parent to share
    finally:
        os.close(read_fd)
        if write_fd >= 0:
            os.close(write_fd)
    return "clone" if _clone else "fork twice"


def clone_parent() -> int:
    """Fork, but make the child a child of the caller's parent. Return its pid, or 0 in the child.

    Raises:
        TooManyThreads: The process has a second thread.
        OSError: The kernel refused (EAGAIN, ENOMEM); it can work later.
    """
    if not _is_probed:
        probe()
    if task_count() != 1:
        raise TooManyThreads("a process with threads cannot be cloned safely")
    return _clone() if _clone else _fork_twice()
