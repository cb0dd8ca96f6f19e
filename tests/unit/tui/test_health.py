"""What needs a human, and which workers a name means."""

from __future__ import annotations

from typing import Any

from bgworker._core import reasons
from bgworker.tui import health, model


def test_words_are_the_hosts() -> None:
    """What is recognised in a reason is what the core writes; the view may not import it."""
    assert health.SCALED_AWAY == reasons.BY_SCALE
    assert health.STAYS_DOWN in reasons.STAYS_DOWN


def test_all_is_well(make_status: Any, make_slot: Any, now: float) -> None:
    """Started workers, and one that waits for a standby's promotion, need nobody."""
    status = make_status(make_slot(1, "a"), make_slot(2, "b", state="not_yet_started", reason="waits for the database"))
    assert health.troubles(status, now) == []


def test_every_trouble_is_said(make_status: Any, make_slot: Any, make_exit: Any, now: float) -> None:
    """A restarting worker, a rejected one, a failed one, a broken plugin and a lost database are each one sentence."""
    status = make_status(
        make_slot(3, "drain", state="waiting_restart", restart_in=4, last_exit=make_exit(reason="exit 1: connection refused")),
        host={"database": {"kind": "external", "phase": "unreachable", "detail": "connection refused", "url": ""}},
        broken_plugins=[{"name": "bad", "error": "could not import"}],
        rejected=[{"bgw_name": "more", "error": "too many background workers"}],
        finished=[
            {"bgw_name": "job", "slot": 1, "generation": 1, "last_exit": make_exit(code=3, reason="exit 3"), "reason": "exit 3"}
        ],
    )
    assert health.troubles(status, now) == [
        "The database cannot be reached: connection refused.",
        'Plugin "bad" is broken: could not import.',
        'Background worker "more" is not registered: too many background workers.',
        'Background worker "drain" is down: exit 1: connection refused; it is started again in 4.0s.',
        'Background worker "job" is over: exit 3.',
    ]


def test_a_worker_that_keeps_failing_stays_trouble(make_slot: Any, make_exit: Any, now: float) -> None:
    """A worker that has just come back from a failure is no healthy row yet, so that it does not jump once a second."""
    failed = make_exit(reason="exit 1: boom", ago=8.0)
    assert health.is_trouble(make_slot(1, "a", age=2.0, last_exit=failed), now)
    assert not health.is_trouble(make_slot(1, "a", age=health.SETTLE_SECONDS + 1, last_exit=failed), now)


def test_an_exit_that_was_asked_for_is_no_trouble(make_slot: Any, make_exit: Any, now: float) -> None:
    """Exit code 1 of a worker that was told to go is no failure: its last words say so, or its start before its time."""
    told = make_exit(reason='exit 1: FATAL:  terminating background worker "a" due to administrator command')
    assert not health.is_trouble(make_slot(1, "a", age=2.0, last_exit=told), now)
    assert not health.is_trouble(make_slot(1, "a", age=2.0, last_exit=make_exit(reason="exit 1", ago=2.1)), now)
    crashed = make_exit(code=None, signal=9, reason="signal 9 (Killed)", ago=2.1)
    assert health.is_trouble(make_slot(1, "a", age=2.0, last_exit=crashed), now)
    assert not health.has_failed({"bgw_name": "a", "last_exit": make_exit(), "reason": "terminated by an operator; stays down"})
    assert not health.has_failed({"bgw_name": "a", "last_exit": make_exit(code=0), "reason": "exit 0"})
    assert not health.has_failed(
        {"bgw_name": "a", "last_exit": make_exit(code=3, reason="exit 3"), "reason": "scaled away; comes back"}
    )


def test_an_exit_as_asked_is_no_failure(make_slot: Any, make_exit: Any, now: float) -> None:
    """What the host says it was asked for is no failure, with whatever code or signal; a worker's own words do not count."""
    for reason in ("exit 3, as asked: stopped because the database is not read-write", "signal 9 (Killed), as asked: x"):
        assert not health.is_trouble(make_slot(1, "a", age=2.0, last_exit=make_exit(code=3, reason=reason, ago=60.0)), now)
    forged = make_exit(code=3, reason="exit 3: exit 3, as asked: x", ago=60.0)
    assert health.is_trouble(make_slot(1, "a", age=2.0, last_exit=forged), now)


def test_a_worker_that_needs_more_memory_is_trouble(make_slot: Any, make_exit: Any, now: float) -> None:
    """Recycled soon after its start it will be so again; recycled after a good while it was meant to be."""
    why = "exit 1, as asked: recycled: it uses 24M of memory{}, and its max_memory is 20M"
    early, late = (make_exit(reason=why.format(age), ago=2.1) for age in (" already 2 s after its start", ""))
    assert health.is_trouble(make_slot(1, "a", age=2.0, last_exit=early), now)
    assert not health.is_trouble(make_slot(1, "a", age=health.SETTLE_SECONDS + 1, last_exit=early), now)
    assert not health.is_trouble(make_slot(1, "a", age=2.0, last_exit=late), now)


def test_holders_of_the_slots(make_status: Any, make_slot: Any) -> None:
    """Who holds the slots is told by type and library, the most first, few of them by name."""
    slots = [make_slot(n, f"export {n}", bgw_type="export") for n in range(3)]
    slots += [make_slot(3 + n, name) for n, name in enumerate("abcdef")]
    assert health.held_by(make_status(*slots)) == (
        "export (3, shop_queue), a (1, shop_queue), b (1, shop_queue), c (1, shop_queue), d (1, shop_queue), others (2)"
    )
    assert health.held_by(make_status()) == ""


