"""Fixed status dicts: what a host says, without a host."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

#: The instant at which every fixed status was taken.
NOW = 1_763_000_000.0


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
def now() -> float:
    return NOW


@pytest.fixture
def at() -> Callable[[float], str]:
    """An instant so many seconds from now, as status writes it."""
    return lambda seconds: rfc3339(NOW + seconds)


@pytest.fixture
def make_exit() -> Callable[..., dict[str, Any]]:
    """How a life ended, so many seconds ago."""

    def make(code: int | None = 1, ago: float = 6.0, reason: str = "", signal: int | None = None) -> dict[str, Any]:
        return {"code": code, "signal": signal, "at": rfc3339(NOW - ago), "reason": reason}

    return make


@pytest.fixture
def make_slot() -> Callable[..., dict[str, Any]]:
    """One slot of status; started for ``age`` seconds unless told otherwise."""

    def make(slot: int, name: str, *, age: float | None = 100.0, restart_in: float | None = None, **keys: Any) -> dict[str, Any]:
        state = keys.get("state", "started")
        made = {
            "slot": slot,
            "generation": 1,
            "bgw_name": name,
            "bgw_type": name,
            "bgw_library_name": "shop_queue",
            "bgw_function_name": "main",
            "bgw_flags": ["BGWORKER_SHMEM_ACCESS"],
            "bgw_start_time": "BgWorkerStart_RecoveryFinished",
            "bgw_restart_time": 5.0,
            "state": "started",
            "pid": 4700 + slot if state == "started" else None,
            "origin": "static",
            "restarts": 0,
            "started_at": rfc3339(NOW - age) if state == "started" and age is not None else None,
            "restart_at": None if restart_in is None else rfc3339(NOW + restart_in),
            "last_exit": None,
            "activity": {"state": "", "text": "", "wait_event": ""},
            "reason": "",
            "config": {},
        }
        return {**made, **keys}

    return make


@pytest.fixture
def make_status() -> Callable[..., dict[str, Any]]:
    """A status of these slots."""

    def make(*slots: dict[str, Any], **keys: Any) -> dict[str, Any]:
        host = {
            "pid": 4711,
            "state": "run",
            "started_at": rfc3339(NOW - 3 * 86_400 - 4 * 3600),
            "data_directory": "/srv/shop/data",
            "max_worker_processes": 64,
            "crash_count": 0,
            "version": "0.1.0",
            "database": {"kind": "embedded", "phase": "recovery_finished", "detail": "", "url": "postgresql:///"},
        }
        return {
            "format": 1,
            "host": {**host, **keys.pop("host", {})},
            "slots": list(slots),
            "finished": [],
            "broken_plugins": [],
            "rejected": [],
            **keys,
        }

    return make


@pytest.fixture
def shop(make_slot: Any, make_status: Any, make_exit: Any) -> dict[str, Any]:
    """The example of the design: one restarting, one waiting, one not registered, ten started."""
    exports = [
        make_slot(
            slot,
            f"export {slot}",
            bgw_type="export",
            generation=9,
            age=12.0 + 40 * (11 - slot),
            activity={"state": "running", "text": f"order {37 + slot}", "wait_event": ""},
        )
        for slot in range(5, 12)
    ]
    status: dict[str, Any] = make_status(
        make_slot(
            1,
            "worker_spi worker 1",
            bgw_type="worker_spi",
            pid=4715,
            age=3 * 86_400 + 4 * 3600,
            activity={"state": "idle", "text": "", "wait_event": "WorkerSpiMain"},
        ),
        make_slot(2, "notify_demo listener", bgw_type="notify_demo", age=45.0),
        make_slot(
            3,
            "order-drain",
            generation=2,
            state="waiting_restart",
            restarts=3,
            restart_in=3.2,
            last_exit=make_exit(reason="exit 1: connection refused"),
            reason="exit 1: connection refused; restarts after 10 s, try 5",
        ),
        make_slot(4, "heartbeat", bgw_type="notify_demo", age=3700.0),
        *exports,
        make_slot(
            12, "report nightly", state="not_yet_started", origin="dynamic", reason="database is a standby; starts on promotion"
        ),
        rejected=[{"bgw_name": "too-many", "error": "too many background workers"}],
    )
    return status
