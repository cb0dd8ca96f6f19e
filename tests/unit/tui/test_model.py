"""Order, words and folds of the rows."""

from __future__ import annotations

from typing import Any

import pytest

from bgworker.tui import model
from bgworker.tui.model import Group


def rows_of(status: dict[str, Any], now: float, **options: Any) -> list[tuple[str, str, str]]:
    return [(row.slot, row.name, row.state_words) for row in model.build(status, now, **options).rows]


def test_trouble_first_then_by_slot(shop: dict[str, Any], now: float) -> None:
    """Rows stand in the order trouble, waiting, running, and by slot within each; seven exports are one row."""
    assert rows_of(shop, now) == [
        ("3.2", "order-drain", "restart in 4s"),
        ("-", "too-many", "not registered"),
        ("12.1", "report nightly", "waiting"),
        ("1.1", "worker_spi worker 1", "started"),
        ("2.1", "notify_demo listener", "started"),
        ("4.1", "heartbeat", "started"),
        (".", "export (7)", "started x7"),
    ]


def test_a_standby_waits(make_status: Any, make_slot: Any, make_exit: Any, now: float) -> None:
    """A singleton worker whose work another host does waits, with the reason, also after a life that failed."""
    reason = 'waits for singleton lock held by "a" on host web-1 (backend PID 7); starts when it is free'
    slot = make_slot(1, "a", state="waiting_restart", reason=reason, last_exit=make_exit(reason="exit 1: boom"))
    (row,) = model.build(make_status(slot), now).rows
    assert (row.state_words, row.group, row.why) == ("waiting", Group.WAITING, reason)


def test_who_waits_for_a_schedule(make_status: Any, make_slot: Any, make_exit: Any, now: float) -> None:
    """Its next run and how far that is; nobody restarts it. A last run that failed is trouble until the next one."""
    keys: dict[str, Any] = {"state": "waiting_restart", "config": {"schedule": "0 3 * * *"}}
    slots = [
        make_slot(1, "well", restart_in=300.0, last_exit=make_exit(0), reason="exit 0; next run at T", **keys),
        make_slot(2, "failed", restart_in=300.0, last_exit=make_exit(1, reason="exit 1"), reason="exit 1; next run at T", **keys),
        make_slot(3, "new", restart_in=90.0, reason="next run at T", **{**keys, "state": "not_yet_started"}),
    ]
    rows = model.build(make_status(*slots), now).rows
    assert [(row.name, row.group, row.state, row.why, row.restart_in) for row in rows] == [
        ("failed", Group.TROUBLE, "waiting", "exit 1; next run at T (in 5m00s)", None),
        ("well", Group.WAITING, "waiting", "exit 0; next run at T (in 5m00s)", None),
        ("new", Group.WAITING, "waiting", "next run at T (in 1m30s)", None),
    ]


def test_counts_of_the_second_line(shop: dict[str, Any], now: float) -> None:
    """Every worker is counted once, in words, and what needs a human is marked."""
    assert model.build(shop, now).counts == (
        ("1 restarting", True),
        ("1 waiting", False),
        ("1 not registered", True),
        ("10 started", False),
    )


def test_the_head_speaks_of_the_whole(shop: dict[str, Any], now: float) -> None:
    """Rows may be a selection; how many slots are in use, and how many workers are in which state, never is."""
    shown = {**shop, "slots": shop["slots"][:1], "rejected": []}
    view = model.build(shop, now, shown=shown)
    assert [row.name for row in view.rows] == ["worker_spi worker 1"]
    assert view.slots_in_use == 12
    assert view.counts == model.build(shop, now).counts


def test_a_fold_speaks_for_all(shop: dict[str, Any], now: float) -> None:
    """A fold has the youngest age, the oldest one's activity and the sum of the restarts."""
    fold = model.build(shop, now).rows[-1]
    assert (fold.age_words, fold.why, fold.pid_words) == ("12s+", "order 42 (oldest, 5.9)", "-")
    assert len(fold.pids) == 7


def test_three_of_a_kind_are_not_folded(make_status: Any, make_slot: Any, now: float) -> None:
    """A few alike stay rows of their own; one more folds them."""
    slots = [make_slot(n, f"w{n}", bgw_type="w") for n in range(model.FOLD_FROM)]
    assert len(model.build(make_status(*slots[:-1]), now).rows) == model.FOLD_FROM - 1
    assert len(model.build(make_status(*slots), now).rows) == 1
    assert len(model.build(make_status(*slots), now, fold=False).rows) == model.FOLD_FROM


def test_trouble_folds_by_cause(make_status: Any, make_slot: Any, make_exit: Any, now: float) -> None:
    """Forty workers that fail for one reason are one row that says the reason; another cause keeps its own row."""
    down = [
        make_slot(
            n,
            f"w{n}",
            bgw_type="ab"[n % 2],
            state="waiting_restart",
            restart_in=n / 10,
            restarts=1,
            last_exit=make_exit(reason="exit 1: connection refused"),
        )
        for n in range(40)
    ]
    other = make_slot(50, "odd", state="waiting_restart", restart_in=2, last_exit=make_exit(reason="exit 1: disk full"))
    first, second = model.build(make_status(*down, other), now).rows
    assert (first.slot, first.name, first.state_words) == (".", "40 workers", "restarting x40")
    assert first.why == "exit 1: connection refused (a, b)"
    assert first.restarts == 40
    assert (second.name, second.why) == ("odd", "exit 1: disk full")


