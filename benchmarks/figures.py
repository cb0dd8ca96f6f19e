"""Figures: what was measured, in which way, and how often; medians, 99th percentiles, ratios to the floor.

Pure: no clock, no process, no file. Questions make figures of samples, the runner keeps them as
JSON, and the report turns that JSON into tables.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

#: The ways in the order of the tables' columns; any other comes after them.
OURS: Final = "bgworker"
FLOOR: Final = "raw fork"
#: Samples below which a 99th percentile would only be the largest of them.
_FEWEST_FOR_P99: Final = 20


@dataclass(frozen=True)
class Figure:
    """One thing measured in one way."""

    #: What was measured, as the row of a table names it.
    name: str
    unit: str
    way: str
    median: float
    low: float
    high: float
    count: int
    #: None where there were too few samples.
    p99: float | None = None
    #: What is different about this way; one sentence or nothing.
    note: str = ""


def figure(name: str, unit: str, way: str, samples: Sequence[float], note: str = "") -> Figure:
    """Return the figure of these samples.

    Raises:
        ValueError: There are none.
    """
    if not samples:
        raise ValueError(f"no samples of {name} by {way}")
    p99 = percentile(samples, 99) if len(samples) >= _FEWEST_FOR_P99 else None
    return Figure(name, unit, way, statistics.median(samples), min(samples), max(samples), len(samples), p99, note)


def percentile(samples: Sequence[float], rank: int) -> float:
    """Return the smallest sample that at least this many percent of them do not exceed (the nearest-rank method)."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * rank // 100) - 1)]


def ratio(figures: Iterable[Figure], name: str, way: str, to: str) -> float | None:
    """Return a way's median divided by another's; None when either was not measured, or the other is 0."""
    medians = {each.way: each.median for each in figures if each.name == name}
    if way not in medians or not medians.get(to):
        return None
    return medians[way] / medians[to]


def to_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Return figures as JSON values, rounded to what a measurement can tell."""
    return [{key: _rounded(value) for key, value in asdict(each).items()} for each in figures]


def from_json(values: Iterable[dict[str, Any]]) -> list[Figure]:
    """Return what to_json made of them."""
    return [Figure(**value) for value in values]


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def shown(value: float) -> str:
    """Return a figure with three digits that count: 0.0123, 1.23, 12.3, 1,230."""
    if value == 0:
        return "0"
    digits = f"{value:.3g}"
    if "e" not in digits:
        return digits
    return f"{float(digits):,.0f}" if abs(value) >= 1 else f"{value:.6f}".rstrip("0")


def table(figures: Sequence[Figure]) -> list[list[str]]:
    """Return rows of text, the header first: a row for each thing, a column for each way, the ratio of ours to the floor last."""
    ways = ordered_ways(figures)
    has_floor = FLOOR in ways and OURS in ways
    rows = [["", *ways, *(["ours / floor"] if has_floor else [])]]
    for name, unit in dict.fromkeys((each.name, each.unit) for each in figures):
        found = {each.way: each for each in figures if each.name == name}
        cells = [shown(found[way].median) if way in found else "-" for way in ways]
        share = ratio(figures, name, OURS, FLOOR)
        rows.append(
            [", ".join(filter(None, (name, unit))), *cells, *([f"{share:.2f}" if share is not None else "-"] if has_floor else [])]
        )
    return rows


def grouped(figures: Iterable[Figure]) -> list[Figure]:
    """Return figures with those of one name beside each other, in the order in which the names came."""
    found: dict[str, list[Figure]] = {}
    for each in figures:
        found.setdefault(each.name, []).append(each)
    return [each for group in found.values() for each in group]


def ordered_ways(figures: Iterable[Figure]) -> list[str]:
    """Return the ways, ours first and the floor second."""
    found = dict.fromkeys(each.way for each in figures)
    return sorted(found, key=lambda way: (way != OURS, way != FLOOR, not way.startswith(OURS)))
