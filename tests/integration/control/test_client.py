"""What a client asks of a host, and what it makes of the answers."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
from tests.integration.control.fake_host import FakeHost

from bgworker import BackgroundWorker, BgwHandleStatus, Client, WorkerPid, connect
from bgworker._shm.layout import NO_PID, NOT_YET_STARTED_PID, ActivityRecord, SlotRecord
from bgworker.errors import (
    ConfigurationError,
    HostError,
    HostNotRunning,
    NoFreeSlot,
    ProtocolError,
    RegistrationError,
    WaitTimeout,
    WorkerNotFound,
)

WORKER = BackgroundWorker(bgw_name="export", bgw_library_name="shop", bgw_function_name="main", bgw_main_arg={"order": 42})

SLOT: dict[str, Any] = {
    "slot": 3,
    "generation": 2,
    "bgw_name": "export",
    "bgw_type": "export",
    "bgw_library_name": "shop",
    "bgw_function_name": "main",
    "bgw_flags": ["BGWORKER_SHMEM_ACCESS"],
    "bgw_start_time": "BgWorkerStart_RecoveryFinished",
    "bgw_restart_time": None,
    "state": "started",
    "pid": 4711,
    "origin": "dynamic",
    "restarts": 0,
    "started_at": "2026-01-01T00:00:00.000Z",
    "restart_at": None,
    "last_exit": {"code": 1, "signal": None, "at": "2026-01-01T00:00:00.000Z", "reason": "exit 1"},
    "activity": {"state": "", "text": "", "wait_event": ""},
    "reason": "",
    "config": {"wake_on": [], "stop_timeout": None, "stop_when": "never"},
}
STATUS: dict[str, Any] = {
    "format": 1,
    "host": {
        "pid": 1,
        "state": "run",
        "started_at": "2026-01-01T00:00:00.000Z",
        "data_directory": "/srv/data",
        "max_worker_processes": 8,
        "crash_count": 0,
        "version": "0.1.0",
        "database": {"kind": "embedded", "phase": "recovery_finished", "detail": "", "url": "postgresql:///postgres"},
    },
    "slots": [SLOT],
    "finished": [],
    "broken_plugins": [],
    "rejected": [],
}


def test_register(host: FakeHost) -> None:
    """C03, C33: a client registers a worker while the host runs and gets an opaque handle of slot and generation."""
    host.answers["register"] = {"handle": "3.2"}
    with connect(host.data_directory) as client:
        handle = client.register_dynamic_background_worker(WORKER, if_absent=True)
        assert str(handle) == "3.2"
        assert handle == client.handle("3.2")
        assert host.requests[-1]["params"] == {"worker": WORKER.to_wire(), "if_absent": True}


def test_register_without_a_free_slot(host: FakeHost) -> None:
    """C14: a dynamic worker too many is refused with an error that the caller can tell from others."""
    host.answers["register"] = NoFreeSlot("no free slot", "All 8 are taken: export (8).", "Try again later.")
    with connect(host.data_directory) as client:
        with pytest.raises(NoFreeSlot) as caught:
            client.register_dynamic_background_worker(WORKER)
        assert caught.value.lines() == [
            "ERROR:  no free slot",
            "DETAIL:  All 8 are taken: export (8).",
            "HINT:  Try again later.",
        ]
        client.ping()


@pytest.mark.parametrize("argument", [object(), float("nan"), "x" * 70_000])
def test_register_what_cannot_be_sent(host: FakeHost, argument: object) -> None:
    """An argument that is no JSON, or too long, is refused as a registration, and the connection goes on."""
    worker = BackgroundWorker(bgw_name="export", bgw_library_name="shop", bgw_function_name="main", bgw_main_arg=argument)
    with connect(host.data_directory) as client:
        with pytest.raises(RegistrationError, match="bgw_main_arg"):
            client.register_dynamic_background_worker(worker)
        client.ping()
        assert [request["method"] for request in host.requests] == ["ping"]


def test_status(host: FakeHost) -> None:
    """C28: status() is the host's object with the activity filled in from the table that workers write."""
    host.answers["status"] = STATUS
    host.write_activity(3, ActivityRecord(2, "idle", "WorkerSpiMain", "order 42"))
    with connect(host.data_directory) as client:
        expected = copy.deepcopy(STATUS)
        expected["slots"][0]["activity"] = {"state": "idle", "text": "order 42", "wait_event": "WorkerSpiMain"}
        assert client.status() == expected