def test_rows_do_not_jump_when_only_numbers_change(shop: dict[str, Any], now: float) -> None:
    """Time, restarts and activity change a row's words, never its place."""
    before = [row[:2] for row in rows_of(shop, now)]
    for slot in shop["slots"]:
        slot["restarts"] += 5
        slot["activity"] = {"state": "busy", "text": "something else", "wait_event": ""}
    assert [row[:2] for row in rows_of(shop, now + 3)] == before


@pytest.mark.parametrize(
    ("activity", "words"),
    [
        ({"state": "idle", "text": "", "wait_event": "WorkerSpiMain"}, "idle: WorkerSpiMain"),
        ({"state": "idle", "text": "order 41", "wait_event": ""}, "idle: order 41"),
        ({"state": "idle", "text": "", "wait_event": ""}, "idle"),
        ({"state": "running", "text": "order 42", "wait_event": ""}, "order 42"),
        ({"state": "running", "text": "", "wait_event": "Lock"}, "running: Lock"),
        ({"state": "", "text": "", "wait_event": "LatchMain"}, "LatchMain"),
        (None, ""),
    ],
)
def test_activity_in_words(activity: Any, words: str) -> None:
    """C28: what a worker reports is shown, and for an idle one what it waits for."""
    assert model.activity_words(activity) == words


def test_restart_countdown(make_status: Any, make_slot: Any, make_exit: Any, now: float) -> None:
    """The countdown never says 0s while there is time left, and ends in "restarting"."""

    def words(left: float) -> str:
        slot = make_slot(1, "w", state="waiting_restart", restart_in=left, last_exit=make_exit())
        return model.build(make_status(slot), now).rows[0].state_words

    assert words(0.2) == "restart in 1s"
    assert words(3.0) == "restart in 3s"
    assert words(0.0) == "restarting"
    assert words(-5.0) == "restarting"


def test_a_clock_set_back_shows_no_negative_age(shop: dict[str, Any], now: float) -> None:
    """T26: with the wall clock an hour or a year back, ages are 0 and nothing crashes."""
    view = model.build(shop, now - 366 * 86_400)
    assert view.uptime == 0.0
    assert all(row.age is None or row.age >= 0 for row in view.rows)


def test_finished_workers(make_status: Any, make_exit: Any, now: float) -> None:
    """A failed one is always listed, one that ended well only on request."""
    status = make_status(
        finished=[
            {"bgw_name": "good", "slot": 1, "generation": 1, "last_exit": make_exit(code=0, reason="exit 0"), "reason": "exit 0"},
            {
                "bgw_name": "bad",
                "slot": 2,
                "generation": 1,
                "last_exit": make_exit(code=3, reason="exit 3"),
                "reason": "exit 3; over",
            },
        ]
    )
    assert rows_of(status, now) == [("2.1", "bad", "failed")]
    assert rows_of(status, now, show_finished=True) == [("2.1", "bad", "failed"), ("1.1", "good", "finished")]


@pytest.mark.parametrize(
    ("database", "words", "is_lost"),
    [
        (None, "none", False),
        ({"kind": "embedded", "phase": "recovery_finished", "detail": ""}, "embedded, read-write", False),
        ({"kind": "embedded", "phase": "recovery_finished", "detail": "deaf"}, "embedded, read-write: deaf", False),
        ({"kind": "external", "phase": "consistent", "detail": "a standby"}, "external, read-only: a standby", False),
        ({"kind": "external", "phase": "unreachable", "detail": "refused"}, "external, unreachable: refused", True),
        ({"kind": "external", "phase": "unreachable", "detail": ""}, "external, unreachable: it does not answer", True),
    ],
)
def test_database_in_words(make_status: Any, now: float, database: Any, words: str, is_lost: bool) -> None:
    """The second line says what kind of database there is, how far it is, and what is wrong with it."""
    view = model.build(make_status(host={"database": database}), now)
    assert (view.database, view.is_database_lost) == (words, is_lost)


def test_everything_from_workers_is_inert(make_status: Any, make_slot: Any, now: float) -> None:
    """T61: no name, type, activity, reason or error carries a control character out of the model."""
    evil = "x\x1b[31m\x07\n\u202e"
    status = make_status(
        make_slot(1, evil, reason=evil, activity={"state": evil, "text": evil, "wait_event": evil}),
        make_slot(2, evil, state="waiting_restart", last_exit={"code": 1, "signal": None, "at": evil, "reason": evil}),
        rejected=[{"bgw_name": evil, "error": evil}],
        broken_plugins=[{"name": evil, "error": evil}],
    )
    for row in model.build(status, now).rows:
        for text in (row.name, row.type, row.state, row.why):
            assert text.isprintable() or not any(ord(c) < 32 for c in text)
            assert "\x1b" not in text
            assert "\u202e" not in text


def test_groups_are_ordered() -> None:
    """The order of the enumeration is the order of the rows."""
    assert sorted(Group) == [Group.TROUBLE, Group.WAITING, Group.RUNNING, Group.FINISHED]


def test_an_empty_status_has_a_view(now: float) -> None:
    """A status without any key is drawn as unknown, not refused."""
    view = model.build({}, now)
    assert (view.state, view.rows, view.slots_in_use) == ("?", (), 0)
