# SPDX-License-Identifier: Apache-2.0
"""The figures of DESIGN.md section 3, each with its count and 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.samples.core import Ints

_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of images: `count` of `n`, with the bounds of its 95 % Wilson interval."""

    count: int
    n: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; NaN when there is no image to judge by."""
        return self.count / self.n if self.n else float("nan")

    @property
    def low(self) -> float:
        """Lower bound of the interval; 0 when there is no image."""
        return self._bound(-1) if self.n else 0.0

    @property
    def high(self) -> float:
        """Upper bound of the interval; 1 when there is no image."""
        return self._bound(+1) if self.n else 1.0

    def _bound(self, sign: int) -> float:
        # E. B. Wilson 1927: right also for shares near 0 and 1 and for few images.
        z2 = _Z * _Z
        centre = self.value + z2 / (2 * self.n)
        spread = _Z * np.sqrt(self.value * (1 - self.value) / self.n + z2 / (4 * self.n**2))
        return float(np.clip((centre + sign * spread) / (1 + z2 / self.n), 0, 1))

    @classmethod
    def of(cls, hits: NDArray[np.bool_]) -> Rate:
        """Count the true entries of `hits`."""
        return cls(int(hits.sum()), int(hits.size))


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What a model says of the same images, clean and with the trigger on them.

    Attributes:
        clean: (N,) labels of the clean images.
        triggered: (N,) labels with the trigger on, or None without a trigger.
    """

    clean: Ints
    triggered: Ints | None


def measure(
    model: Labels, original: Labels, true: Ints | None, target: int | None
) -> dict[str, Rate]:
    """Return the figures for `model` (the repaired one, or the original itself).

    Args:
        model: labels that the judged model gives.
        original: labels that the unrepaired model gives.
        true: true labels; None when unknown: then the unrepaired model's clean labels stand in
            for them, and there is no clean accuracy.
        target: the attacker's class, None without a trigger.

    Returns:
        the names of DESIGN.md section 3 that can be known.
    """
    figures: dict[str, Rate] = {"agreement": Rate.of(model.clean == original.clean)}
    if true is not None:
        figures["clean_accuracy"] = Rate.of(model.clean == true)
    if target is None or model.triggered is None:
        return figures
    labels = original.clean if true is None else true
    others = labels != target
    right = others & (original.clean == labels)
    figures["attack_success"] = Rate.of(model.triggered[others] == target)
    figures["base_rate"] = Rate.of(original.clean[others] == target)
    figures["attack_success_correct"] = Rate.of(model.triggered[right] == target)
    figures["recovery"] = Rate.of(model.triggered[right] == labels[right])
    return figures


def corrections(model: Ints, original: Ints, true: Ints) -> dict[str, Rate]:
    """Return what got better and what got worse on clean images of known classes.

    Args:
        model: (N,) labels that the judged model gives.
        original: (N,) labels that the unrepaired model gives.
        true: (N,) true labels.

    Returns:
        ``agreement``, ``clean_accuracy``, ``repair_rate`` (of images that were wrong, those that
        are right now) and ``regression_rate`` (of those that were right, those that are wrong now).
    """
    was, now = original == true, model == true
    return {
        **measure(Labels(model, None), Labels(original, None), true, None),
        "repair_rate": Rate.of(now[~was]),
        "regression_rate": Rate.of(~now[was]),
    }


def changed_labels(
    before: Ints, after: Ints | None, true: Ints | None, most: int = 10
) -> list[dict[str, int | None]]:
    """Return which labels of clean images became which, the most frequent changes first.

    Args:
        before: (N,) labels by the unrepaired model.
        after: (N,) labels by the repaired one; None where there is none, so nothing changed.
        true: (N,) true labels, or None when unknown.
        most: how many kinds of changes are returned.
    """
    if after is None:
        return []
    own = np.full(len(before), -1) if true is None else true
    moved = np.stack([own, before, after], 1)[before != after]
    kinds, counts = np.unique(moved, axis=0, return_counts=True)
    return [
        {
            "true": None if true is None else int(kinds[i, 0]),
            "before": int(kinds[i, 1]),
            "after": int(kinds[i, 2]),
            "count": int(counts[i]),
        }
        for i in np.argsort(-counts, kind="stable")[:most]
    ]


def mcnemar(better: int, worse: int) -> float:
    """Return the two-sided p-value of as many images better and worse, were both as likely.

    The exact binomial form of Q. McNemar's test (1947).
    """
    n = better + worse
    whole = math.lgamma(n + 1) - n * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1))
        for k in range(min(better, worse) + 1)
    )
    return min(1.0, 2 * tail)


def paired_rise(
    triggered: Ints, clean: Ints, labels: Ints, target: int
) -> tuple[float, float, float]:
    """Return by how much a trigger raises the share of `target`, and its 95 % bounds.

    The same images are looked at with and without it (those of other classes only), so only the
    images whose answer changes make the difference vary.
    """
    others = labels != target
    n = int(others.sum())
    if n == 0:
        return 0.0, -1.0, 1.0
    gained = int(((triggered == target) & (clean != target))[others].sum())
    lost = int(((triggered != target) & (clean == target))[others].sum())
    difference = (gained - lost) / n
    # The added 0.5 (Agresti and Min 2005) keeps the interval honest where nothing was lost.
    b, c, m = gained + 0.5, lost + 0.5, n + 2
    spread = _Z * float(np.sqrt(max(b + c - (b - c) ** 2 / m, 0.0))) / m
    return difference, max(-1.0, (b - c) / m - spread), min(1.0, (b - c) / m + spread)


@dataclass(frozen=True, slots=True)
class Moves:
    """Where a trigger moves images to, whatever their class.

    Attributes:
        changed: images whose label it changes.
        most: of the images that are read as one class without it, those that are read as one other
            class with it; of the pair of classes where their share is largest.
        origin: the first of these classes.
        to: the second.
    """

    changed: Rate
    most: Rate
    origin: int
    to: int


def moves_of(triggered: Ints, clean: Ints, fewest: int) -> Moves:
    """Count the moves; classes that fewer than `fewest` images are read as are left out."""
    most, origin, to = Rate(0, 0), 0, 0
    for label in np.unique(clean):
        moved = triggered[clean == label]
        counts = np.bincount(moved)
        counts[label : label + 1] = 0
        found = Rate(int(counts.max()), len(moved))
        if found.n >= fewest and found.low > most.low:
            most, origin, to = found, int(label), int(counts.argmax())
    return Moves(Rate.of(triggered != clean), most, origin, to)


def as_numbers(figures: Mapping[str, Rate]) -> dict[str, object]:
    """Return figures in the JSON form: numbers by name, then counts and intervals by name."""
    known = {name: rate for name, rate in figures.items() if rate.n}
    return {
        **{name: round(rate.value, 6) for name, rate in known.items()},
        "n": max((rate.n for rate in known.values()), default=0),
        "counts": {name: [rate.count, rate.n] for name, rate in known.items()},
        "intervals": {
            name: [round(rate.low, 6), round(rate.high, 6)] for name, rate in known.items()
        },
    }