@pytest.mark.parametrize(("generation", "pid"), [(1, 4711), (3, 4711), (2, None)])
def test_activity_of_another_life(host: FakeHost, generation: int, pid: int | None) -> None:
    """What an earlier worker of the slot said, or one that has exited, is not shown as this one's activity."""
    host.answers["status"] = {**STATUS, "slots": [{**SLOT, "pid": pid}]}
    host.write_activity(3, ActivityRecord(generation, "idle", "", "old"))
    with connect(host.data_directory) as client:
        assert client.status()["slots"][0]["activity"] == {"state": "", "text": "", "wait_event": ""}


def test_activity_is_inert(host: FakeHost) -> None:
    """Control characters that a worker wrote do not reach the caller."""
    host.answers["status"] = STATUS
    host.write_activity(3, ActivityRecord(2, "idle", "", "\x1b[2Jgone"))
    with connect(host.data_directory) as client:
        assert client.status()["slots"][0]["activity"]["text"] == "?[2Jgone"


def test_slots_and_host(host: FakeHost) -> None:
    """slots() and host() are the status as frozen values; keys of a newer host are passed over."""
    newer = copy.deepcopy(STATUS)
    newer["slots"][0]["shoe_size"] = 43
    newer["host"]["database"]["shoe_size"] = 43
    host.answers["status"] = newer
    with connect(host.data_directory) as client:
        (slot,) = client.slots()
        assert (slot.handle, slot.bgw_flags, slot.bgw_restart_time) == ("3.2", ("BGWORKER_SHMEM_ACCESS",), None)
        assert slot.last_exit is not None
        assert (slot.last_exit.code, slot.last_exit.reason) == (1, "exit 1")
        assert slot.activity.state == ""
        view = client.host()
        assert (view.state, view.crash_count) == ("run", 0)
        assert view.database is not None
        assert view.database.phase == "recovery_finished"
        newer["host"]["database"] = None
        assert client.host().database is None
        with pytest.raises(AttributeError):
            slot.state = "other"  # type: ignore[misc]


def test_verbs(host: FakeHost) -> None:
    """Each verb asks what docs/protocol.md says, whichever way the worker is named, and gives the worker's handle."""
    for method in ("find", "start", "restart", "terminate", "signal"):
        host.answers[method] = {"handle": "3.2"}
    with connect(host.data_directory) as client:
        handle = client.find("export")
        client.start(3)
        client.restart(handle)
        client.terminate("export")
        client.terminate("export", by_operator=True)
        client.signal("export", "SIGUSR1")
        assert client.signal("export", 15) == handle
    assert [(request["method"], request["params"]) for request in host.requests] == [
        ("find", {"name": "export"}),
        ("start", {"name": "3"}),
        ("restart", {"name": "3.2"}),
        ("terminate", {"name": "export", "by_operator": False}),
        ("terminate", {"name": "export", "by_operator": True}),
        ("signal", {"name": "export", "signal": "SIGUSR1"}),
        ("signal", {"name": "export", "signal": "SIGTERM"}),
    ]


def test_reload(host: FakeHost) -> None:
    """reload() gives the changes, or all errors of the configuration in one."""
    changes = {"changes": [{"bgw_name": "export", "action": "restarted", "reason": "bgw_main_arg changed"}], "warnings": []}
    host.answers["reload"] = changes
    with connect(host.data_directory) as client:
        assert client.reload() == changes
        host.answers["reload"] = ConfigurationError("workers.toml has 2 errors", "one\ntwo")
        with pytest.raises(ConfigurationError, match="2 errors"):
            client.reload()


def test_stop(host: FakeHost) -> None:
    """C39: stop() asks for a mode, fast if none is given, and wait_until_gone() returns when the host has ended."""
    host.answers["stop"] = lambda params: {"mode": params["mode"]}
    with connect(host.data_directory) as client:
        assert client.stop() == "fast"
        assert client.stop("smart") == "smart"
        with pytest.raises(WaitTimeout, match="host to end"):
            client.wait_until_gone(timeout=0)
        host.die()
        client.wait_until_gone()
        client.wait_until_gone()


def test_unknown_errors_and_workers(host: FakeHost) -> None:
    """An error is what the host called it; a code of a newer host is a HostError."""
    host.answers["find"] = WorkerNotFound('background worker "x" does not exist')
    with connect(host.data_directory) as client:
        with pytest.raises(WorkerNotFound, match='"x"'):
            client.find("x")
        host.answers.clear()
        host.answers["ping"] = type("Newer", (HostError,), {"code": "brand_new"})("something new")
        with pytest.raises(HostError, match="something new"):
            client.ping()


