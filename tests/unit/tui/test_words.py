"""Durations, sizes, instants and what others wrote, as the view writes them."""

from __future__ import annotations

import pytest

from bgworker.tui.words import clean, clock, duration, exact_duration, how_it_ended, instant, percent, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"),
        (6.9, "6s"),
        (59.99, "59s"),
        (60, "1m00s"),
        (130, "2m10s"),
        (3599, "59m59s"),
        (3600 * 3 + 240, "3h04m"),
        (86_400 * 3 + 3600 * 4, "3d04h"),
        (86_400 * 120, "120d"),
        (-7200, "0s"),
    ],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    """A duration takes six cells at most, and a clock that was set back shows as nothing, not as a negative age."""
    assert duration(seconds) == words
    assert len(duration(seconds)) <= 6


def test_durations_in_sentences() -> None:
    """A tenth is told where it matters and nowhere else."""
    assert [exact_duration(s) for s in (0.84, 9.94, 9.96, 130, -1)] == ["0.8s", "9.9s", "10s", "2m10s", "0.0s"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0K"), (980 * 1024, "980K"), (14 * 2**20, "14M"), (1.2 * 2**30, "1.2G"), (18 * 2**30, "18G"), (3 * 2**40, "3.0T")],
)
def test_sizes_are_short(count: float, words: str) -> None:
    """A size takes five cells at most."""
    assert size(count) == words
    assert len(words) <= 5


def test_percent_fits_its_column() -> None:
    """A share of many processors does not burst the column."""
    assert percent(41.4) == "41%"
    assert len(percent(64_000.0)) <= 4


def test_instants_that_are_none() -> None:
    """Null, or a text that is no instant, is an unknown instant and no error."""
    assert instant(None) is None
    assert instant("yesterday") is None
    assert instant("1970-01-01T00:01:00Z") == 60.0
    assert clock("nonsense") == "--:--:--"


def test_what_others_wrote_is_inert() -> None:
    """T61: escape sequences, bidi controls and line breaks of a worker never reach a terminal."""
    assert clean("a\x1b]52;c;Zm9v\x07b\nc\u202ed\x9b2J") == "a?]52;c;Zm9v?b c?d?2J"
    assert clean(None) == ""


@pytest.mark.parametrize(
    ("last_exit", "words"),
    [
        (None, ""),
        ({"code": 1, "signal": None, "reason": "exit 1: connection refused"}, "exit 1: connection refused"),
        ({"code": 1, "signal": None, "reason": "connection refused"}, "exit 1: connection refused"),
        ({"code": None, "signal": 9, "reason": "signal 9 (Killed)"}, "signal 9 (Killed)"),
        ({"code": None, "signal": 11, "reason": ""}, "signal 11"),
        ({"code": 1, "signal": None, "reason": "failed to start: no function"}, "failed to start: no function"),
        ({"code": None, "signal": None, "reason": "never ran"}, "never ran"),
    ],
)
def test_how_a_life_ended(last_exit: dict[str, object] | None, words: str) -> None:
    """An end says its code or signal once, then its cause."""
    assert how_it_ended(last_exit) == words
