"""_core/agenda.py: the earliest deadline of many, and who is due."""

from __future__ import annotations

from bgworker._core.agenda import Agenda


def test_latest_answer_counts() -> None:
    """A slot that was due soon and is due late, or never, is not found due soon."""
    agenda = Agenda()
    agenda.set_all({0: 5.0, 1: 3.0, 2: None})
    assert agenda.earliest() == 3.0
    agenda.set(1, 9.0)
    assert agenda.earliest() == 5.0
    agenda.set(0, None)
    assert agenda.earliest() == 9.0
    agenda.set(1, 3.0)
    assert agenda.earliest() == 3.0


def test_due_slots_come_in_order_and_are_asked_again() -> None:
    """Whoever was due is out until it has been asked; the others stay as they are."""
    agenda = Agenda()
    agenda.set_all({2: 1.0, 0: 2.0, 1: 7.0})
    assert agenda.take_due(2.0) == [0, 2]
    assert agenda.take_changed() == {0, 2}
    assert agenda.earliest() == 7.0
    agenda.set(2, 2.5)
    assert agenda.earliest() == 2.5


def test_set_all_forgets_what_was_entered_before() -> None:
    """After a change of everything only the new answers count."""
    agenda = Agenda()
    agenda.set_all({0: 1.0})
    agenda.changed(0)
    agenda.changed_all()
    agenda.set_all({1: 4.0})
    assert not agenda.is_all_changed
    assert agenda.take_changed() == set()
    assert agenda.earliest() == 4.0
