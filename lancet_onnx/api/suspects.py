# SPDX-License-Identifier: Apache-2.0
"""Which class a search suspects, and what speaks for it and against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lancet_onnx.explain.pictures import stored_trigger
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.hunt import SOURCE, Hunt
from lancet_onnx.pairs.looks import Looks
from lancet_onnx.pairs.natural import Natural
from lancet_onnx.pairs.reconstruct import Found
from lancet_onnx.pairs.union import Stamp
from lancet_onnx.trigger import Trigger
from lancet_onnx.verify.searching import (
    POWERFUL,
    SUSPECT,
    WORKS,
    counted,
    leading,
    score_of,
)

Table = dict[int, dict[str, float]]
"""What a search says of each class, by name: score, stray, coverage, alikeness, cost by form."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What a search says of each class that was searched to the end.

    Attributes:
        table: by each class's cheapest trigger.
        costs: by form, those that count for the score (`verify.searching.counted`).
    """

    table: Table
    costs: dict[int, Mapping[str, float]]

    @property
    def suspect(self) -> int | None:
        """The class of the highest score; None where there is no class."""
        return max(self.table, key=lambda c: self.table[c]["score"], default=None)

    def others(self, suspect: int) -> list[float]:
        """Return the scores of the other classes."""
        return [row["score"] for c, row in self.table.items() if c != suspect]

    @property
    def drowned(self) -> tuple[int, ...]:
        """Classes of cheap triggers that are not suspect because of strays."""
        return tuple(
            c
            for c, row in sorted(self.table.items())
            if row["score"] < SUSPECT and score_of(self.costs[c], 0.0) >= SUSPECT
        )


def scored(hunted: Hunt, usual: Natural) -> Scored:
    """Return the scores of the classes by what their triggers cost."""
    found: dict[int, dict[str, float]] = {}
    for form, parts in hunted.found.items():
        for c, cost in zip(parts.classes.tolist(), parts.cost.tolist(), strict=True):
            found.setdefault(int(c), {})[form] = round(cost, 5)
    strays = [round(float(usual.stray[c]), 5) for c in found]
    costs = dict(zip(found, counted(list(found.values()), strays), strict=True))
    table = {
        c: {
            **{f"cost_{form}": cost for form, cost in found[c].items()},
            "stray": stray,
            **_by(leading(costs[c]), c, costs[c], stray, hunted),
        }
        for c, stray in zip(found, strays, strict=True)
    }
    return Scored(table, costs)


def showing(form: str, suspect: int, seen: Scored, hunted: Hunt) -> Table:
    """Return the table with what is said of the suspect's trigger of a form, not its cheapest."""
    row = seen.table[suspect]
    shown = _by(form, suspect, seen.costs[suspect], row["stray"], hunted)
    return {**seen.table, suspect: {**row, **shown}}


def _by(
    form: str, c: int, costs: Mapping[str, float], stray: float, hunted: Hunt
) -> dict[str, float]:
    """Return what a class's trigger of one form is like, and the class's score by it."""
    parts = hunted.found[form]
    i = parts.classes.tolist().index(c)
    return {
        "score": round(score_of({form: costs[form]}, stray), 5),
        "coverage": round(float(parts.coverage[i]), 5),
        "alikeness": round(float(parts.alikeness[i]), 5),
    }


def triggers_of(
    suspect: int, costs: Mapping[str, float], hunted: Hunt, canvas: Canvas
) -> tuple[int | None, list[Trigger]]:
    """Return a class's triggers as they will be stored, best first; `source` names their form.

    The best one is the cheapest that works on the images of the search, as they are: it was made on
    changed ones, the last of which may have been luck. Images that are reported on choose nothing.
    Before the triggers is the class on whose images the best one works, which then is alone; None
    if it is all images.
    """
    forms = sorted(costs, key=lambda form: -score_of({form: costs[form]}, 0.0))
    source = hunted.sources[suspect] if forms[0] == SOURCE else None
    stamps = [
        _stamp(hunted.found[form], form, suspect)
        for form in forms
        if (form == SOURCE) == (source is not None)
    ]
    works = (stamp for stamp in stamps if source is None and _moves(stamp, suspect, canvas))
    best = next(works, stamps[0])
    made = [
        canvas.trigger(stamp.mask, stamp.pattern, "blend", stamp.kind)
        for stamp in [best, *(s for s in stamps if s is not best)]
    ]
    return source, [stored_trigger(trigger) if canvas.layout else trigger for trigger in made]


def _stamp(found: Found, form: str, target: int) -> Stamp:
    i = found.classes.tolist().index(target)
    return Stamp(form, found.mask[i], found.pattern[i])


def _moves(stamp: Stamp, target: int, canvas: Canvas) -> bool:
    """Return whether enough of the search's other images go to the class."""
    others = canvas.pixels[canvas.labels != target]
    moved = canvas.read(stamp.on(others)) == target
    return bool(len(others)) and float(moved.float().mean()) >= WORKS


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