def test_after_the_host(host: FakeHost) -> None:
    """Every request after the host's death says that it is gone, again and again."""
    with connect(host.data_directory) as client:
        host.die()
        assert not client.is_host_alive()
        for _ in range(2):
            with pytest.raises(HostNotRunning, match="gone") as caught:
                client.status()
        assert str(host.data_directory) in caught.value.message_detail
        with pytest.raises(HostNotRunning):
            client.events()


def test_after_close(host: FakeHost) -> None:
    """A closed client says so, whatever is asked, and may be closed twice."""
    client = connect(host.data_directory)
    handle = client.handle("3.2")
    client.close()
    client.close()
    calls: list[Any] = [client.status, client.ping, client.is_host_alive, client.wait_until_gone, handle.get_pid, handle.terminate]
    for call in calls:
        with pytest.raises(HostError, match="is closed") as caught:
            call()
        assert not isinstance(caught.value, HostNotRunning)


def test_forgotten_client(host: FakeHost) -> None:
    """A client that nobody closed gives its descriptors back and warns."""
    with pytest.warns(ResourceWarning, match="unclosed connection"):
        connect(host.data_directory)  # dropped at once


@pytest.mark.parametrize("text", ["", "export", "3", "3.", ".2", "-1.2", "3.2.1", "٣.٢", "8.1", "3." + "9" * 5000])
def test_text_that_is_no_handle(host: FakeHost, text: str) -> None:
    """handle() takes the text of a handle and nothing else, and no slot that does not exist."""
    with connect(host.data_directory) as client, pytest.raises(WorkerNotFound):
        client.handle(text)


def test_get_pid(host: FakeHost) -> None:
    """C34: NOT_YET_STARTED, STARTED with pid, STOPPED between lives and after reuse, without asking the host."""
    with connect(host.data_directory) as client:
        handle = client.handle("3.2")

        def pid_with(record: SlotRecord) -> WorkerPid:
            host.slots.write(3, record)
            return handle.get_pid()

        stopped = WorkerPid(BgwHandleStatus.STOPPED, None)
        assert pid_with(SlotRecord(2, NOT_YET_STARTED_PID, 1)) == (BgwHandleStatus.NOT_YET_STARTED, None)
        assert pid_with(SlotRecord(2, 4711, 1)) == (BgwHandleStatus.STARTED, 4711)
        assert pid_with(SlotRecord(2, NO_PID, 1)) == stopped
        assert pid_with(SlotRecord(2, 4711, 0)) == stopped
        assert pid_with(SlotRecord(3, 4712, 1)) == stopped
        assert host.requests == []


def test_get_pid_after_the_host(host: FakeHost) -> None:
    """C34: after host death POSTMASTER_DIED, never the stale pid that the table still has."""
    host.slots.write(3, SlotRecord(2, os.getpid(), 1))
    with connect(host.data_directory) as client:
        handle = client.handle("3.2")
        assert handle.get_pid() == (BgwHandleStatus.STARTED, os.getpid())
        host.die()
        died = (BgwHandleStatus.POSTMASTER_DIED, None)
        assert handle.get_pid() == died
        assert handle.wait_for_startup() == died
        assert handle.wait_for_shutdown(timeout=5) == died
        assert handle.terminate() is BgwHandleStatus.POSTMASTER_DIED
        with pytest.raises(HostNotRunning):
            handle.last_exit()


def test_death_behind_an_unread_reply(host: FakeHost) -> None:
    """C34: a host that died is known to be dead even if something it said before was never read."""
    host.slots.write(3, SlotRecord(2, 4711, 1))
    with connect(host.data_directory) as client:
        handle = client.handle("3.2")
        with pytest.raises(WaitTimeout):
            client._connection.request("slow", timeout=0)
        (held,) = host.hold(1)
        held.answer({"too": "late"})
        assert handle.get_pid().status is BgwHandleStatus.STARTED
        host.die()
        assert handle.get_pid().status is BgwHandleStatus.POSTMASTER_DIED


def test_torn_record_of_a_dead_host(host: FakeHost) -> None:
    """A record that a dying host left half written is no riddle: the host is dead."""
    with connect(host.data_directory) as client:
        handle = client.handle("3.2")
        host.tear_slot(3)
        host.die()
        assert handle.get_pid().status is BgwHandleStatus.POSTMASTER_DIED


