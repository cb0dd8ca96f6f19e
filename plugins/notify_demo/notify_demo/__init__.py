"""A sample plugin around NOTIFY: one worker sends a heartbeat, another one is woken by it.

Meant to be read and copied. It shows

- ``heartbeat``: a static worker by entry point alone (group ``bgworker.workers``), with its
  registration keys on the function; its notifications go out when the transaction commits,
- ``notify_demo listener``: a dynamic worker that sleeps until a notification sets its latch
  (``wake_on``). It has no database connection: the host listens for all workers, on one,
- ``notify_demo counter``: a dynamic worker that is an ``async def`` function,
- ``bgworker_ready``: registering dynamic workers once the host runs,
- ``bgworker_event``: taking note of what happens to workers,
- ``bgworker notify-demo listen`` (``cli.py``): a command of the plugin's own.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from typing import Any

from bgworker import DATABASE_WORKER_FLAGS, BackgroundWorker, aio, background_worker, hookimpl, spi, worker

__all__ = ["CHANNEL", "bgworker_event", "bgworker_ready", "counter_main", "dynamic_workers", "heartbeat_main", "listener_main"]

log = logging.getLogger(__name__)

#: The NOTIFY channel of the heartbeat.
CHANNEL = "heartbeat"


@background_worker(
    bgw_type="notify_demo",
    bgw_flags=DATABASE_WORKER_FLAGS,
    bgw_restart_time=5,
    # What the function gets; [worker.bgw_main_arg] in workers.toml may say otherwise.
    bgw_main_arg={"every": 1.0},
)
def heartbeat_main(main_arg: Any) -> None:
    """Send a notification every so often, with a count and this worker's pid."""
    worker.unblock_signals()
    worker.connect()
    # The loop most workers are: the first turn at once, each later one after a wait. It resets the latch and heeds SIGTERM.
    for count, _ in enumerate(worker.latch_loop(timeout=float(main_arg["every"])), 1):
        with spi.transaction():
            # Nobody hears of it before the commit, and after a rollback nobody ever does.
            spi.async_notify(CHANNEL, json.dumps({"count": count, "pid": os.getpid()}))
        worker.report_activity("idle", f"beat {count}")


def listener_main(main_arg: Any) -> None:
    """Sleep until a heartbeat comes, then show it; say so when none comes for a while."""
    worker.unblock_signals()
    patience = float(main_arg["patience"])
    heard = 0
    worker.report_activity("idle", "nothing heard yet")
    for events in worker.latch_loop(timeout=patience):
        # Everything that came since the last look; the latch says only that something did.
        beats = [beat for notification in worker.notifications() if (beat := read_beat(notification.payload)) is not None]
        heard += len(beats)
        if beats:
            worker.report_activity("idle", f"beat {beats[-1]['count']} of pid {beats[-1]['pid']}, {heard} heard")
        elif events & worker.WL_TIMEOUT:
            worker.report_activity("idle", f"{heard} heard, none for {patience:g} s")


async def counter_main(main_arg: Any) -> None:
    """Count up, as an asyncio worker: signals are unblocked already, and SIGTERM cancels this task."""
    count = 0
    async for _ in aio.latch_loop(timeout=float(main_arg["every"])):
        count += 1
        aio.report_activity("idle", f"counted to {count}")


def read_beat(payload: str) -> dict[str, Any] | None:
    """Return a heartbeat's count and pid; None for a payload that anybody else sent on its channel."""
    try:
        beat = json.loads(payload)
    except ValueError:
        return None
    return beat if isinstance(beat, dict) and beat.keys() >= {"count", "pid"} else None


def dynamic_workers() -> list[BackgroundWorker]:
    """Return the workers that bgworker_ready registers."""
    return [
        BackgroundWorker(
            bgw_name="notify_demo listener",
            bgw_type="notify_demo",
            # Dynamic workers are never restarted unless they say so.
            bgw_restart_time=5,
            bgw_library_name="notify_demo",
            bgw_function_name="listener_main",
            bgw_main_arg={"patience": 10.0},
            wake_on=(CHANNEL,),
        ),
        BackgroundWorker(
            bgw_name="notify_demo counter",
            bgw_type="notify_demo",
            bgw_restart_time=5,
            bgw_library_name="notify_demo",
            bgw_function_name="counter_main",
            bgw_main_arg={"every": 1.0},
        ),
    ]


@hookimpl
def bgworker_ready(host: Any) -> None:
    """Register the dynamic workers, once the host runs."""
    for registration in dynamic_workers():
        # if_absent: should the launcher die in here, the hook is called again, and one of each is enough.
        host.register_dynamic_background_worker(registration, if_absent=True)


#: How many workers started and exited since the launcher started.
_tally: Counter[str] = Counter()


@hookimpl
def bgworker_event(event: Any) -> None:
    """Count the starts and exits of all workers, and log each of them."""
    if event["event"] not in ("started", "exited"):
        return
    _tally[event["event"]] += 1
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:  %(message)s")
    log.info("notify_demo: %s (starts: %d, exits: %d)", event["message"], _tally["started"], _tally["exited"])
