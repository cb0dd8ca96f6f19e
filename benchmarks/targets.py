"""What bgworker means to reach, and whether a run reached it.

Pure. A target is a bound on one figure: a number, or another way's figure of the same run times
a factor, because figures of two machines do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import OURS, Figure, shown


@dataclass(frozen=True)
class Target:
    """One bound."""

    text: str
    question: str
    #: Name of the figure.
    name: str
    #: The bound, or the factor when there is a way to compare with.
    bound: float
    way: str = OURS
    #: Whose figure of the same run, times the bound, is the limit; empty when the bound is the limit.
    against: str = ""
    #: The bound is the least that is wanted, not the most.
    is_floor: bool = False


_FIRST_LINE: Final = "request to first line of worker code"
_CALL: Final = "the launching call returns"
_IDLE: Final = "bgworker, 1000 workers and database"

TARGETS: Final = (
    Target("request to first line of code under 0.25 ms", "launching", _FIRST_LINE, 0.25),
    Target("register and wait for the start under 0.3 ms", "launching", _CALL, 0.3),
    Target("register and wait for the start ahead of PostgreSQL", "launching", _CALL, 1.0, against="PostgreSQL"),
    Target("without a spare under 1.5 times raw fork", "launching", _FIRST_LINE, 1.5, "bgworker, no spares", "raw fork"),
    Target("with a connection ahead of PostgreSQL", "launching", "request to connection open", 1.0, against="PostgreSQL"),
    Target("kill -9 to replacement ahead of raw fork", "restart", "kill -9 to replacement running", 1.0, against="raw fork"),
    Target("200 workers up in 0.4 s", "many", "200 workers up", 0.4),
    Target("1000 workers up in 2 s", "many", "1000 workers up", 2.0),
    Target(
        "the last of 4000 as cheap as the first 100",
        "growth",
        "time until up, of each worker added",
        1.25,
        "4000 workers",
        "100 workers",
    ),
    Target("under 1.2 MB private memory per idle worker", "memory", "private memory of an idle worker", 1.2),
    Target("200 stopped in 0.1 s", "many", "stop 200", 0.1),
    Target("1000 stopped in 0.8 s", "many", "stop 1000", 0.8),
    Target("`get_pid()` under 5 microseconds", "status", "status of one of 200", 0.005),
    Target("`client.slots()` for 200 under 2 ms", "status", "status of all 200", 2.0),
    Target("`bgworker status --json` under 45 ms", "status", "status on the command line", 45.0),
    Target("idle: the host and its helpers never wake", "idle", "context switches of the supervisor in 60 s", 0.0, _IDLE),
    Target("idle: no worker ever wakes", "idle", "context switches of all workers in 60 s", 0.0, _IDLE),
    Target("NOTIFY sent within 10 % of psycopg", "notify", "(a) commit to a plain listener", 1.1, against="psycopg"),
    Target("NOTIFY heard within 10 % of psycopg", "notify", "(b) plain commit to a receiver awake", 1.1, against="psycopg"),
    Target("log capture at 50 MB/s", "logs", "captured", 50.0, is_floor=True),
    Target("log capture without loss", "logs", "lines lost or doubled", 0.0),
    Target("log capture costs the host nothing", "logs", "processor time of the host", 0.1),
    Target("200 static workers ready ahead of s6", "boot", "exec to 200 static workers ready", 1.0, against="s6"),
    Target(
        "whole tree with two workers smaller than supervisord's",
        "memory",
        "whole tree at rest with two psycopg workers, PSS",
        1.0,
        against="supervisord",
    ),
)


def verdict(target: Target, figures: Sequence[Figure]) -> tuple[str, str]:
    """Return what was measured, with its limit, and whether that meets the target."""
    found = {each.way: each for each in figures if each.name == target.name}
    ours, other = found.get(target.way), found.get(target.against)
    if ours is None or (target.against and other is None):
        return "-", "not measured"
    limit = target.bound * (other.median if other is not None else 1.0)
    unit = f" {ours.unit}" if ours.unit else ""
    comparison = "at least" if target.is_floor else "at most"
    measured = f"{shown(ours.median)}{unit}, {comparison} {shown(limit)}"
    if ours.median >= limit if target.is_floor else ours.median <= limit:
        return measured, "met"
    if limit == 0:
        return measured, "missed"
    share = limit / ours.median if target.is_floor else ours.median / limit
    return measured, f"missed by a factor of {share:.2f}"


def rows(questions: Mapping[str, Sequence[Figure]]) -> list[list[str]]:
    """Return the table of all targets, the header first."""
    return [
        ["target", "measured", ""],
        *([target.text, *verdict(target, questions.get(target.question, ()))] for target in TARGETS),
    ]
