"""The client for asyncio: the same answers, by tasks instead of threads."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from tests.integration.control.fake_host import PATIENCE, FakeHost, Held
from tests.integration.control.test_client import STATUS, WORKER

from bgworker import BackgroundWorker, BgwHandleStatus
from bgworker._control.aio_client import AsyncClient, connect
from bgworker._shm.layout import ActivityRecord, SlotRecord
from bgworker.errors import HostError, HostNotRunning, NoFreeSlot, RegistrationError, WaitTimeout

STOPPED = {"status": "STOPPED", "pid": None, "reason": ""}


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine under a deadline."""
    asyncio.run(asyncio.wait_for(test(), PATIENCE))


async def held_by(host: FakeHost, count: int) -> list[Held]:
    """Wait until the host holds so many requests, without holding up the loop."""
    return await asyncio.to_thread(host.hold, count)


def test_methods(host: FakeHost) -> None:
    """Each method asks the same as its threaded twin and gives the same."""
    for method in ("register", "find", "start", "restart", "terminate", "signal"):
        host.answers[method] = {"handle": "3.2"}
    host.answers["status"] = lambda params: copy.deepcopy(STATUS)
    host.answers["reload"] = {"changes": [], "warnings": []}
    host.answers["wait"] = STOPPED
    host.answers["last_exit"] = {"last_exit": None}
    host.answers["stop"] = {"mode": "smart"}
    host.write_activity(3, ActivityRecord(2, "idle", "", "order 42"))
    host.slots.write(3, SlotRecord(2, 4711, 1))

    async def test() -> None:
        async with await connect(host.data_directory) as client:
            handle = await client.register_dynamic_background_worker(WORKER)
            calls: list[Awaitable[Any]] = [
                client.find("x"),
                client.start("x"),
                client.restart("x"),
                client.terminate("x"),
                client.signal("x", 15),
            ]
            assert [await call for call in calls] == [handle] * 5
            assert str(handle) == "3.2"
            assert handle == client.handle("3.2")
            assert handle.get_pid() == (BgwHandleStatus.STARTED, 4711)
            assert (await handle.wait_for_startup()).status is BgwHandleStatus.STOPPED
            assert (await handle.wait_for_shutdown(1)).status is BgwHandleStatus.STOPPED
            assert await handle.terminate() is BgwHandleStatus.STARTED
            assert await handle.last_exit() is None
            assert (await client.wait("x", "startup"))["status"] == "STOPPED"
            assert (await client.status())["slots"][0]["activity"]["text"] == "order 42"
            assert (await client.slots())[0].activity.text == "order 42"
            assert (await client.host()).state == "run"
            assert (await client.reload())["changes"] == []
            assert await client.stop("smart") == "smart"
            await client.ping()
            assert client.is_host_alive()
            assert client.max_worker_processes == 8
            assert str(host.data_directory) in repr(client)

    run(test)


def test_refusals(host: FakeHost) -> None:
    """C14: refusals are the same errors as in the threaded client."""
    host.answers["register"] = NoFreeSlot("no free slot")

    async def test() -> None:
        async with await connect(host.data_directory) as client:
            with pytest.raises(NoFreeSlot):
                await client.register_dynamic_background_worker(WORKER)
            worker = BackgroundWorker(bgw_name="x", bgw_library_name="x", bgw_function_name="x", bgw_main_arg="x" * 70_000)
            with pytest.raises(RegistrationError, match="bgw_main_arg"):
                await client.register_dynamic_background_worker(worker)

    run(test)


def test_no_host(host: FakeHost) -> None:
    """connect() says the same as the threaded one when nobody is there."""
    host.die()
    with pytest.raises(HostNotRunning, match="no host is running"):
        run(lambda: connect(host.data_directory))  # type: ignore[arg-type,return-value]


def test_tasks_wait_side_by_side(host: FakeHost) -> None:
    """Any number of tasks wait at once; a cancelled one leaves the others alone."""

    async def test() -> None:
        async with await connect(host.data_directory) as client:
            waits = [asyncio.ensure_future(client.wait(f"{slot}.1", "startup")) for slot in range(8)]
            held = await held_by(host, 8)
            waits[0].cancel()
            await client.ping()
            for request in reversed(held):
                request.answer({"status": "STARTED", "pid": 100 + int(request.params["handle"][0]), "reason": ""})
            assert [(await wait)["pid"] for wait in waits[1:]] == list(range(101, 108))
            with pytest.raises(asyncio.CancelledError):
                await waits[0]
            await client.ping()

    run(test)


