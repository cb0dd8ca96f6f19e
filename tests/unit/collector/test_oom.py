"""The counters of the OOM killer."""

from __future__ import annotations

from pathlib import Path

from bgworker._collector.oom import OomCounter


def test_a_rise_is_told_once(tmp_path: Path) -> None:
    """A kill since the last look is seen, once, in the first file that has a counter."""
    other, events = tmp_path / "other", tmp_path / "memory.events"
    other.write_text("low 0\n")
    events.write_text("low 0\noom 7\noom_kill 2\noom_group_kill 0\n")
    counter = OomCounter([str(tmp_path / "missing"), str(other), str(events)])
    assert counter.has_killed() is False
    events.write_text("oom_kill 3\n")
    assert counter.has_killed() is True
    assert counter.has_killed() is False
    events.unlink()
    assert counter.has_killed() is None


def test_without_a_counter_nothing_is_known(tmp_path: Path) -> None:
    """Where no file has a counter the answer is that nobody knows."""
    assert OomCounter([str(tmp_path / "missing")]).has_killed() is None


def test_this_machine_can_be_asked() -> None:
    """Whatever this machine has, looking at it is no error."""
    assert OomCounter().has_killed() in (False, None)
