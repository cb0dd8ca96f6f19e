"""schedule: which expressions are refused and how, what it cannot stand beside, and what the local clock makes of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgworker import _cron
from bgworker._config.load import ConfigurationErrors, parse_configuration
from bgworker._config.merge import merge_static_workers
from bgworker._core.timetable import MOST_COUNTED
from bgworker._spec import BGW_NEVER_RESTART, BackgroundWorker, sanity_check
from bgworker.errors import RegistrationError

OWN = '[[worker]]\nbgw_name = "own"\nbgw_library_name = "shop"\nbgw_function_name = "drain"\n'
FIELDS = "minute, hour, day of month, month and day of week"


def taken(lines: str) -> BackgroundWorker:
    merged = merge_static_workers(parse_configuration(OWN + lines, "/srv/workers.toml", {}), [], [])
    assert not merged.rejected
    return merged.workers[0].worker


def refused(lines: str) -> list[str]:
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(OWN + lines, "/srv/workers.toml", {})
    return ["\n".join(error.lines()) for error in caught.value.errors]


def test_takes_the_place_of_a_restart_time() -> None:
    """C09: a worker with a schedule has no restart time, static or dynamic; spaces in the expression are evened out."""
    worker = taken('schedule = " */15  9-17 * *   MON-FRI "')
    assert (worker.schedule, worker.bgw_restart_time) == ("*/15 9-17 * * MON-FRI", BGW_NEVER_RESTART)
    dynamic = BackgroundWorker(bgw_name="d", bgw_library_name="l", bgw_function_name="f", schedule="0 3 * * *")
    once = sanity_check(dynamic, is_dynamic=True)
    assert sanity_check(once, is_dynamic=False) == once


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('schedule = "* * * *"', f"schedule: must have 5 fields, and has 4: {FIELDS}"),
        ('schedule = "@daily"', "schedule: must have 5 fields, and has 1"),
        ('schedule = ""', "schedule: must have 5 fields, and has 0"),
        ('schedule = "0 * * * * *"', "schedule: must have 5 fields, and has 6"),
        ('schedule = "60 * * * *"', "schedule: has a wrong minute"),
        ('schedule = "0 0 30 2 *"', "schedule: has a wrong day of month"),
        ('schedule = "0 0 * * FUNDAY"', "schedule: has a wrong day of week"),
        (f'schedule = "{",".join(["1"] * 120)} * * * *"', "schedule: is too long: at most 200 characters are allowed"),
        ("schedule = 15", 'schedule: expected a cron expression, such as "*/15 * * * *", found the integer 15'),
        ('schedule = "0 3 * * *"\nbgw_restart_time = 5', "schedule: cannot be combined with bgw_restart_time"),
        ('schedule = "0 3 * * *"\nrestart_on = "always"', "schedule: cannot be combined with restart_on"),
        ('schedule = "0 3 * * *"\nrestart_backoff = {}', "schedule: cannot be combined with restart_backoff"),
        ('schedule = "0 3 * * *"\nessential = true', "schedule: cannot be combined with essential"),
        ('schedule = "0 3 * * *"\nmax_age = 60', "schedule: cannot be combined with max_age"),
        ('schedule = "0 3 * * *"\nmax_memory = "1G"', "schedule: cannot be combined with max_memory"),
    ],
)
def test_what_is_refused(lines: str, problem: str) -> None:
    """A wrong expression, and keys that would say something else: refused before anything starts, with key, reason and value."""
    (error,) = refused(lines)
    assert problem in error


def test_each_mistake_under_its_own_key() -> None:
    """What is wrong by itself is not told again of the key beside it."""
    errors = refused('schedule = "61 * * * *"\nmax_memory = "80 megs"')
    assert len(errors) == 2, errors
    assert "schedule: has a wrong minute" in errors[0]
    assert "max_memory: must be a number of bytes above 0" in errors[1]


def test_same_mistake_in_two_keys() -> None:
    """Two keys that are wrong in the same way are two errors."""
    assert len(refused("max_age = 0.5\nwatchdog = 0.5")) == 2


def test_singleton_is_refused() -> None:
    """Hosts that each start it would run it one after the other: such a worker loops over latch_loop(at=...)."""
    flags = 'bgw_flags = ["BGWORKER_SHMEM_ACCESS", "BGWORKER_BACKEND_DATABASE_CONNECTION"]\n[database]\nurl = "embedded"'
    with pytest.raises(ConfigurationErrors) as caught:
        parse_configuration(f'{OWN}schedule = "0 3 * * *"\nsingleton = true\n{flags}', "/srv/workers.toml", {})
    (error,) = caught.value.errors
    assert "schedule: cannot be combined with singleton" in error.message_primary
    assert "latch_loop(at=...)" in error.message_hint


def test_registration_names_key_and_text() -> None:
    """A dynamic worker's wrong expression is refused with the key, the reason and the text as it was given."""
    worker = BackgroundWorker(bgw_name="d", bgw_library_name="l", bgw_function_name="f", schedule="a b c d e")
    with pytest.raises(RegistrationError) as caught:
        sanity_check(worker, is_dynamic=True)
    assert caught.value.message_primary.endswith("cannot be registered: schedule has a wrong minute")
    assert caught.value.message_detail == "It is 'a b c d e'."


@given(st.text(alphabet="0123456789*/-,#LWMON \u00b2\t", max_size=60))
def test_any_text_is_judged(text: str) -> None:
    """Whatever is written, it is refused or it has a next time: nothing else comes out of the calendar."""
    if _cron.problem(text) is None:
        at = _cron.next_time(text, 1.7e9)
        assert at > 1.7e9
        assert _cron.count_passed(text, 1.7e9, at) == 1
        assert _cron.previous_time(text, at) == at


def test_counting_ends(zone: None) -> None:
    """However far a clock leaps, the count stops at a hundred, which the machine's words know of."""
    assert _cron.count_passed("* * * * *", 0.0, 1e9) == _cron.MAX_COUNTED == MOST_COUNTED


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Central Europe, by its rule: no database of zones is needed."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def next_times(expression: str, start: str, count: int) -> list[str]:
    found, instant = [], at(start)
    for _ in range(count):
        instant = _cron.next_time(expression, instant)
        found.append(_cron.shown(instant)[5:])
    return found


def test_hour_that_is_skipped(zone: None) -> None:
    """A time that the clock leaps over comes when the leap is over; what runs by the minute goes on by the minute."""
    assert next_times("30 2 * * *", "2026-03-28T12:00:00+01:00", 2) == ["03-29T03:00:00+02:00", "03-30T02:30:00+02:00"]
    assert next_times("*/30 * * * *", "2026-03-29T01:00:00+01:00", 2) == ["03-29T01:30:00+01:00", "03-29T03:00:00+02:00"]


def test_hour_that_is_doubled(zone: None) -> None:
    """A time that the clock shows twice comes once, at the first; what runs by the minute runs in both hours."""
    assert next_times("30 2 * * *", "2026-10-24T12:00:00+02:00", 2) == ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"]
    assert next_times("*/30 * * * *", "2026-10-25T02:00:00+02:00", 4) == [
        "10-25T02:30:00+02:00",
        "10-25T02:00:00+01:00",
        "10-25T02:30:00+01:00",
        "10-25T03:00:00+01:00",
    ]
    assert _cron.previous_time("30 2 * * *", at("2026-10-25T02:45:00+01:00")) == at("2026-10-25T02:30:00+02:00")
    assert _cron.count_passed("30 2 * * *", at("2026-10-25T00:00:00+02:00"), at("2026-10-25T12:00:00+01:00")) == 1
