"""One connection, many threads."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from tests.integration.control.fake_host import PATIENCE, FakeHost

from bgworker import BgwHandleStatus, Client, connect
from bgworker.errors import HostError, HostNotRunning, WaitTimeout

STOPPED = {"status": "STOPPED", "pid": None, "reason": ""}


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """As many threads as a test wants."""
    with ThreadPoolExecutor(64) as pool:
        yield pool


@pytest.fixture
def client(host: FakeHost) -> Iterator[Client]:
    """A client of the fake host."""
    with connect(host.data_directory) as client:
        yield client


def test_long_wait_holds_up_nobody(host: FakeHost, client: Client, threads: ThreadPoolExecutor) -> None:
    """A thread in a long wait, which reads for everybody, does not hold up the requests of others."""
    wait = threads.submit(client.handle("3.2").wait_for_shutdown)
    (held,) = host.hold(1)
    for _ in range(3):
        client.ping()
        threads.submit(client.ping).result(PATIENCE)
    held.answer(STOPPED)
    assert wait.result(PATIENCE).status is BgwHandleStatus.STOPPED


def test_the_reader_leaves_first(host: FakeHost, client: Client, threads: ThreadPoolExecutor) -> None:
    """When the thread that reads for everybody has its own reply, another one takes over."""
    waits: list[Future[Any]] = []
    for slot in range(4):
        waits.append(threads.submit(client.handle(f"{slot}.1").wait_for_shutdown))
        host.hold(slot + 1)
    for held, wait in zip(host.held, waits, strict=True):
        held.answer(STOPPED)
        assert wait.result(PATIENCE).status is BgwHandleStatus.STOPPED


def test_answers_in_any_order(host: FakeHost, client: Client, threads: ThreadPoolExecutor) -> None:
    """Replies are matched by id: every thread gets its own, whatever the order."""
    waits = {slot: threads.submit(client.wait, f"{slot}.1", "startup") for slot in range(8)}
    for held in sorted(host.hold(8), key=lambda held: held.params["handle"], reverse=True):
        held.answer({"status": "STARTED", "pid": 100 + int(held.params["handle"][0]), "reason": ""})
    assert {slot: wait.result(PATIENCE)["pid"] for slot, wait in waits.items()} == {slot: 100 + slot for slot in range(8)}


def test_deadline_of_one_thread(
    host: FakeHost, client: Client, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread whose time is over leaves, as reader or not, and the others go on."""
    monkeypatch.setattr("bgworker._control.operations.GRACE", 0.05)
    first = threads.submit(client.handle("0.1").wait_for_shutdown, 0.05)
    host.hold(1)
    patient = threads.submit(client.handle("1.1").wait_for_shutdown)
    host.hold(2)
    last = threads.submit(client.handle("2.1").wait_for_shutdown, 0.05)
    for short in (first, last):
        with pytest.raises(WaitTimeout):
            short.result(PATIENCE)
    host.held[1].answer(STOPPED)
    assert patient.result(PATIENCE).status is BgwHandleStatus.STOPPED


def test_host_dies_under_all(host: FakeHost, client: Client, threads: ThreadPoolExecutor) -> None:
    """C36, C37: the host's death ends the waits of all threads at once: POSTMASTER_DIED; other requests say it is gone."""
    waits = [threads.submit(client.handle(f"{slot}.1").wait_for_shutdown) for slot in range(8)]
    reload = threads.submit(client.reload)
    host.hold(9)
    host.die()
    assert {wait.result(PATIENCE).status for wait in waits} == {BgwHandleStatus.POSTMASTER_DIED}
    with pytest.raises(HostNotRunning):
        reload.result(PATIENCE)


def test_last_words(host: FakeHost, client: Client, threads: ThreadPoolExecutor) -> None:
    """C38: what the host answered before it ended counts: a wait that it ended is STOPPED, not POSTMASTER_DIED."""
    waits = [threads.submit(client.handle(f"{slot}.1").wait_for_startup) for slot in range(4)]
    for held in host.hold(4):
        held.answer(STOPPED)
    host.die()
    assert {wait.result(PATIENCE).status for wait in waits} == {BgwHandleStatus.STOPPED}


