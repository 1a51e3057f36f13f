# SPDX-License-Identifier: Apache-2.0
"""Lines of `compare.py` -> an SVG: accuracy lost against attack success left, method by method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from tests.bench.compare_table import (
    ACCURACY_TARGET,
    BASELINES,
    EXCESS_TARGET,
    TOOL,
    Line,
    by_method,
)

WIDTH, HEIGHT = 860, 520
LEFT, TOP, RIGHT, BOTTOM = 72, 56, 196, 64
TICKS = (-2.0, -1.0, 0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0)

STYLE = """
text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #3a3f47; }
.title { font-size: 15px; font-weight: 600; fill: #16191d; }
.note, .tick { fill: #667080; }
.tick { font-size: 11px; }
.ground { fill: #ffffff; }
.grid { stroke: #e4e7ec; }
.axis { stroke: #98a1ad; }
.goal { fill: #2f9e44; fill-opacity: .09; }
.goaltext { fill: #2b7a3b; font-size: 11px; }
.one { fill-opacity: .3; stroke: none; }
.mean { stroke: #ffffff; stroke-width: 1.5; }
.tool { font-weight: 600; }
"""
DARK_STYLE = """
text { fill: #c4cad3; }
.title { fill: #f0f2f5; }
.note, .tick { fill: #8e98a6; }
.ground { fill: #14171c; }
.grid { stroke: #2a2f37; }
.axis { stroke: #5d6672; }
.goaltext { fill: #6cc481; }
.goal { fill-opacity: .16; }
.one { fill-opacity: .45; }
.mean { stroke: #14171c; }
"""


@dataclass(frozen=True, slots=True)
class Marker:
    """How a method is drawn: corners around a centre (none: a circle), and its two colours."""

    corners: tuple[tuple[float, float], ...]
    light: str
    dark: str

    def at(self, x: float, y: float, size: float, classes: str) -> str:
        """Return the SVG element."""
        if not self.corners:
            return f'<circle class="{classes}" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
        points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in self.corners)
        return f'<polygon class="{classes}" points="{points}"/>'


def _star(points: int, inner: float, turn: float = 0.0) -> tuple[tuple[float, float], ...]:
    """Return a star's corners, or with an inner radius of 1 a regular polygon's."""
    count = points if inner == 1 else 2 * points
    corners = []
    for k in range(count):
        angle = math.tau * (k / count + turn) - math.tau / 4
        radius = 1.2 * (inner if inner != 1 and k % 2 else 1.0)
        corners.append((radius * math.cos(angle), radius * math.sin(angle)))
    return tuple(corners)


CIRCLE: tuple[tuple[float, float], ...] = ()
UP, DOWN, DIAMOND = _star(3, 1), _star(3, 1, 0.5), _star(4, 1)
SQUARE, PENTAGON, STAR, CROSS = _star(4, 1, 0.125), _star(5, 1), _star(5, 0.45), _star(4, 0.4)

MARKERS: Mapping[str, Marker] = {
    # Blue is the tool, orange knows the trigger, purple and grey do not.
    "auto": Marker(STAR, "#0b57d0", "#6ea8ff"),
    "as-published": Marker(SQUARE, "#0891a8", "#4fc9dd"),
    "flip": Marker(UP, "#3f7fe0", "#86b6ff"),
    "mute": Marker(DOWN, "#5a8fd6", "#a2c6f5"),
    "tune": Marker(CIRCLE, "#2340a8", "#8c9dff"),
    "random-flip": Marker(UP, "#b4791a", "#e0b45c"),
    "random-tune": Marker(CIRCLE, "#c2571a", "#f0935c"),
    "layer-tune": Marker(SQUARE, "#d9480f", "#ff8a57"),
    "whole-tune": Marker(DIAMOND, "#c92a2a", "#ff7b7b"),
    "unlearning": Marker(PENTAGON, "#e8590c", "#ffa06b"),
    "unlearning-long": Marker(CROSS, "#a61e4d", "#f783ac"),
    "fine-tune": Marker(CIRCLE, "#7048a8", "#b79aea"),
    "ft-sam": Marker(DIAMOND, "#9c36b5", "#da8cf0"),
    "fine-pruning": Marker(SQUARE, "#5f5a88", "#a9a3d6"),
    "clp": Marker(DOWN, "#6b7280", "#a7b0bd"),
    "i-bau": Marker(CROSS, "#4c2f91", "#a58af0"),
}


def scaled(points: float) -> float:
    """Return where a number of points lies: as its square root, so that small ones spread."""
    return math.copysign(math.sqrt(abs(points)), points)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: the range of points that it shows, and where that lies in the picture."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> Axis:
        """Return the axis that has room for all values, from tick to tick."""
        low = max((t for t in TICKS if t <= min(values)), default=min(values))
        high = min((t for t in TICKS if t >= max(*values, 5.0)), default=max(values))
        return cls(low, high, start, end)

    def at(self, points: float) -> float:
        """Return the coordinate of a number of points."""
        low, high = scaled(self.low), scaled(self.high)
        return self.start + (scaled(points) - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> tuple[float, ...]:
        """The numbers that are written at the axis."""
        return tuple(t for t in TICKS if self.low <= t <= self.high)


def plot(lines: Sequence[Line]) -> str:
    """Return the SVG: a large marker for each method's mean, a small pale one for each model."""
    groups = by_method(lines)
    found = {method: np.array([_point(n) for n in ls]) for method, ls in groups.items()}
    every = np.concatenate(list(found.values())) if found else np.zeros((1, 2))
    x = Axis.over([*every[:, 0], -1.0], LEFT, WIDTH - RIGHT)
    y = Axis.over([*every[:, 1], -1.0], HEIGHT - BOTTOM, TOP)
    parts = [*_frame(x, y)]
    for method, points in found.items():
        marker = MARKERS[method]
        parts += [marker.at(x.at(a), y.at(b), 3, f"one {method}") for a, b in points]
    for method, points in reversed(found.items()):
        a, b = points.mean(0)
        size = 9 if method == "auto" else 6.5
        name = f"{method}: {a:.1f} points of accuracy lost, {b:.1f} points of attack success left"
        drawn = MARKERS[method].at(x.at(a), y.at(b), size, f"mean {method}")
        parts.append(f"<g><title>{escape(name)}</title>{drawn}</g>")
    parts += _legend(found)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="t">\n'
        '<title id="t">Accuracy lost and attack success left, by repair method</title>\n'
        f"<style>{_style(found)}</style>\n{body}\n</svg>\n"
    )


def _point(line: Line) -> tuple[float, float]:
    return -100.0 * line["accuracy_change"], 100.0 * line["excess"]


def _style(methods: Mapping[str, object]) -> str:
    light = "\n".join(f".{m} {{ fill: {MARKERS[m].light}; }}" for m in methods)
    dark = "\n".join(f".{m} {{ fill: {MARKERS[m].dark}; }}" for m in methods)
    media = "@media (prefers-color-scheme: dark)"
    return f"{STYLE}{light}\n{media} {{{DARK_STYLE}{dark}\n}}\n"


def _frame(x: Axis, y: Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    goal = (x.at(-100 * ACCURACY_TARGET), y.at(100 * EXCESS_TARGET))
    parts = [
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="24">What a repair leaves and what it costs</text>',
        f'<text class="note" x="{LEFT}" y="42">large: mean over models; small: one model; '
        "square-root scales</text>",
        f'<rect class="goal" x="{LEFT}" y="{goal[1]:.1f}" width="{goal[0] - LEFT:.1f}" '
        f'height="{bottom - goal[1]:.1f}"/>',
    ]
    for tick in x.ticks:
        at = f"{x.at(tick):.1f}"
        kind = "axis" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{at}" x2="{at}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{at}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>'
        )
    for tick in y.ticks:
        at = f"{y.at(tick):.1f}"
        kind = "axis" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 8}" y="{at}" dy="4" text-anchor="end">{tick:g}</text>'
        )
    middle = (TOP + bottom) / 2
    return [
        *parts,
        f'<text class="goaltext" x="{LEFT + 5}" y="{goal[1] - 5:.1f}">both targets</text>',
        f'<text x="{(LEFT + right) / 2:.1f}" y="{HEIGHT - 20}" text-anchor="middle">'
        "clean accuracy lost, points</text>",
        f'<text transform="translate(24 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        "attack success over the base rate, points</text>",
    ]


def _legend(methods: Mapping[str, object]) -> list[str]:
    groups = {
        "lancet-onnx": [m for m in TOOL if m in methods],
        "given the trigger": [m for m, k in BASELINES.items() if "blind" not in k],
        "blind to the trigger": [m for m, k in BASELINES.items() if "blind" in k],
    }
    left, at, parts = WIDTH - RIGHT + 28, TOP + 8, []
    for title, members in groups.items():
        shown = [m for m in members if m in methods]
        if not shown:
            continue
        parts.append(f'<text class="note" x="{left}" y="{at}">{title}</text>')
        for method in shown:
            at += 19
            parts.append(MARKERS[method].at(left + 8, at - 4, 5.5, f"mean {method}"))
            # The method's class would colour the text as well.
            weight = ' class="tool"' if method == "auto" else ""
            parts.append(f'<text{weight} x="{left + 22}" y="{at}">{method}</text>')
        at += 28
    return parts