def test_a_standby_is_no_trouble(make_slot: Any, make_exit: Any, now: float) -> None:
    """A singleton worker whose work another host does is as it should be, however its last life ended."""
    reason = 'waits for singleton lock held by "a" on host web-1 (backend PID 7); starts when it is free'
    slot = make_slot(1, "a", state="waiting_restart", reason=reason, last_exit=make_exit(reason="exit 1: boom"))
    assert not health.is_trouble(slot, now)
    assert health.is_trouble({**slot, "reason": "exit 1: boom; restarts after 1 s, try 2"}, now)


def test_names_select(make_status: Any, make_slot: Any, now: float) -> None:
    """NAME is a name, a slot or slot.generation; a shared name selects everybody who bears it; a name of nobody is told."""
    status = make_status(make_slot(1, "a"), make_slot(2, "a"), make_slot(3, "b", generation=7))
    chosen, missing = health.select(status, ("a",), False, now)
    assert [s["slot"] for s in chosen["slots"]] == [1, 2]
    assert missing == []
    chosen, missing = health.select(status, ("3.7", "2", "3.6", "zz"), False, now)
    assert [s["slot"] for s in chosen["slots"]] == [2, 3]
    assert missing == ["3.6", "zz"]


def test_the_name_that_instances_share_selects_them(make_status: Any, make_slot: Any, now: float) -> None:
    """All of them, those that are over or could not be registered included; a worker of the very name alone, if there is one."""
    slots = [make_slot(n, f"web-{n}", config={"instance": n}) for n in (1, 2)]
    over = [
        {"bgw_name": "web-3", "slot": 3, "generation": 1, "last_exit": None, "reason": "exit 0"},
        {"bgw_name": "web-4", "slot": 4, "generation": 1, "last_exit": None, "reason": "scaled away (exit 1)"},
        {"bgw_name": "job-1", "slot": 5, "generation": 1, "last_exit": None, "reason": "exit 0"},
    ]
    status = make_status(*slots, make_slot(6, "other"), finished=over, rejected=[{"bgw_name": "web-9", "error": "x"}])
    chosen, missing = health.select(status, ("web", "job"), False, now)
    assert [s["bgw_name"] for s in chosen["slots"]] == ["web-1", "web-2"]
    assert [f["bgw_name"] for f in chosen["finished"]] == ["web-3"]
    assert [r["bgw_name"] for r in chosen["rejected"]] == ["web-9"]
    assert missing == ["job"], "nothing says that it is an instance, and not a dynamic worker"
    status["slots"].append(make_slot(7, "web"))
    assert [s["bgw_name"] for s in health.select(status, ("web",), False, now)[0]["slots"]] == ["web"]


def test_instances_of_a_host_that_is_down(make_status: Any, now: float) -> None:
    """Its files know names alone."""
    over = [{"bgw_name": "web-1", "slot": 3, "generation": 1, "last_exit": None, "reason": "exit 0"}]
    status = make_status(host={"state": "down"}, finished=over)
    assert health.select(status, ("web",), False, now)[0]["finished"] == over


def test_only_trouble(shop: dict[str, Any], now: float) -> None:
    """--failed leaves what needs a human, and nothing else."""
    chosen, _ = health.select(shop, (), True, now)
    assert [s["bgw_name"] for s in chosen["slots"]] == ["order-drain"]
    assert [r["bgw_name"] for r in chosen["rejected"]] == ["too-many"]


def test_a_newer_or_older_host_is_read(now: float) -> None:
    """Missing keys are unknown facts: no key of the status but those asked for may be relied on."""
    assert health.troubles({}, now) == []
    assert health.troubles({"slots": [{"state": "waiting_restart"}]}, now) != []


def test_an_old_failure_of_a_job_is_forgiven(make_exit: Any, now: float) -> None:
    """A job that failed needs a human for an hour; a static worker that is over, until somebody starts it."""
    job = {"bgw_name": "job", "last_exit": make_exit(code=3, reason="exit 3", ago=3500), "reason": "exit 3"}
    assert health.is_fresh_failure(job, now)
    assert not health.is_fresh_failure(job, now + 200)


def test_worker_that_waits_for_its_phase_is_no_trouble(make_slot: Any, make_exit: Any, make_status: Any, now: float) -> None:
    """A worker that the host stopped because its phase was lost waits, whatever its exit code: the database is the trouble."""
    reason = "stopped because the database is not read-write (exit 1); waits for the database to be read-write: it is starting"
    slot = make_slot(1, "w", state="waiting_restart", last_exit=make_exit(reason="exit 1"), reason=reason)
    assert health.troubles(make_status(slot), now) == []
    (row,) = model.build(make_status(slot), now).rows
    assert (row.state, row.why) == ("waiting", reason)


def test_which_exits_are_successes(make_exit: Any) -> None:
    """Code 0 of a function that ran and a code that the worker counts as one; a worker's own words make no success."""
    for code, reason, is_failure in (
        (0, "exit 0", False),
        (0, "failed to start: exit 0", True),
        (3, "exit 3 (success)", False),
        (3, "crash: exit 3", True),
        (1, "exit 1: exit 1 (success)", True),
    ):
        assert health.is_failure({**make_exit(code=code), "reason": reason}) is is_failure, reason
