"""A client and its handles in a forked child."""

from __future__ import annotations

import subprocess
import sys

from tests.integration.control.fake_host import FakeHost

# Forks in a process of its own: pytest's has threads.
_SCRIPT = """
import os, sys
import bgworker
from bgworker.errors import HostError, HostNotRunning

client = bgworker.connect(sys.argv[1])
handle = client.handle("3.2")
client.ping()
if HOLD:
    client._connection._lock.acquire()  # as a thread of the parent may at that moment
child = os.fork()
if child == 0:
    for call in (client.ping, client.status, client.events, client.is_host_alive, handle.get_pid, handle.wait_for_startup):
        try:
            call()
        except HostError as error:
            assert not isinstance(error, HostNotRunning), error
            assert error.message_primary == "connection to the host cannot be used after fork", error
            assert "bgworker.connect()" in error.message_hint
        else:
            print("no error from", call)
            os._exit(1)
    assert not [fd for fd in os.listdir("/proc/self/fd") if is_socket(fd)]
    client.close()
    with bgworker.connect(sys.argv[1]) as own:
        own.ping()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
if HOLD:
    client._connection._lock.release()
client.ping()
assert client.is_host_alive()
client.close()
"""

_IS_SOCKET = """
import os
def is_socket(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except FileNotFoundError:
        return False
"""


def _run(host: FakeHost, *, hold: bool) -> None:
    script = f"HOLD = {hold}\n{_IS_SOCKET}\n{_SCRIPT}"
    result = subprocess.run(
        [sys.executable, "-c", script, str(host.data_directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_child_is_refused(host: FakeHost) -> None:
    """A forked child may not use its parent's client and keeps no copy of its socket; it connects for itself."""
    _run(host, hold=False)


def test_child_of_a_busy_parent(host: FakeHost) -> None:
    """The child is refused rather than stuck, even if a thread of the parent held the connection's lock at the fork."""
    _run(host, hold=True)
