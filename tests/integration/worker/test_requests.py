"""Requests of a worker to its host: registration, handles, waits, settings; with pushes in between and SIGTERM in the middle."""

from __future__ import annotations

import signal

from tests.integration.worker.driving import PlayedHost

from bgworker._shm.layout import NOT_YET_STARTED_PID, SlotRecord


def test_registers_a_worker_and_follows_it(host: PlayedHost) -> None:
    """C03, C33, C34, C36, C37: a worker registers another, gets a handle, and waits, while pushes come in between."""
    host.publish(3, SlotRecord(9, NOT_YET_STARTED_PID, 1))
    life = host.start("register")
    request = life.receive("register")
    assert request["method"] == "register"
    assert request["params"]["worker"]["bgw_name"] == "child"
    assert request["params"]["if_absent"] is False
    life.send({"type": "notify", "channel": "early", "payload": "before the reply"})
    life.send({"id": request["id"], "result": {"handle": "3.9"}})
    wait = life.receive("wait")
    assert (wait["method"], wait["params"]) == ("wait", {"handle": "3.9", "for": "startup", "timeout": None})
    life.send({"id": wait["id"], "result": {"status": "STARTED", "pid": 4711, "reason": ""}})
    refused = life.receive("register")
    life.send(
        {"id": refused["id"], "error": {"code": "no_free_slot", "message_primary": "too many background workers"}},
    )
    wait = life.receive("wait")
    assert wait["params"]["for"] == "shutdown"
    life.die_as_host()
    assert life.read("out").splitlines() == [
        "3.9",
        "WorkerPid(status=<BgwHandleStatus.NOT_YET_STARTED: 'NOT_YET_STARTED'>, pid=None)",
        "WorkerPid(status=<BgwHandleStatus.STARTED: 'STARTED'>, pid=4711)",
        "NoFreeSlot: too many background workers",
        "[Notification(channel='early', payload='before the reply', may_have_missed=False)]",
        "WorkerPid(status=<BgwHandleStatus.POSTMASTER_DIED: 'POSTMASTER_DIED'>, pid=None)",
    ]
    assert life.wait() == 0


def test_sigterm_ends_a_request_that_is_not_answered(host: PlayedHost) -> None:
    """C22: SIGTERM ends a worker that waits for another one's start."""
    life = host.start("register")
    life.serve("register", {"handle": "3.9"})
    life.receive("wait")
    life.wait_until_asleep()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert "FATAL" in life.read("err")


def test_bad_registration_needs_no_host(host: PlayedHost) -> None:
    """C33: a registration that cannot be one is refused where it is made, with the registration's own error."""
    life = host.start("register_badly")
    assert life.read("out").splitlines() == [
        'RegistrationError background worker "child" cannot be registered: bgw_main_arg is not a JSON value'
    ]
    assert life.wait() == 0