def test_host_dies_under_all(host: FakeHost) -> None:
    """C36, C37: the host's death ends every wait: POSTMASTER_DIED; other requests say it is gone."""

    async def test() -> None:
        async with await connect(host.data_directory) as client:
            waits = [asyncio.ensure_future(client.handle(f"{slot}.1").wait_for_shutdown()) for slot in range(4)]
            gone = asyncio.ensure_future(client.wait_until_gone())
            await held_by(host, 4)
            await asyncio.to_thread(host.die)
            assert {(await wait).status for wait in waits} == {BgwHandleStatus.POSTMASTER_DIED}
            await gone
            handle = client.handle("3.2")
            assert handle.get_pid().status is BgwHandleStatus.POSTMASTER_DIED
            assert (await handle.wait_for_startup()).status is BgwHandleStatus.POSTMASTER_DIED
            assert await handle.terminate() is BgwHandleStatus.POSTMASTER_DIED
            assert not client.is_host_alive()
            with pytest.raises(HostNotRunning):
                await client.status()

    run(test)


def test_deadlines(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: a wait ends at the caller's deadline even if the host says nothing; the connection goes on."""
    monkeypatch.setattr("bgworker._control.operations.GRACE", 0.05)

    async def test() -> None:
        async with await connect(host.data_directory) as client:
            with pytest.raises(WaitTimeout):
                await client.handle("3.2").wait_for_shutdown(0.05)
            with pytest.raises(WaitTimeout):
                await client.wait_until_gone(0.01)
            (held,) = await held_by(host, 1)
            held.answer(STOPPED)
            await client.ping()

    run(test)


def test_close_under_a_wait(host: FakeHost) -> None:
    """close() ends the waits of other tasks with an error that does not blame the host."""

    async def test() -> None:
        client = await connect(host.data_directory)
        wait = asyncio.ensure_future(client.handle("3.2").wait_for_shutdown())
        await held_by(host, 1)
        await client.close()
        await client.close()
        with pytest.raises(HostError, match="is closed"):
            await wait
        calls: list[Callable[[], Any]] = [client.is_host_alive, client.handle("3.2").get_pid]
        for call in calls:
            with pytest.raises(HostError, match="is closed"):
                call()
        with pytest.raises(HostError, match="is closed"):
            await client.ping()

    run(test)


def test_host_that_does_not_read(host: FakeHost) -> None:
    """Requests beyond what the socket takes leave once the host reads again."""
    host.answers["find"] = lambda params: {"handle": "3.2", "padding": params["name"]}
    host.is_reading.clear()

    async def test() -> None:
        async with await connect(host.data_directory) as client:
            finds = [asyncio.ensure_future(client.find(str(number) * 60_000)) for number in range(10)]
            await asyncio.sleep(0)
            host.is_reading.set()
            assert [str(await find) for find in finds] == ["3.2"] * 10

    run(test)


def test_events(host: FakeHost) -> None:
    """Events come in order, those before the host's death included; requests go on meanwhile."""

    async def test() -> None:
        async with await connect(host.data_directory) as client, await client.events() as events:
            with pytest.raises(WaitTimeout):
                await events.next_event(0)
            host.notify({"event": "host"})
            assert (await events.next_event(0))["event"] == "host"  # it is there: sendall() has put it into the socket
            for number in range(3):
                host.notify({"event": "started", "slot": number})
            await client.ping()
            assert (await events.next_event(PATIENCE))["slot"] == 0
            await asyncio.to_thread(host.die)
            seen: list[Any] = []

            async def read_all() -> None:
                async for event in events:
                    seen.append(event["slot"])  # noqa: PERF401 - the loop ends in an exception

            with pytest.raises(HostNotRunning):
                await read_all()
            assert seen == [1, 2]

    run(test)


def test_other_loop(host: FakeHost) -> None:
    """A client is refused in another event loop than its own, instead of hanging there."""
    clients: list[AsyncClient] = []

    async def make() -> None:
        clients.append(await connect(host.data_directory))

    async def use() -> None:
        with pytest.raises(HostError, match="another event loop"):
            await clients[0].ping()
        await clients[0].close()

    run(make)
    run(use)


def test_cancelled_connect(host: FakeHost) -> None:
    """A connect() that is cancelled closes the connection that it still gets."""
    host.says_hello.clear()

    async def test() -> None:
        attempt = asyncio.ensure_future(connect(host.data_directory))
        await asyncio.to_thread(host.wait_for, lambda: len(host.peers) == 1 and len(host.threads) == 2)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        host.says_hello.set()
        await asyncio.to_thread(host.threads[1].join, PATIENCE)  # it ends when its peer has closed
        assert not host.threads[1].is_alive()

    run(test)


def test_forgotten_client(host: FakeHost) -> None:
    """A client that nobody closed gives its descriptors back and warns."""

    async def test() -> None:
        await connect(host.data_directory)  # dropped at once

    with pytest.warns(ResourceWarning, match="unclosed connection"):
        run(test)
