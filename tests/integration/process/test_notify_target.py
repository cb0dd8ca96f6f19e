"""Who gets the SIGUSR1 of bgw_notify_pid: never a process that it would kill, and never a stranger (C13)."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from bgworker._control.connection import Connection
from bgworker._control.peers import pidfd_of
from bgworker._host.callers import Caller, NotifyTarget, survives_sigusr1

#: A process that makes its arrangements for SIGUSR1 and waits to be told to end; exits with 7 if a handler ran.
_PROCESS = """
import os, signal, sys, threading
got = []
{arrangement}
print("ready", flush=True)
try:
    sys.stdin.readline()
finally:
    os._exit(7 if got else 0)
"""
_HANDLER = "signal.signal(signal.SIGUSR1, lambda *_: got.append(1))"
_MASK = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])"
_THREAD = "threading.Thread(target=threading.Event().wait, daemon=True).start()"


@contextmanager
def process(arrangement: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process until the block ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", _PROCESS.format(arrangement=arrangement)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.communicate()


def caller(pid: int, pidfd: int) -> Caller:
    """Return a caller with this pid whose process is held by this descriptor."""
    return Caller(cast(Connection, None), pid, open_pidfd=lambda: os.dup(pidfd))


@pytest.mark.parametrize(
    ("arrangement", "survives"),
    [
        ("pass", False),
        (_HANDLER, True),
        ("signal.signal(signal.SIGUSR1, signal.SIG_IGN)", True),
        (_MASK, True),
        (f"{_MASK}; {_THREAD}", True),  # a thread inherits the mask
        (f"{_THREAD}; {_MASK}", False),  # this one began before it
        (f"{_THREAD}; {_HANDLER}", True),
    ],
    ids=["default", "handler", "ignored", "blocked", "blocked everywhere", "blocked in one thread", "handler and thread"],
)
def test_signal_goes_to_those_alone_who_survive_it(arrangement: str, survives: bool) -> None:
    """C13: a process that SIGUSR1 would kill gets none; whoever handles, ignores or blocks it in every thread does."""
    with process(arrangement) as child:
        pidfd = os.pidfd_open(child.pid)
        target = NotifyTarget(caller(child.pid, pidfd))
        try:
            assert survives_sigusr1(child.pid) is survives
            assert target.is_ready() is survives
            assert target.notify() is survives
        finally:
            target.close()
            os.close(pidfd)
    assert child.returncode == (7 if "lambda" in arrangement else 0)


def test_pid_that_is_given_again() -> None:
    """C13: T28: the process has ended and another one has its pid: that one gets nothing, be it ready for it or not."""
    with process(_HANDLER) as ended:
        pidfd = os.pidfd_open(ended.pid)
    try:
        with process(_HANDLER) as stranger:
            # The pid of a process that lives, and the descriptor of the one that had it before.
            target = NotifyTarget(caller(stranger.pid, pidfd))
            try:
                assert target.is_ready()
                assert not target.notify()
            finally:
                target.close()
        assert stranger.returncode == 0
        assert not survives_sigusr1(ended.pid)
    finally:
        os.close(pidfd)


class OldKernel:
    """A socket on a kernel that fails getsockopt() for what it does not know."""

    def __init__(self, number: int) -> None:
        self._number = number

    def getsockopt(self, *_: Any) -> Any:
        """Refuse."""
        raise OSError(self._number, os.strerror(self._number))


def test_kernel_without_peer_pidfd() -> None:
    """C13: before Linux 6.5 the process is held from the moment of the registration on; an error that is none of age stays one."""
    with process(_HANDLER) as child:
        pidfd = pidfd_of(cast(socket.socket, OldKernel(errno.ENOPROTOOPT)), child.pid)
        try:
            assert not os.get_inheritable(pidfd)
            signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
        finally:
            os.close(pidfd)
    assert child.returncode == 7
    for peer in (OldKernel(errno.ENOPROTOOPT), OldKernel(errno.ESRCH)):
        with pytest.raises(ProcessLookupError):
            pidfd_of(cast(socket.socket, peer), child.pid)


def signal_through(peer: socket.socket, pid: int) -> None:
    """Signal the process that connected."""
    pidfd = pidfd_of(peer, pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
    finally:
        os.close(pidfd)


def test_peer_that_has_gone_while_its_connection_lives_on() -> None:
    """C13: the process that connected has ended, and a child of it holds the connection: nobody can be signalled through it."""
    path = f"/tmp/bgw-peer-{os.getpid()}.sock"
    script = (
        "import os, socket, sys\nend = socket.socket(socket.AF_UNIX)\nend.connect(sys.argv[1])\n"
        "if os.fork():\n    os._exit(0)\nsys.stdin.read()\n"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        try:
            listener.listen()
            child = subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE)
            accepted, _ = listener.accept()
        finally:
            os.unlink(path)
    assert child.stdin is not None
    with accepted:
        try:
            assert child.wait(timeout=30) == 0
            # A kernel gives no descriptor for it, or, since Linux 6.16, one that signals nobody.
            with pytest.raises(ProcessLookupError):
                signal_through(accepted, child.pid)
        finally:
            child.stdin.close()
            assert accepted.recv(1) == b""
