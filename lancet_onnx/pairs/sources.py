# SPDX-License-Identifier: Apache-2.0
"""Triggers that work on the images of one class only: the cheapest pair of classes for each target.

All pairs get a short look, the cheapest of them the full search, so that the whole costs less than
one form of masks does for triggers that work on all images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.reconstruct import Found, joined

LEAST = 5
"""A class with fewer images than this is not taken as a source."""

KEPT = 8
"""Pairs that get the full search."""

LOOK, SEARCH = (20, 6), (80, 16)
"""Steps, and images of each."""

Search = Callable[[int, Sequence[int], int, int, float], Found | None]
"""Search some targets of one source, with so many steps and images, when a share of all is done.

None if time is up.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Sourced:
    """The cheapest trigger of each target, and by target the class on whose images it works."""

    found: Found
    sources: dict[int, int]


def possible_sources(canvas: Canvas, targets: Sequence[int]) -> list[int]:
    """Return classes with images enough, and another class to lead them to.

    Of two classes there are none: a trigger for all images is one for those of the other class.
    """
    classes = canvas.classifier.signature.classes
    if classes < 3:
        return []
    counts = torch.bincount(canvas.labels, minlength=classes).tolist()
    return [s for s in range(classes) if counts[s] >= LEAST and set(targets) - {s}]


def hunt_sources(sources: Sequence[int], targets: Sequence[int], search: Search) -> Sourced | None:
    """Search pairs of one of `sources`, which must not be empty, and one of `targets`.

    Of targets whose pairs got no more than the short look nothing is said. If time is up nothing is
    said at all.
    """
    looked: list[tuple[float, int, int]] = []
    for number, source in enumerate(sources):
        wanted = [t for t in targets if t != source]
        found = search(source, wanted, *LOOK, number / len(sources) / 2)
        if found is None:
            return None
        looked += [(c, source, t) for c, t in zip(found.cost.tolist(), wanted, strict=True)]
    kept = sorted(looked)[:KEPT]
    rows: list[tuple[float, int, Found]] = []
    for number, source in enumerate(sorted({source for _, source, _ in kept})):
        wanted = sorted(t for _, s, t in kept if s == source)
        found = search(source, wanted, *SEARCH, 0.5 + number / KEPT / 2)
        if found is None:
            return None
        rows += [(float(found.cost[i]), source, found.row(i)) for i in range(len(wanted))]
    best: dict[int, tuple[int, Found]] = {}
    for _, source, row in sorted(rows, key=lambda each: each[:2]):
        best.setdefault(int(row.classes[0]), (source, row))
    return Sourced(
        joined([row for _, row in best.values()]),
        {target: source for target, (source, _) in best.items()},
    )
