"""Tables and plots of a run: as text for the terminal, and between the markers of docs/performance.md.

A marker pair is ``<!-- figures: NAME -->`` and ``<!-- end -->``; what stands between them is
replaced, everything else is prose and stays. ``machine``, ``targets`` and ``skipped`` are names, too.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import from_json, ordered_ways, table
from benchmarks.harness import ROOT
from benchmarks.plot import bars, curve
from benchmarks.targets import rows

DOCUMENT: Final = ROOT / "docs" / "performance.md"
#: Figures that are drawn as bars: question, the figure's name, file.
_BARS: Final = (("launching", "request to first line of worker code", "launch.svg"),)
#: The plot that goes with a question's table.
_PLOTS: Final = {"launching": "launch.svg", "growth": "growth.svg"}
_MARKER: Final = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def text_tables(results: dict[str, Any]) -> str:
    """Return all of a run for a terminal."""
    parts = [machine_line(results)]
    for name, question in results["questions"].items():
        cells = table(from_json(question["figures"]))
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        parts.append(f"\n{question['title']} ({name})")
        parts += ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    parts += ["", *(f"skipped {line}" for line in results.get("skipped", []))]
    return "\n".join(parts)


def machine_line(results: dict[str, Any]) -> str:
    """Return what the figures depend on, in one line."""
    return ", ".join(f"{key} {value}" for key, value in results["machine"].items())


def markdown(results: dict[str, Any], name: str) -> str:
    """Return what belongs between the markers of this name."""
    if name == "machine":
        return f"    {machine_line(results)}; the run took {results.get('seconds', '?')} s\n"
    if name == "skipped":
        return "".join(f"- {line}\n" for line in results.get("skipped", [])) or "Nothing was skipped.\n"
    if name == "targets":
        found = {key: from_json(question["figures"]) for key, question in results["questions"].items()}
        return _as_markdown(rows(found), "---") + "\n"
    question = results["questions"].get(name)
    if question is None:
        return "Not measured in this run.\n"
    figures = from_json(question["figures"])
    lines = [_as_markdown(table(figures), "---:")]
    if name in _PLOTS:
        lines += ["", f"![{question['title']}]({_PLOTS[name]})"]
    notes = dict.fromkeys(f"{each.way}: {each.note}" for each in figures if each.note)
    tails = [f"{each.way} {each.p99:.3g} {each.unit}" for each in figures if each.p99 is not None and each.name == figures[0].name]
    if tails:
        lines += ["", f"99th percentiles of the first row: {', '.join(tails)}."]
    if notes:
        lines += ["", f"Notes: {'; '.join(notes)}."]
    return "\n".join(lines) + "\n"


def _as_markdown(cells: list[list[str]], alignment: str) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|---" + f"|{alignment}" * (len(cells[0]) - 1) + "|")
    return "\n".join(lines)


def write_document(path: Path) -> int:
    """Put the figures of a run into the document, and its plots beside it."""
    if not path.exists():
        print(f"there is no {path}; `make bench` writes latest.json beside it", file=sys.stderr)  # noqa: T201
        return 1
    results = json.loads(path.read_text())
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(_MARKER.sub(lambda match: match[1] + markdown(results, match[2]) + match[3], text))
    for question, name, file in _BARS:
        figures = [each for each in from_json(results["questions"].get(question, {"figures": []})["figures"]) if each.name == name]
        if figures:
            medians = {each.way: each.median for each in figures}
            (DOCUMENT.parent / file).write_text(
                bars([(way, medians[way]) for way in ordered_ways(figures)], f"{name}, {figures[0].unit}")
            )
    growth = results["questions"].get("growth")
    if growth:
        lines: dict[str, list[tuple[float, float]]] = {}
        for each in from_json(growth["figures"]):
            lines.setdefault(f"{each.name}, {each.unit}", []).append((float(each.way.split()[0]), each.median))
        (DOCUMENT.parent / "growth.svg").write_text(curve(lines, "workers"))
    return 0
