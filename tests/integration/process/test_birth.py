"""Births for real: who the parent is, what survives whom, and both ways of being born."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

PRELUDE = """
import os, signal, sys
from bgworker._process import birth, prctl
prctl.set_child_subreaper()
def fall_back():
    birth.probe()
    birth._clone = None
"""


def run(program: str) -> str:
    """Run a program in a process of its own, which may make itself a subreaper; return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("way", ["birth.probe()", "fall_back()"])
def test_child_belongs_to_the_callers_parent(way: str) -> None:
    """C01: a worker born by the loader is the host's own child, and its status reaches the host."""
    output = run(f"""
        host = os.getpid()
        if (loader := os.fork()) == 0:
            {way}
            pids = []
            for code in range(20):
                pid = birth.clone_parent()
                if pid == 0:
                    while os.getppid() != host: os.sched_yield()
                    os._exit(code)
                pids.append(pid)
            os._exit(0)
        codes = []
        while True:
            try: pid, status = os.wait()
            except ChildProcessError: break
            if pid != loader: codes.append(os.waitstatus_to_exitcode(status))
        print(sorted(codes))
    """)
    codes = eval(output)
    # The probe's own child, when there is one, exits with 0.
    assert [code for code in codes if code] == list(range(1, 20))


@pytest.mark.parametrize("way", ["birth.probe()", "fall_back()"])
def test_child_survives_the_loader(way: str) -> None:
    """C01: SIGKILL of the loader disturbs no worker."""
    output = run(f"""
        read, write = os.pipe()
        if (loader := os.fork()) == 0:
            {way}
            pid = birth.clone_parent()
            if pid == 0:
                prctl.set_pdeathsig(signal.SIGKILL)
                os.write(write, b"%d\\n" % os.getpid())
                while True: signal.pause()
            while True: signal.pause()
        worker = int(os.read(read, 20))
        os.kill(loader, signal.SIGKILL)
        os.waitpid(loader, 0)
        os.kill(worker, 0)
        print("alive")
        os.kill(worker, signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
    """)
    assert output.split() == ["alive", "-15"]


def test_clone_keeps_python_whole() -> None:
    """A clone can start threads and fork, which a raw system call without the interpreter's hooks breaks."""
    output = run("""
        import threading
        read, write = os.pipe()
        if (loader := os.fork()) == 0:
            birth.probe()
            if birth.clone_parent() == 0:
                thread = threading.Thread(target=os.write, args=(write, b"thread "))
                thread.start(); thread.join()
                if os.fork() == 0:
                    os.write(write, b"fork "); os._exit(0)
                os.wait()
                os.write(write, b"main " if threading.main_thread() is threading.current_thread() else b"lost ")
                os._exit(0)
            os._exit(0)
        while True:
            try: os.wait()
            except ChildProcessError: break
        print(os.read(read, 100).decode())
    """)
    assert output.split() == ["thread", "fork", "main"]


def test_loader_with_a_thread_refuses() -> None:
    """A process with a second task is never cloned: the clone would inherit locks that nobody releases."""
    output = run("""
        import threading
        birth.probe()
        threading.Thread(target=signal.pause, daemon=True).start()
        try: birth.clone_parent()
        except birth.TooManyThreads as error: print(error)
    """)
    assert "threads" in output


@pytest.fixture
def lifeline() -> Iterator[tuple[int, int]]:
    """Return both ends of a pipe that a process under test holds on to."""
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    os.close(read_fd)


def test_everything_dies_with_the_host(lifeline: tuple[int, int]) -> None:
    """C24: SIGKILL of the host ends a worker that never waits and one that blocks every signal."""
    read_fd, write_fd = lifeline
    program = PRELUDE + textwrap.dedent(f"""
        if os.fork() == 0:
            birth.probe()
            host = os.getppid()
            for kind in range(3):
                if birth.clone_parent() == 0:
                    prctl.set_pdeathsig(signal.SIGKILL)
                    if os.getppid() != host: os._exit(1)
                    if kind: signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
                    os.write({write_fd}, b"+")
                    while True: pass
            os._exit(0)
        os.close({write_fd})
        while True: signal.pause()
    """)
    process = subprocess.Popen([sys.executable, "-c", program], pass_fds=(write_fd,))
    os.close(write_fd)
    ready = b""
    while len(ready) < 3:
        ready += os.read(read_fd, 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # End of file: nobody holds the write end any more.
    assert os.read(read_fd, 1) == b""
