"""_host/plan.py: what becomes of each worker, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bgworker._host import plan as module
from bgworker._host.plan import Action, Configured, Shown, changed_keys, make_plan
from bgworker._spec import BackgroundWorker, sanity_check

BASE = sanity_check(BackgroundWorker(bgw_name="w", bgw_library_name="l", bgw_function_name="f"), is_dynamic=False)


def up(worker: BackgroundWorker) -> Configured:
    """Return a worker that runs."""
    return Configured(worker, True, True)


def changed(**keys: Any) -> list[str]:
    """Return in words what differs from the base."""
    return [str(change) for change in changed_keys(BASE, replace(BASE, **keys))]


@pytest.mark.parametrize(
    ("keys", "action"),
    [
        ({}, Action.NOTHING),
        ({"stop_timeout": 9.0}, Action.LIVE),
        ({"stop_timeout": 9.0, "bgw_restart_time": 5.0, "wake_on": ("a",)}, Action.LIVE),
        ({"bgw_extra": "x"}, Action.RESTART),
        ({"stop_timeout": 9.0, "bgw_main_arg": 1}, Action.RESTART),
    ],
)
def test_what_a_change_takes(keys: dict[str, Any], action: Action) -> None:
    """One key that needs a restart is enough for one."""
    (change,) = make_plan({"w": up(BASE)}, {"w": replace(BASE, **keys)}, 0)
    assert change.action is action


def test_upgrade_leaves_restarts_to_whoever_asked() -> None:
    """A changed registration waits for the worker's next life; what is live is live."""
    (change,) = make_plan({"w": up(BASE)}, {"w": replace(BASE, bgw_extra="x")}, 0, is_upgrade=True)
    assert change.action is Action.LATER
    (change,) = make_plan({"w": up(BASE)}, {"w": replace(BASE, stop_timeout=1.0)}, 0, is_upgrade=True)
    assert change.action is Action.LIVE


def test_run_of_a_schedule_comes_to_its_end() -> None:
    """A changed registration is for the next run, whether one runs now or not; with or without a schedule is a change as any."""
    nightly = replace(BASE, schedule="0 3 * * *")
    for known in (up(nightly), Configured(nightly, True, False)):
        (change,) = make_plan({"w": known}, {"w": replace(nightly, schedule="0 4 * * *")}, 0)
        assert (change.action, change.reason) == (Action.LATER, 'schedule "0 3 * * *" -> "0 4 * * *"')
    for before, after in ((BASE, nightly), (nightly, BASE)):
        assert make_plan({"w": up(before)}, {"w": after}, 0)[0].action is Action.RESTART


def test_key_that_nobody_has_thought_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a restart, and nothing of its values is told."""
    monkeypatch.delitem(module.KEYS, "stop_timeout")
    (change,) = make_plan({"w": up(BASE)}, {"w": replace(BASE, stop_timeout=9.0)}, 0)
    assert change.action is Action.RESTART
    assert change.view()["keys"] == [{"key": "stop_timeout"}]


def test_values_in_words() -> None:
    """Numbers of bgw_main_arg are shown, its strings never; of a table the parts that differ."""
    assert changed(stop_timeout=9.0) == ["stop_timeout none -> 9"]
    assert changed(stop_timeout=0.25) == ["stop_timeout none -> 0.25"]
    assert changed(bgw_restart_time=-1) == ['bgw_restart_time 1 -> "BGW_NEVER_RESTART"']
    assert changed(wake_on=("a", "b")) == ['wake_on [] -> ["a", "b"]']
    assert changed(user="none") == ['user none -> "none"']
    limits = {"nofile": {"soft": 10, "hard": 20}, "core": "unlimited"}
    assert changed(rlimits=limits) == ['rlimits none -> { nofile = { soft = 10, hard = 20 }, core = "unlimited" }']
    assert changed(command=("echo", "\x1b\u202e")) == ['command none -> ["echo", "\\u001b?"]']
    assert changed(command=("x" * 100,)) == [f'command none -> ["{"x" * 55}...']
    assert changed(success_exit_codes=(0, None)) == ["success_exit_codes [] -> ..."]  # nobody registers it; nobody is stopped by it
    assert changed(bgw_main_arg={"every": 2, "url": "secret"}) == ["bgw_main_arg changed"]
    before = replace(BASE, bgw_main_arg={"every": 1, "deep": {"on": True, "key": "secret"}, "same": 0})
    after = replace(BASE, bgw_main_arg={"every": 2.5, "deep": {"on": False, "key": "other"}, "same": 0, "n\x1bew": 3})
    assert [str(change) for change in changed_keys(before, after)] == [
        "bgw_main_arg.every 1 -> 2.5",
        "bgw_main_arg.deep.on true -> false",
        "bgw_main_arg.deep.key changed",
        "bgw_main_arg.n?ew none -> 3",
    ]
    assert not any("secret" in str(change.view()) for change in changed_keys(before, after))


def test_reason_is_bounded() -> None:
    """Many changed parts are counted, very many are one."""
    before, after = ({"w": replace(BASE, bgw_main_arg={str(n): n + add for n in range(20)})} for add in (0, 1))
    (change,) = make_plan({"w": up(before["w"])}, after, 0)
    assert change.reason.endswith(", and 12 more")
    many = replace(BASE, bgw_main_arg={str(n): n for n in range(1000)})
    assert [str(c) for c in changed_keys(replace(BASE, bgw_main_arg={}), many)] == ["bgw_main_arg changed"]


def test_slots_are_counted() -> None:
    """C14: what is removed without a process gives its slot at once, what has one only later."""
    new = {name: replace(BASE, bgw_name=name) for name in ("a", "b")}
    plan = make_plan({"idle": Configured(BASE, True, False), "busy": up(BASE)}, new, 0)
    assert [(c.bgw_name, c.action) for c in plan] == [
        ("idle", Action.STOP),
        ("busy", Action.STOP),
        ("a", Action.START),
        ("b", Action.REJECTED),
    ]


def test_what_is_down_stays_down() -> None:
    """C29: changed or not, and the reason says why it is down."""
    down = Configured(BASE, False, False, "terminated by an operator")
    (change,) = make_plan({"w": down}, {"w": replace(BASE, bgw_extra="x")}, 5)
    assert change.action is Action.NOTHING
    assert (
        change.reason
        == "it stays down (terminated by an operator), and has changed: bgw_extra changed; start it with: bgworker start w"
    )
    (change,) = make_plan({"w": down}, {}, 5)
    assert change.action is Action.NOTHING


def test_what_may_be_shown() -> None:
    """Whatever an author hands to a worker may be a secret."""
    assert module.KEYS["bgw_extra"].shown is Shown.NOTHING
    assert module.KEYS["bgw_main_arg"].shown is Shown.NUMBERS
