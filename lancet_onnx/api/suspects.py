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
from lancet_onnx.trigger import Trigger
from lancet_onnx.verify.searching import (
    POWERFUL,
    SUSPECT,
    WORKS,
    compared,
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
        table: as it is reported.
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

    def by(self, form: str, suspect: int) -> float:
        """Return a class's score by one form of trigger, beside those of the other classes."""
        cost, stray = self.costs[suspect][form], self.table[suspect]["stray"]
        return compared(score_of({form: cost}, stray), self.others(suspect))

    def cheapest(self, suspect: int) -> float:
        """Return a class's score by its cheapest trigger, beside those of the other classes."""
        return self.by(leading(self.costs[suspect]), suspect)

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
    table: Table = {}
    for c, stray in zip(found, strays, strict=True):
        parts = hunted.found[leading(costs[c])]
        i = parts.classes.tolist().index(c)
        table[c] = {
            **{f"cost_{form}": cost for form, cost in found[c].items()},
            "stray": stray,
            "score": round(score_of(costs[c], stray), 5),
            "coverage": round(float(parts.coverage[i]), 5),
            "alikeness": round(float(parts.alikeness[i]), 5),
        }
    return Scored(table, costs)


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
    if forms[0] == SOURCE:
        source = hunted.sources[suspect]
        return source, [_made(hunted.found[SOURCE], SOURCE, suspect, canvas)[0]]
    made = [_made(hunted.found[form], form, suspect, canvas) for form in forms if form != SOURCE]
    first = next((i for i, (_, moved) in enumerate(made) if moved >= WORKS), 0)
    triggers = [trigger for trigger, _ in made]
    return None, [triggers.pop(first), *triggers]


def _made(found: Found, form: str, target: int, canvas: Canvas) -> tuple[Trigger, float]:
    """Return a trigger, and the share of the search's other images that it moves to its class."""
    i = found.classes.tolist().index(target)
    mask, pattern = found.mask[i], found.pattern[i]
    made = canvas.trigger(mask, pattern, "blend", form)
    others = canvas.pixels[canvas.labels != target]
    moved = canvas.read(others * (1 - mask) + pattern * mask) == target
    share = float(moved.float().mean()) if len(others) else 0.0
    return stored_trigger(made) if canvas.layout else made, share


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
