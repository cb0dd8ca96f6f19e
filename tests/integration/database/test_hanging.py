"""A server that hangs instead of ending: its machine answers for it, so that only asking finds out."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.database.driving import FakeHost, Server, processes_in, wait_until


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Hold processes for a while, as a frozen container does."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass  # a session that ended with its client


#: The url's own keepalives say how soon a lost server is noticed; these are quick.
QUICK = "keepalives_idle=1&keepalives_interval=1&keepalives_count=1&connect_timeout=2"


def test_hanging_server_is_noticed(host: FakeHost, server: Server) -> None:
    """A read-write server whose processes hang is reported, within the keepalives of its url, and so is its return."""
    host.external(f"{server.url}?{QUICK}")
    host.phase("recovery_finished")
    mark = host.mark()
    with stopped(processes_in(server.data)):
        host.phase("unreachable", mark, containing="connection lost: the server has not answered for 1 s; connecting again")
        host.phase("unreachable", mark, containing="127.0.0.1 has not answered for 2 s; next try in")
    host.phase("recovery_finished", mark)


def test_hanging_session_alone_is_no_news(host: FakeHost, server: Server) -> None:
    """A server that hangs in one session and takes another is read-write all along; the watch has moved."""
    host.external(f"{server.url}?{QUICK}")
    host.phase("recovery_finished")
    with server.connect() as connection:

        def watches() -> set[int]:
            query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'bgworker database' AND state IS NOT NULL"
            return {pid for (pid,) in connection.execute(query)}

        (first,) = watches()
        mark = host.mark()
        with stopped([first]):
            wait_until(lambda: watches() - {first}, "another session of the watch")
        host.read(0.3)  # longer than a lost connection stays unsaid
        assert [news for news in host.news[mark:] if news.get("received", {}).get("type") == "phase"] == []


def test_process_that_takes_over_loses_no_phase(host: FakeHost) -> None:
    """A database process that replaces a dead one does not say that all begins anew, however long the server takes to answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"postgresql://me@127.0.0.1:{listener.getsockname()[1]}/x?connect_timeout=2"
        host.external(url, phase="recovery_finished")
        host.phase("unreachable", containing="has not answered for 2 s")
        assert [message["phase"] for message in host.messages("phase")] == ["unreachable"]