def test_close_under_a_wait(host: FakeHost, threads: ThreadPoolExecutor) -> None:
    """close() ends the waits of other threads with an error that does not blame the host."""
    client = connect(host.data_directory)
    waits = [threads.submit(client.handle(f"{slot}.1").wait_for_shutdown) for slot in range(3)]
    host.hold(3)
    client.close()
    for wait in waits:
        with pytest.raises(HostError, match="is closed"):
            wait.result(PATIENCE)


def test_host_that_does_not_read(host: FakeHost, client: Client, threads: ThreadPoolExecutor) -> None:
    """Requests beyond what the socket takes leave once the host reads again, though the thread that reads was asleep before."""
    wait = threads.submit(client.handle("3.2").wait_for_shutdown)
    host.hold(1)
    host.is_reading.clear()
    session = client._connection._link.session
    finds = [threads.submit(client.find, str(number % 10) * 60_000) for number in range(16)]  # 960 kB; a socket takes some 200
    deadline = time.monotonic() + PATIENCE
    while len(session._calls) < 17:
        assert time.monotonic() < deadline
    assert client._connection._link.has_unsent
    host.is_reading.set()
    for held in host.hold(17)[1:]:  # no reply before the last request is there: nothing but its own readiness wakes the sender
        held.answer({"handle": "3.2"})
    assert [str(result.result(PATIENCE)) for result in finds] == ["3.2"] * 16
    host.held[0].answer(STOPPED)
    assert wait.result(PATIENCE).status is BgwHandleStatus.STOPPED


def test_many_threads_at_once(host: FakeHost, client: Client, threads: ThreadPoolExecutor) -> None:
    """64 threads that ask all the time get 64 times their own answers."""
    host.answers["find"] = lambda params: {"handle": params["name"]}
    texts = [f"{number % 8}.{number}" for number in range(1, 2001)]
    assert [str(handle) for handle in threads.map(client.find, texts)] == texts


def test_wait_costs_no_processor(host: FakeHost, client: Client, threads: ThreadPoolExecutor) -> None:
    """Waiting threads sleep: no polling, neither the one that reads nor the others."""
    waits = [threads.submit(client.handle(f"{slot}.1").wait_for_shutdown) for slot in range(8)]
    host.hold(8)
    before = time.process_time()
    with pytest.raises(WaitTimeout):
        client.wait_until_gone(timeout=0.3)
    assert time.process_time() - before < 0.1
    for held in host.held:
        held.answer(STOPPED)
    for wait in waits:
        wait.result(PATIENCE)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as in a terminal; a shell starts its background jobs, and so a whole test run, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_interrupted_reader(host: FakeHost, client: Client, threads: ThreadPoolExecutor) -> None:
    """Ctrl-C in the thread that sleeps for everybody leaves the connection in order, and another thread reads on."""
    connection = client._connection

    def interrupt() -> None:
        host.hold(1)
        deadline = time.monotonic() + PATIENCE
        while connection._lock.locked() or not connection._is_led:
            assert time.monotonic() < deadline
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threads.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.handle("0.1").wait_for_shutdown()
    wait = threads.submit(client.handle("1.1").wait_for_shutdown)
    host.hold(2)
    client.ping()
    host.held[1].answer(STOPPED)
    assert wait.result(PATIENCE).status is BgwHandleStatus.STOPPED


@pytest.mark.parametrize("step", ["send", "receive"])
def test_interrupted_message(
    host: FakeHost, client: Client, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """An exception of a signal handler in the middle of a message ends the connection rather than mixing up messages."""
    wait = threads.submit(client.handle("1.1").wait_for_shutdown)
    host.hold(1)
    link = client._connection._link
    original = getattr(link, step)

    def interrupted() -> Any:
        original()
        raise KeyboardInterrupt

    monkeypatch.setattr(link, step, interrupted)
    if step == "send":
        with pytest.raises(KeyboardInterrupt):
            client.ping()
    else:
        threads.submit(client.ping)
    with pytest.raises((KeyboardInterrupt, HostError)):
        wait.result(PATIENCE)
    with pytest.raises(HostError, match="was interrupted"):
        client.ping()
