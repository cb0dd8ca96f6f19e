"""The latch in a real process: nothing lost, nothing returned that did not happen, no wake-up without cause."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from tests.integration.stillness import switches, wait_until_still
from tests.integration.worker.driving import Deadline, PlayedHost

from bgworker import worker

ROUNDS = 2000


def test_no_wakeup_by_signal_is_lost(host: PlayedHost) -> None:
    """C23: of 2000 signals, each sent right after the worker is done with the one before, none is lost."""
    life = host.start("rally", ROUNDS)
    life.read_until("ready\n")
    for _ in range(ROUNDS):
        life.signal(signal.SIGUSR1)
        while life.read_byte() != b".":
            pass
    life.read_until("over")
    assert life.wait() == 0


def test_no_wakeup_by_thread_is_lost(host: PlayedHost) -> None:
    """C23: of 2000 set_latch() of another thread, none is lost."""
    life = host.start("thread_rally", ROUNDS)
    assert life.read("out") == "over\n"
    assert life.wait() == 0


def test_signal_to_another_thread_wakes(host: PlayedHost) -> None:
    """C23: a signal that the kernel gives to another thread, which interrupts no system call of the main one, wakes the wait."""
    life = host.start("signal_to_a_thread")
    assert life.read("out") == f"{worker.WL_LATCH_SET} at once True\n"


def test_signal_storm_leaves_the_latch_working(host: PlayedHost) -> None:
    """C23: thousands of signals before a wait are one wake-up, and more than the pipe holds do no harm."""
    life = host.start("burst", 100_000)
    assert life.read("out") == f"{worker.WL_LATCH_SET}\nTrue\n"
    assert life.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "bits", "seconds"),
    [
        ({"timeout": 0}, worker.WL_TIMEOUT, 0),
        ({"timeout": -5}, worker.WL_TIMEOUT, 0),
        ({"timeout": 0.3}, worker.WL_TIMEOUT, 0.3),
    ],
)
def test_wait_times_out(host: PlayedHost, arguments: dict[str, float], bits: int, seconds: float) -> None:
    """C23: a wait returns WL_TIMEOUT alone, not before its time."""
    life = host.start("wait_with", arguments)
    found = re.search(r"bits (\d+) after ([\d.]+)", life.read("out"))
    assert found is not None
    assert int(found[1]) == bits
    assert seconds <= float(found[2]) < seconds + 1


def test_wait_reports_sockets(host: PlayedHost) -> None:
    """C23: WL_SOCKET_READABLE and WL_SOCKET_WRITEABLE say what can be done, beside the latch; a lost peer is readable."""
    life = host.start("wait_on_socket")
    assert life.read("out").split() == [
        str(int(bits))
        for bits in (
            worker.WL_TIMEOUT,
            worker.WL_SOCKET_WRITEABLE,
            worker.WL_SOCKET_READABLE,
            worker.WL_SOCKET_READABLE | worker.WL_LATCH_SET,
            worker.WL_SOCKET_READABLE,
        )
    ]


@pytest.mark.parametrize("exits", [False, True])
def test_wait_ends_with_the_host(host: PlayedHost, exits: bool) -> None:
    """C24: when the host dies, WL_POSTMASTER_DEATH returns and WL_EXIT_ON_PM_DEATH exits with code 1, signals blocked or not."""
    life = host.start("watch_host", exits)
    life.read_until("ready")
    life.wait_until_asleep()
    began = time.monotonic()
    life.die_as_host()
    code = life.wait()
    assert time.monotonic() - began < 1
    if exits:
        assert code == 1
        assert life.read("err") == 'FATAL:  terminating background worker "tested" due to unexpected host exit\n'
    else:
        assert code == 0
        assert life.read("out").splitlines()[1:] == [f"bits {int(worker.WL_POSTMASTER_DEATH)}", "HostNotRunning"]


def test_sleeping_worker_is_never_woken_without_cause(host: PlayedHost) -> None:
    """C23: a wait has no period: the kernel switches to a sleeping worker not once."""
    life = host.start("wait_for_ever")
    life.read_until("ready")
    wait_until_still(life.pid)
    before = switches(life.pid)
    life.signal(signal.SIGUSR1)
    # It has taken the signal only once it has run; that it sleeps says nothing of that.
    deadline = Deadline("the worker to run")
    while switches(life.pid) == before and deadline.left:
        os.sched_yield()
    wait_until_still(life.pid)


def test_activity_and_wait_event_are_shown(host: PlayedHost) -> None:
    """C28: report_activity() and the wait event are in the worker's record of the activity table, cut at a character."""
    life = host.start("report")
    life.read_until("reported")
    life.wait_for_activity(wait_event="ReportMain")
    record = life.activity()
    assert record.generation == 7
    assert record.state == "running"
    assert record.text.startswith("order 42 äxx")
    assert 300 < len(record.text) < 500


def test_activity_of_a_predecessor_is_taken_over(host: PlayedHost) -> None:
    """C28: a new worker in the slot starts with an empty record, even when its predecessor was killed while writing."""
    os.pwrite(host.activity_table.fd, (7).to_bytes(8, "little") + b"\xff" * 504, 512)
    life = host.start("wait_for_ever")
    life.wait_for_activity(state="", text="", wait_event="Testing")


def test_notifications_set_the_latch(host: PlayedHost) -> None:
    """C27: what the host pushes wakes the worker and is readable, in order, gaps in their place."""
    life = host.start("print_notifications", 4)
    life.read_until("ready")
    life.wait_until_asleep()
    life.send({"type": "notify", "channel": "orders", "payload": "42"})
    life.read_until("42")
    life.send({"type": "notify", "channel": "orders", "payload": ""})
    life.send({"type": "gap", "channels": ["orders"]})
    life.send({"type": "something of a newer host"})
    life.send({"type": "notify", "channel": "más", "payload": "ü"})
    assert life.wait() == 0
    assert life.read("out").splitlines()[1:] == [
        "('orders', '42', False)",
        "('orders', '', False)",
        "('orders', '', True)",
        "('más', 'ü', False)",
    ]


def test_host_that_closes_the_channel_does_not_spin_the_worker(host: PlayedHost) -> None:
    """C24: a channel at its end, with the host alive, neither ends a wait nor keeps it busy."""
    life = host.start("wait_for_ever")
    life.read_until("ready")
    life.channel.close()
    wait_until_still(life.pid)
    life.signal(signal.SIGTERM)
    assert life.wait() == 1


def test_event_loops_of_the_workers_own(host: PlayedHost) -> None:
    """C23: in a loop that a blocking worker runs, blocking faces name their twins; after it no wake-up is lost."""
    life = host.start("run_asyncio")
    life.read_until("ready\n")
    life.wait_until_asleep()
    life.signal(signal.SIGUSR1)
    assert life.wait() == 0
    out = life.read("out").splitlines()
    assert out[:5] == [
        f"Use bgworker.aio.{twin} in an async worker."
        for twin in ("wait_latch()", "latch_loop()", "process_config_file()", "connect_database()", "transaction()")
    ]
    assert out[-1] == "1"


def test_threads_may_set_but_not_wait(host: PlayedHost) -> None:
    """C23: latch and connection are the main thread's; other threads may set it, report, and ask the host."""
    life = host.start("use_threads")
    life.serve("register", {"handle": "3.9"})
    assert life.wait() == 0, life.read("err")
    assert life.read("out").split() == ["UsageError"] * 4 + ["3.9", "1"]
