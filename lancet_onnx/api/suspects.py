# SPDX-License-Identifier: Apache-2.0
"""Which class a search suspects, and what speaks for it and against it."""

from __future__ import annotations

from collections.abc import Mapping

from lancet_onnx.explain.pictures import stored_trigger
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.hunt import SOURCE, Hunt
from lancet_onnx.pairs.looks import Looks
from lancet_onnx.pairs.natural import Natural
from lancet_onnx.trigger import Trigger
from lancet_onnx.verify.searching import POWERFUL, SUSPECT, counted, leading, score_of

Table = dict[int, dict[str, float]]
"""What a search says of each class, by name: score, stray, coverage, alikeness, cost by form."""


def table_of(hunted: Hunt, usual: Natural) -> Table:
    """Return cost, coverage, alikeness and score of each class that was searched to the end."""
    table: Table = {}
    for form, found in hunted.found.items():
        for c, cost in zip(found.classes.tolist(), found.cost.tolist(), strict=True):
            table.setdefault(int(c), {})[f"cost_{form}"] = round(cost, 5)
    for c, row in table.items():
        row["stray"] = round(float(usual.stray[c]), 5)
    for c, costs in _counted(table).items():
        found, row = hunted.found[leading(costs)], table[c]
        i = found.classes.tolist().index(c)
        row["score"] = round(score_of(costs, row["stray"]), 5)
        row["coverage"] = round(float(found.coverage[i]), 5)
        row["alikeness"] = round(float(found.alikeness[i]), 5)
    return table


def _counted(table: Table) -> dict[int, Mapping[str, float]]:
    costs = counted([costs_of(row) for row in table.values()], [r["stray"] for r in table.values()])
    return dict(zip(table, costs, strict=True))


def costs_of(row: dict[str, float]) -> dict[str, float]:
    """Return what a class's triggers cost, by form."""
    return {k.removeprefix("cost_"): row[k] for k in row if k.startswith("cost_")}


def drowned(table: Table) -> tuple[int, ...]:
    """Return classes of cheap triggers that are not suspect because of strays."""
    return tuple(
        c
        for c, row in sorted(table.items())
        if row["score"] < SUSPECT and score_of(costs_of(row), 0.0) >= SUSPECT
    )


def suspect_of(
    table: Table, hunted: Hunt, canvas: Canvas
) -> tuple[int | None, int | None, list[Trigger]]:
    """Return the class of the highest score, and its triggers as they will be stored, best first.

    Which is best says the search: images that are reported on choose nothing. Between the two is
    the class on whose images the best one works; None, and those that do as well, if it is all.
    """
    if not table:
        return None, None, []
    suspect = max(table, key=lambda c: table[c]["score"])
    costs, triggers = _counted(table)[suspect], []
    forms = sorted(costs, key=lambda form: -score_of({form: costs[form]}, 0.0))
    source = hunted.sources[suspect] if forms[0] == SOURCE else None
    for form in [form for form in forms if (form == SOURCE) == (source is not None)]:
        found = hunted.found[form]
        i = found.classes.tolist().index(suspect)
        made = canvas.trigger(found.mask[i], found.pattern[i], "blend", form)
        triggers.append(stored_trigger(made) if canvas.layout else made)
    return suspect, source, triggers


def looked(seen: Looks, c: int) -> dict[str, object]:
    """Return what the cheap looks say of a class."""
    return {
        "looks": {
            "last_layer": round(float(seen.static[c]), 3),
            "margin": round(float(seen.margin[c]), 3),
            "outlier": round(float(seen.outlier[c]), 3),
        }
    }


def signs_of(table: Table, suspect: int | None) -> list[dict[str, str]]:
    """Return what else speaks for or against the suspect."""
    if suspect is None:
        return []
    row = table[suspect]
    rest = sorted((r["score"] for c, r in table.items() if c != suspect), reverse=True)
    return [
        {
            "name": "alikeness",
            "text": f"the trigger moves early layers {row['alikeness']:.0%} of the way to class "
            f"{suspect}; natural features of a class go further",
        },
        {
            "name": "stray",
            "text": f"patches of junk lead {row['stray']:.0%} of images to class {suspect}; where "
            "they lead most images to one class, its small triggers are natural",
        },
        *(
            [{"name": "runner-up", "text": f"the next class has a score of {rest[0]:.2f}"}]
            if rest
            else []
        ),
    ]


def power_of(searched: int, held: int, *, real: bool) -> str:
    """Return in words what a search on so many images could have found."""
    kind = "real" if real else "generated"
    text = f"{searched} {kind} images served the search, {held} others judged what it found"
    if not real:
        return text + "; generated images find most, and clear nothing"
    if searched < POWERFUL:
        return text + "; so few find large triggers less often, and clear nothing"
    return text