def test_torn_record_of_a_live_host(host: FakeHost) -> None:
    """A record that a live host does not finish is an error, not a wrong answer and not for ever."""
    with connect(host.data_directory) as client:
        host.tear_slot(3)
        with pytest.raises(ProtocolError, match="inconsistent"):
            client.handle("3.2").get_pid()


def test_waits(host: FakeHost) -> None:
    """C36, C37, C38: the waits are the host's to answer: STARTED with pid, or STOPPED."""
    with connect(host.data_directory) as client:
        handle = client.handle("3.2")
        host.answers["wait"] = {"status": "STARTED", "pid": 4711, "reason": ""}
        assert handle.wait_for_startup() == (BgwHandleStatus.STARTED, 4711)
        host.answers["wait"] = {"status": "STOPPED", "pid": None, "reason": "failed to start: no module"}
        assert handle.wait_for_startup() == (BgwHandleStatus.STOPPED, None)
        assert handle.wait_for_shutdown(timeout=2.5) == (BgwHandleStatus.STOPPED, None)
        assert client.wait("export", "startup")["reason"] == "failed to start: no module"
    assert [request["params"] for request in host.requests] == [
        {"handle": "3.2", "for": "startup", "timeout": None},
        {"handle": "3.2", "for": "startup", "timeout": None},
        {"handle": "3.2", "for": "shutdown", "timeout": 2.5},
        {"handle": "export", "for": "startup", "timeout": None},
    ]


def test_wait_that_times_out(host: FakeHost) -> None:
    """C36: a wait ends at the caller's deadline, by the host's word."""
    host.answers["wait"] = WaitTimeout('timed out while waiting for the startup of background worker "export"')
    with connect(host.data_directory) as client, pytest.raises(TimeoutError, match="startup of"):
        client.handle("3.2").wait_for_startup(timeout=0)


def test_wait_with_a_host_that_hangs(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: a wait ends at the caller's deadline even if the host says nothing."""
    monkeypatch.setattr("bgworker._control.operations.GRACE", 0.05)
    with connect(host.data_directory) as client:
        with pytest.raises(WaitTimeout, match="in time"):
            client.handle("3.2").wait_for_shutdown(timeout=0.05)
        (held,) = host.hold(1)
        held.answer({"status": "STOPPED", "pid": None, "reason": ""})  # too late for its caller, and no harm to the next
        client.ping()


def test_terminate_and_last_exit(host: FakeHost) -> None:
    """C35: terminate() asks the host and says how things stand; last_exit() gives the last life's end."""
    host.slots.write(3, SlotRecord(2, 4711, 1))
    host.answers["terminate"] = {"handle": "3.2"}
    host.answers["last_exit"] = {"last_exit": None}
    with connect(host.data_directory) as client:
        handle = client.handle("3.2")
        assert handle.terminate() is BgwHandleStatus.STARTED
        assert host.requests[-1]["params"]["name"] == "3.2"
        assert handle.last_exit() is None
        host.answers["last_exit"] = {"last_exit": {"code": None, "signal": 9, "at": "2026-01-01T00:00:00Z", "reason": "killed"}}
        last_exit = handle.last_exit()
        assert last_exit is not None
        assert (last_exit.code, last_exit.signal, last_exit.reason) == (None, 9, "killed")


def test_two_clients_hold_different_handles(host: FakeHost) -> None:
    """Handles are equal when connection, slot and generation are: two hosts have slots of the same numbers."""
    with connect(host.data_directory) as one, connect(host.data_directory) as other:
        assert one.handle("3.2") == one.handle("3.2")
        assert len({one.handle("3.2"), one.handle("3.2"), one.handle("3.3"), other.handle("3.2")}) == 3
        assert one.handle("3.2") != "3.2"


def test_wrong_answers(host: FakeHost) -> None:
    """An answer without what it must have is a protocol error, not a surprise."""
    host.answers |= {"find": {}, "wait": {"status": "STARTED", "pid": None}}
    with connect(host.data_directory) as client:
        with pytest.raises(ProtocolError, match="no handle"):
            client.find("x")
        with pytest.raises(ProtocolError, match="no status"):
            client.handle("3.2").wait_for_startup()


def test_names(host: FakeHost) -> None:
    """A client says in its repr which host it is connected to."""
    with connect(host.data_directory) as client:
        assert isinstance(client, Client)
        assert str(host.data_directory) in repr(client)
        assert repr(client.handle("3.2")) == "<BackgroundWorkerHandle 3.2>"
