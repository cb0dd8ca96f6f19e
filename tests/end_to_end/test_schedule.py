"""schedule and latch_loop(at=...) under a real host; what needs a whole minute to come is slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bgworker.testing import RunningHost

MakeHost = Callable[..., RunningHost]

TASKS = '''
"""Workers for the tests."""
import time
from bgworker import aio, worker

def job(arg):
    print("ran")

def stays(arg):
    worker.unblock_signals()
    for _ in worker.latch_loop():
        pass

def ticks(arg):
    worker.unblock_signals()
    for tick in worker.latch_loop(at="* * * * *", wait_event="TicksMain"):
        print("tick", int(tick), tick.at and tick.at.second, tick.missed, flush=True)

async def async_ticks(arg):
    async for tick in aio.latch_loop(at="* * * * *"):
        print("tick", int(tick), tick.at and tick.at.second, tick.missed, flush=True)
        print(time.time() // 60 * 60 == tick.at.timestamp() if tick.at else "", flush=True)

def wrong(arg):
    worker.latch_loop(at="* * * *")
'''
YEARLY = "0 0 1 1 *"


def worker(name: str, function: str, schedule: str = "") -> str:
    """Return a [[worker]] table."""
    lines = f'[[worker]]\nbgw_name = "{name}"\nbgw_library_name = "tasks"\nbgw_function_name = "{function}"\n'
    return lines + (f'schedule = "{schedule}"\n' if schedule else "")


def slot_when(host: RunningHost, name: str, is_so: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    """Wait until a worker's slot is as wanted."""

    def found() -> dict[str, Any] | None:
        slot = host.slot(name)
        return slot if slot is not None and is_so(slot) else None

    return host.wait_until(found, f"{name} {what}", 90)


def test_waits_runs_when_told_and_waits_again(make_host: MakeHost) -> None:
    """C29: it is not started with the host; start by name runs it now, also after a terminate; a reload lets a run end."""
    host = make_host(worker("job", "job", YEARLY) + worker("long", "stays", YEARLY), tasks=TASKS)
    host.start_and_wait()
    slot = host.slot("job")
    assert slot is not None
    assert (slot["state"], slot["pid"], slot["config"]["schedule"]) == ("not_yet_started", None, YEARLY)
    assert slot["reason"].startswith("next run at ")
    assert "-01-01T00:00:00" in slot["reason"]
    assert "(in " in host.run_cli("status", "job").stdout
    assert host.run_cli("status", "--check").returncode == 0
    for number in range(2):
        assert host.run_cli("start", "job").returncode == 0
        slot = slot_when(host, "job", lambda slot: slot["state"] == "waiting_restart", "waits again")
        assert slot["reason"].startswith("exit 0; next run at ")
        if number == 0:
            assert host.run_cli("terminate", "--wait", "job").returncode == 0
    assert "The next run is in" in host.run_cli("why", "job").stdout
    host.run_cli("start", "long")
    pid = host.wait_for_worker("long")["pid"]
    path = host.directory / "workers.toml"
    path.write_text(path.read_text().replace(YEARLY, "0 12 1 1 *") + worker("new", "job", YEARLY))
    reload = host.run_cli("reload")
    assert (reload.returncode, reload.stderr) == (0, "")
    assert f'later long (schedule "{YEARLY}" -> "0 12 1 1 *")' in reload.stdout
    assert "start new (it is new): waits, next run at " in reload.stdout
    slots = [host.slot(name) for name in ("long", "job")]
    assert [(slot["pid"], slot["state"]) for slot in slots if slot] == [(pid, "started"), (None, "waiting_restart")]
    assert "-01-01T12:00:00" in (host.slot("job") or {})["reason"]
    assert host.stop() == 0


def test_wrong_expression_in_a_worker(make_host: MakeHost) -> None:
    """C32: latch_loop() says what is wrong with the text, and the worker ends as by any exception."""
    host = make_host(worker("wrong", "wrong"), tasks=TASKS)
    host.start_and_wait()
    slot_when(host, "wrong", lambda slot: slot["last_exit"] is not None, "has ended")
    assert "latch_loop() cannot wait: at must have 5 fields, and has 4" in host.log("wrong")
    assert host.stop() == 0


@pytest.mark.slow
def test_each_minute(make_host: MakeHost) -> None:
    """At the minute the scheduled worker is started and both loops wake, and none of them before; what still runs is missed."""
    names = {"job": "job", "ticks": "ticks", "async": "async_ticks"}
    tables = worker("job", "job", "* * * * *") + worker("ticks", "ticks") + worker("async", "async_ticks")
    host = make_host(tables + worker("stays", "stays", "* * * * *"), tasks=TASKS)
    host.start_and_wait()
    host.run_cli("start", "stays")
    for name in ("ticks", "async", "stays"):
        host.wait_for_worker(name)
    assert not any("tick" in host.log(name) or "ran" in host.log(name) for name in names)
    slot_when(host, "job", lambda slot: slot["state"] == "waiting_restart", "has run")
    for name in ("ticks", "async"):
        host.wait_until(lambda name=name: "tick 8 0 0" in host.log(name), f"{name} has woken", 90)  # type: ignore[misc]
    assert "True" in host.log("async")
    assert "ran" in host.log("job")
    slot_when(host, "stays", lambda slot: slot["reason"].startswith("missed the run at "), "is late")
    assert 'background worker "stays"' in host.log()
    assert "missed its run at " in host.log()
    assert host.stop() == 0
