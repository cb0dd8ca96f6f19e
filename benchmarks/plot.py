"""Two plots as SVG text: bars on a logarithmic scale, and curves over a number. Pure; read by browsers in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

_STYLE: Final = (
    "<style>text{font:13px sans-serif;fill:#24292f}.a{fill:#57606a;font-size:11px}.g{stroke:#d0d7de}"
    ".o{fill:#0969da}.p{fill:#8c959f}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.a{fill:#8b949e}.g{stroke:#30363d}}</style>"
)
_COLOURS: Final = ("#0969da", "#bf8700", "#1a7f37", "#8250df", "#cf222e")


def bars(values: Sequence[tuple[str, float]], title: str) -> str:
    """Return a bar for each name, on a logarithmic scale; ours are those whose name begins with bgworker."""
    left, width, step = 150, 520, 26
    low = math.floor(math.log10(min(value for _, value in values)))
    high = math.ceil(math.log10(max(value for _, value in values)) + 0.05)
    height = 60 + step * len(values)

    def x(value: float) -> float:
        return left + width * (math.log10(value) - low) / (high - low)

    parts = [_head(left + width + 80, height), f'<text x="10" y="20">{escape(title)} (logarithmic)</text>']
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line class="g" x1="{at:.0f}" x2="{at:.0f}" y1="32" y2="{height - 22}"/>')
        parts.append(f'<text class="a" x="{at:.0f}" y="{height - 8}" text-anchor="middle">{10.0**power:g}</text>')
    for row, (name, value) in enumerate(values):
        y = 38 + row * step
        kind = "o" if name.startswith("bgworker") else "p"
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{max(1.0, x(value) - left):.1f}" height="17"/>')
        parts.append(f'<text class="a" x="{x(value) + 5:.0f}" y="{y + 13}">{value:.3g}</text>')
    return "".join(parts) + "</svg>\n"


def curve(lines: Mapping[str, Sequence[tuple[float, float]]], over: str) -> str:
    """Return one curve for each name, each scaled to its own greatest value, over a common axis from 0."""
    left, width, height = 60, 560, 240
    right = max(point[0] for points in lines.values() for point in points)
    parts = [_head(left + width + 40, height + 70 + 20 * len(lines))]
    parts.append(f'<line class="g" x1="{left}" x2="{left + width}" y1="{height + 20}" y2="{height + 20}"/>')
    marks = sorted({point[0] for points in lines.values() for point in points})
    # The steps double: the labels of the small ones would lie upon each other.
    parts += [
        f'<text class="a" x="{left + width * at / right:.0f}" y="{height + 36}" text-anchor="middle">{at:g}</text>'
        for at in marks
        if at >= right / 10
    ]
    parts.append(f'<text class="a" x="{left + width / 2:.0f}" y="{height + 52}" text-anchor="middle">{escape(over)}</text>')
    for number, (name, points) in enumerate(lines.items()):
        top = max(value for _, value in points) * 1.1 or 1.0
        colour = _COLOURS[number % len(_COLOURS)]
        spots = [(left + width * at / right, 20 + height * (1 - value / top), value) for at, value in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in spots)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        parts += [f'<text class="a" x="{x:.0f}" y="{y - 6:.0f}" text-anchor="middle">{value:.3g}</text>' for x, y, value in spots]
        parts.append(f'<rect x="{left}" y="{height + 62 + 20 * number}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + 20}" y="{height + 73 + 20 * number}">{escape(name)}</text>')
    return "".join(parts) + "</svg>\n"


def _head(width: int, height: int) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">{_STYLE}'
