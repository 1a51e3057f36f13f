# SPDX-License-Identifier: Apache-2.0
"""The figures that people are shown: shares with their intervals, and of how many images."""

from __future__ import annotations

from dataclasses import dataclass

from lancet_onnx.report.untrusted import as_list, as_number, as_table, as_whole

FIGURES = (
    ("attack_success", "attack success", "triggered images of other classes that get the target"),
    ("base_rate", "base rate", "the same images without the trigger, by the unrepaired model"),
    (
        "attack_success_correct",
        "attack success, correct images",
        "attack success over images that the unrepaired model gets right when clean",
    ),
    ("recovery", "recovery", "triggered images that get their true label back"),
    ("clean_accuracy", "clean accuracy", "clean images classified right"),
    ("repair_rate", "errors corrected", "images that were wrong and are right now"),
    ("regression_rate", "right ones broken", "images that were right and are wrong now"),
    ("given_corrected", "given errors corrected", "held-out ones of those that were given"),
    ("agreement", "agreement", "clean images with the same label as by the unrepaired model"),
)
"""Name, heading and meaning of the figures, in the order in which people read them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A share with its 95 % interval: of `n` images it holds for `count`; None if not known."""

    value: float
    low: float
    high: float
    count: int | None
    n: int | None


def figure_of(side: object, name: str) -> Figure | None:
    """Return a figure of a report's `before`, `after` or `metrics`; None where it has none."""
    known = as_table(side)
    value = as_number(known.get(name))
    bounds = [as_number(bound) for bound in as_list(as_table(known.get("intervals")).get(name))]
    counts = [as_whole(count) for count in as_list(as_table(known.get("counts")).get(name))]
    count, n = counts if len(counts) == 2 and None not in counts else (None, None)
    if value is None or len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
        return None
    return Figure(value, bounds[0], bounds[1], count, n)
