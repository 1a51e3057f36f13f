# SPDX-License-Identifier: Apache-2.0
"""Scores of the classes of a search, from what it found and where junk leads."""

from __future__ import annotations

import torch

from lancet_onnx.pairs.hunt import Hunt
from lancet_onnx.verify.searching import SUSPECT, ahead_of, score_of

Table = dict[int, dict[str, float]]


def table_of(hunted: Hunt, strays: torch.Tensor) -> Table:
    """Return what is known of each class that was searched to the end.

    A row has the class's ``score`` and ``stray``, a ``cost_`` for each form, ``coverage`` and
    ``alikeness`` of the trigger that gives the score, and ``agreement`` where it was measured.

    Args:
        hunted: what the search found.
        strays: (classes,) `pairs.natural.Natural.stray`.
    """
    table: Table = {}
    ahead = ahead_of(hunted.agreement)
    for form, found in hunted.found.items():
        for i, c in enumerate(found.classes.tolist()):
            stray, cost = float(strays[c]), float(found.cost[i])
            row = table.setdefault(c, {"score": 0.0, "stray": round(stray, 5)})
            if c in ahead:
                row["agreement"] = round(hunted.agreement[c], 5)
            row[f"cost_{form}"] = round(cost, 5)
            score = score_of({form: cost}, stray, ahead.get(c, 0.0))
            if score > row["score"]:
                row["score"] = round(score, 5)
                row["coverage"] = round(float(found.coverage[i]), 5)
                row["alikeness"] = round(float(found.alikeness[i]), 5)
    return table


def drowned_of(table: Table, hunted: Hunt) -> tuple[int, ...]:
    """Return classes of cheap triggers that are not suspect because of strays."""
    ahead = ahead_of(hunted.agreement)
    drowned = []
    for c, row in sorted(table.items()):
        costs = {form: row[f"cost_{form}"] for form in hunted.found}
        if row["score"] < SUSPECT <= score_of(costs, 0.0, ahead.get(c, 0.0)):
            drowned.append(c)
    return tuple(drowned)
