"""The harness of the benchmarks computes what it says it does."""

from __future__ import annotations

import importlib

import pytest
from benchmarks.__main__ import QUESTIONS
from benchmarks.figures import Figure, figure, from_json, ordered_ways, percentile, ratio, shown, table, to_json
from benchmarks.peers import WAYS
from benchmarks.plot import bars, curve
from benchmarks.report import markdown
from benchmarks.targets import TARGETS, Target, rows, verdict


@pytest.mark.parametrize("name", QUESTIONS)
def test_each_question_can_be_asked(name: str) -> None:
    """Each question is a module with a title and a measurement."""
    module = importlib.import_module(f"benchmarks.{name}")
    assert isinstance(module.TITLE, str)
    assert callable(module.measure)


def test_ways_have_names_of_their_own() -> None:
    """No two ways share a column, and each can say why it is missing."""
    assert len({way.name for way in WAYS}) == len(WAYS)
    assert all(isinstance(way.missing(), str) for way in WAYS)


def test_median_and_99th_percentile() -> None:
    """A figure has median, extremes and count; its 99th percentile only with twenty samples or more."""
    made = figure("launch", "ms", "bgworker", [float(number) for number in range(1, 201)])
    assert (made.median, made.low, made.high, made.count, made.p99) == (100.5, 1.0, 200.0, 200, 198.0)
    assert figure("launch", "ms", "bgworker", [1.0, 3.0]).p99 is None
    with pytest.raises(ValueError, match="no samples of launch by bgworker"):
        figure("launch", "ms", "bgworker", [])


def test_percentile_is_a_sample() -> None:
    """The nearest rank is taken, in any order of the samples."""
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([5.0], 99) == 5.0


def sample_figures() -> list[Figure]:
    """Return figures of three ways, of which one lacks the second row."""
    return [
        figure("up", "s", "s6", [0.8]),
        figure("up", "s", "raw fork", [0.5]),
        figure("up", "s", "bgworker", [0.4]),
        figure("stop", "s", "raw fork", [0.0]),
        figure("stop", "s", "bgworker", [0.1]),
    ]


def test_ratio() -> None:
    """A ratio is of medians; there is none to what was not measured, or is nothing."""
    found = sample_figures()
    assert ratio(found, "up", "bgworker", "raw fork") == pytest.approx(0.8)
    assert ratio(found, "up", "bgworker", "pm2") is None
    assert ratio(found, "stop", "bgworker", "raw fork") is None


def test_table() -> None:
    """Ours comes first, the floor second, the ratio of both last."""
    found = sample_figures()
    assert ordered_ways(found) == ["bgworker", "raw fork", "s6"]
    assert table(found) == [
        ["", "bgworker", "raw fork", "s6", "ours / floor"],
        ["up, s", "0.4", "0.5", "0.8", "0.80"],
        ["stop, s", "0.1", "0", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123456, "0.0123"), (1234.5, "1,230"), (12.34, "12.3"), (0.0, "0"), (5e-05, "0.00005")]
)
def test_three_digits_are_shown(value: float, text: str) -> None:
    """A figure shows the digits that a measurement can tell, and no exponent."""
    assert shown(value) == text


def test_figures_survive_json() -> None:
    """What is written is what is read."""
    assert from_json(to_json(sample_figures())) == sample_figures()


def test_markdown_of_a_run() -> None:
    """A question becomes a table; one that was not asked says so."""
    results = {
        "machine": {"cores": 2},
        "seconds": 5,
        "questions": {"many": {"title": "Many", "figures": to_json(sample_figures())}},
    }
    assert "| up, s | 0.4 | 0.5 | 0.8 | 0.80 |" in markdown(results, "many")
    assert markdown(results, "boot") == "Not measured in this run.\n"
    assert markdown(results, "machine") == "    cores 2; the run took 5 s\n"
    assert markdown(results, "skipped") == "Nothing was skipped.\n"


def test_plots_are_drawn() -> None:
    """Plots name what they show, with the letters that XML has a use for escaped."""
    drawing = bars([("bgworker", 0.2), ("a<b", 9.9)], "launch, ms")
    assert "launch, ms" in drawing
    assert "a&lt;b" in drawing
    assert curve({"memory": [(100, 1.0), (4000, 1.0)]}, "workers").count("<polyline") == 1


def test_targets_are_judged() -> None:
    """A target is met at its limit, missed by a factor beyond it, and open without a figure."""
    found = sample_figures()
    assert verdict(Target("", "many", "up", 0.4), found) == ("0.4 s, at most 0.4", "met")
    assert verdict(Target("", "many", "up", 0.2), found) == ("0.4 s, at most 0.2", "missed by a factor of 2.00")
    assert verdict(Target("", "many", "up", 0.5, is_floor=True), found) == ("0.4 s, at least 0.5", "missed by a factor of 1.25")
    assert verdict(Target("", "many", "up", 1.0, against="s6"), found) == ("0.4 s, at most 0.8", "met")
    assert verdict(Target("", "many", "up", 1.0, against="pm2"), found) == ("-", "not measured")
    assert verdict(Target("", "many", "stop", 0.0), found) == ("0.1 s, at most 0", "missed")


def test_each_target_has_a_row() -> None:
    """The table of targets is whole even when nothing was measured, and asks questions that there are."""
    assert len(rows({})) == len(TARGETS) + 1
    assert {target.question for target in TARGETS} <= set(QUESTIONS)
