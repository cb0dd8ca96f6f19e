"""A host whose control socket is taken away under it: it notices, without looking, and is reachable again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]


def is_reachable(host: RunningHost) -> bool:
    """Whether a new client gets an answer."""
    return host.status()["host"]["state"] == "run"


@pytest.mark.parametrize("what", ["run/control.sock", "run"])
def test_removed_socket_is_made_again(host: RunningHost, what: str) -> None:
    """T52: a tidy-up removes the socket, or its directory: the host makes it again; open connections never notice."""
    removed = host.data_directory / what
    with host.client() as client:
        for count in (1, 2):
            if removed.is_socket():
                removed.unlink()
            else:
                # At one stroke: a socket that goes before its directory is there again before the directory can go.
                removed.rename(host.data_directory / "gone")
                shutil.rmtree(host.data_directory / "gone")
            host.wait_until(lambda: is_reachable(host), "the host can be reached again")
            host.wait_until(lambda n=count: host.log().count('control.sock" was removed and is made') == n, "the log says so")  # type: ignore[misc]
            client.ping()
    assert host.stop() == 0
    assert not (host.data_directory / "run" / "control.sock").exists()


def test_removed_notify_socket_is_made_again(host: RunningHost) -> None:
    """T52: so is the one where programs say that they are ready, alone or with its directory."""
    run = host.data_directory / "run"
    for count in (1, 2):
        if count == 1:
            (run / "notify.sock").unlink()
        else:
            run.rename(host.data_directory / "gone")
            shutil.rmtree(host.data_directory / "gone")
        said = f'socket "{run}/notify.sock" was removed and is made again'
        host.wait_until(lambda n=count, said=said: host.log().count(f"LOG:  {said}") == n, "the log says so")  # type: ignore[misc]
        assert (run / "notify.sock").is_socket()
    assert host.stop() == 0
    assert not any(run.iterdir())


def test_what_took_the_sockets_place_stays(host: RunningHost) -> None:
    """T50, T52: a file in the socket's place is left alone and named once; moved away, the socket is there again."""
    socket = host.data_directory / "run" / "control.sock"
    (host.data_directory / "run" / "new").write_text("precious")
    (host.data_directory / "run" / "new").rename(socket)
    host.wait_until(lambda: "something else is there" in host.log(), "the log names it")
    assert host.process is not None
    # A reload looks, too, and says nothing twice.
    host.process.send_signal(signal.SIGHUP)
    host.wait_until(lambda: "configuration reloaded" in host.log(), "it has reloaded")
    assert socket.read_text() == "precious"
    assert host.log().count("something else is there") == 1
    socket.rename(host.data_directory / "precious")
    host.wait_until(lambda: is_reachable(host), "the host can be reached again")


def test_second_host_leaves_a_live_socket_alone(make_host: MakeHost) -> None:
    """T51: with the lock files removed by somebody, a second host still does not take a live one's socket."""
    first = make_host("[host]\nmax_worker_processes = 2\n")
    first.start_and_wait()
    for name in ("host.lock", "workers.lock"):
        os.unlink(first.data_directory / name)
    done = first.run_cli("run", "-D", str(first.data_directory))
    assert done.returncode == 2
    assert f'another host answers on control socket "{first.data_directory}/run/control.sock"' in done.stderr
    assert is_reachable(first)
    assert Path(f"/proc/{first.status()['host']['pid']}").exists()
