"""SIGTERM, SIGINT, SIGHUP and SIGUSR1 in every situation a worker can be in, but for the database's."""

from __future__ import annotations

import signal
import time

import pytest
from tests.integration.worker.driving import PlayedHost

FATAL = 'FATAL:  terminating background worker "tested" due to administrator command\n'


@pytest.mark.parametrize("function", ["spin", "sleep_plainly", "wait_for_ever"])
def test_sigterm_ends_plain_code_and_waits_at_once(host: PlayedHost, function: str) -> None:
    """C22: once unblocked, SIGTERM ends a loop that calls nothing, a sleep and a wait: FATAL line, exit code 1."""
    life = host.start(function)
    life.read_until("ready")
    if function != "spin":
        life.wait_until_asleep()
    began = time.monotonic()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert time.monotonic() - began < 2
    assert life.read("err") == FATAL


def test_sigterm_inside_a_destructor_is_not_lost(host: PlayedHost) -> None:
    """C22: Python swallows what a handler raises inside a destructor; plain code is ended all the same, and nothing is printed."""
    life = host.start("spin_after_destructor")
    life.read_until("in the destructor")
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert life.read("err") == FATAL


def test_sigterm_before_unblocking_arrives_with_it(host: PlayedHost) -> None:
    """C21: a SIGTERM that came while signals were blocked ends the worker when it unblocks."""
    life = host.bear()
    life.signal(signal.SIGTERM)
    life.assign("wait_for_ever")
    life.expect_started()
    assert life.wait() == 1
    assert "ready" not in life.read("out")
    assert life.read("err") == FATAL


def test_sigterm_never_unblocked_stays_pending(host: PlayedHost) -> None:
    """C21: a worker that never unblocks goes on, until it is killed."""
    life = host.start("never_unblock")
    life.read_until("ready")
    life.wait_until_asleep()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        life.signal(signum)
    life.wait_until_asleep()
    life.signal(signal.SIGQUIT)
    assert life.wait() == -signal.SIGQUIT


def test_worker_installs_its_own_handler(host: PlayedHost) -> None:
    """C21, C23: a handler that the worker installed before unblocking runs, and may set the latch; the exit is the function's."""
    life = host.start("own_handler")
    life.read_until("ready")
    life.signal(signal.SIGTERM)
    assert life.wait() == 0
    assert f"handled [{int(signal.SIGTERM)}]" in life.read("out")
    assert life.read("err") == ""


def test_swallowed_termination_comes_again(host: PlayedHost) -> None:
    """C22: code that swallows Terminated gets it at its next wait, and cannot make the exit code 0."""
    life = host.start("swallow")
    life.read_until("ready")
    life.wait_until_asleep()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert life.read("out").count("swallowed") == 2
    assert life.read("err") == FATAL


def test_held_termination_is_raised_at_the_end(host: PlayedHost) -> None:
    """C22: inside hold_interrupts() the wait returns but nothing is raised; the end of the block raises it."""
    life = host.start("hold")
    life.read_until("ready")
    life.wait_until_asleep()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert life.read("out").splitlines()[1:] == ["held through, bits 1", "raised at the end"]


def test_error_in_a_held_block_is_not_lost(host: PlayedHost) -> None:
    """C32: when a held block fails and SIGTERM came meanwhile, the log has the failure and the FATAL line."""
    life = host.start("hold_and_fail")
    life.read_until("ready")
    life.wait_until_asleep()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    log = life.read("err")
    assert "ValueError: inside the block" in log
    assert log.endswith(FATAL)


def test_sigint_without_a_query_does_nothing(host: PlayedHost) -> None:
    """C22: SIGINT cancels a query; without one it is ignored."""
    life = host.start("wait_for_ever")
    life.read_until("ready")
    for _ in range(3):
        life.wait_until_asleep()
        life.signal(signal.SIGINT)
    life.wait_until_asleep()
    life.signal(signal.SIGTERM)
    assert life.wait() == 1
    assert life.read("err") == FATAL


def test_sighup_sets_latch_and_flag(host: PlayedHost) -> None:
    """C25: after SIGHUP the loop runs, the worker asks for the settings when it chooses, and the flag is clear again."""
    life = host.start("reload_loop", settings={"functions": {"naptime": None}})
    life.read_until("pass {'naptime': None} False\n")
    life.signal(signal.SIGHUP)
    life.serve("settings", {"settings": {"functions": {"naptime": 0.01}}})
    life.read_until("pass {'naptime': 0.01} False\npass {'naptime': 0.01} False\n")  # the new naptime is in force
    life.signal(signal.SIGHUP)
    # A reload during the request is a new one: the flag stays up, and the next pass asks again.
    request = life.receive("settings")
    life.signal(signal.SIGHUP)
    life.wait_until_asleep()
    life.send({"id": request["id"], "result": {"settings": {"functions": {"naptime": 0.02}}}})
    life.read_until("True\n")
    life.serve("settings", {"settings": {"functions": {"naptime": 0, "stop": True}}})
    assert life.wait() == 0


def test_loop_without_unblocking_says_so(host: PlayedHost) -> None:
    """C21: a latch loop that SIGTERM cannot reach warns once, with the remedy."""
    life = host.start("loop_blocked")
    assert life.wait() == 0
    log = life.read("err")
    assert 'WARNING:  background worker "tested" loops with its signals still blocked' in log
    assert "HINT:  Call bgworker.worker.unblock_signals() before the loop." in log


def test_handlers_may_raise_in_a_request(host: PlayedHost) -> None:
    """An author's own handler that raises in the middle of a request leaves the channel usable."""
    life = host.start("raise_in_request")
    life.read_until("ready")
    first = life.receive("settings")
    life.wait_until_asleep()
    life.signal(signal.SIGUSR2)
    second = life.receive("settings")
    life.send({"id": first["id"], "result": {"settings": {"functions": "late"}}})
    life.send({"id": second["id"], "result": {"settings": {"functions": "right"}}})
    assert life.wait() == 0
    assert life.read("out").splitlines()[1:] == ["own handler", "right"]
