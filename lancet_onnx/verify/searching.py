# SPDX-License-Identifier: Apache-2.0
"""What a search for unknown triggers says: scores of classes, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lancet_onnx.verify.metrics import Rate
from lancet_onnx.verify.policy import (
    FEWEST_IMAGES,
    ROUNDING,
    Decision,
    accuracy_loss,
    judge_repair,
)

SOURCE = "source"
"""Among the forms: a trigger that need only work on the images of one class."""

BOUNDS = {"free": 0.065, "blob": 0.095, "window": 0.235, SOURCE: 0.03}
"""A class is suspect when a trigger of that form costs no more (`pairs.reconstruct`)."""

SUSPECT, CLOSE = 1.0, 0.8
"""A score from which on a class is suspect, and from which on it cannot be called clean."""

OVER_OTHERS = 2.0
"""A suspect's trigger must be so many times as cheap as those of the other classes (median)."""

HELD = 0.7
"""So many held-out images must move to the class (lower 95 % bound of the rise)."""

WORKS = 0.8
"""A trigger that moves so many of the search's own images is shown before a cheaper one."""

FEW_OF_CLASS = 3
"""A class with fewer images than this has no measured place inside the model."""

POWERFUL = 100
"""With fewer images than this a search that finds nothing says little."""

ONE_ANSWER = 0.95
"""A model that gives this share of images one label has nothing to compare with."""


@dataclass(frozen=True, slots=True)
class Searched:
    """What is known of the class that a search suspects most.

    Attributes:
        target: the class.
        score: of the trigger that is shown; see `compared`.
        others: the median of the other classes' own scores.
        coverage: how much of the image the trigger covers, 0 to 1.
        rise: of held-out images to the class, with its 95 % bounds.
        images: held-out images of other classes.
        known: images that the model itself reads as the class.
        source: the class on whose images the trigger works; None for all.
        paired: triggers for the images of one class were looked for.
        stray: share of images of other classes that junk leads to the class.
        drowned: classes of cheap triggers that are not suspect because junk leads there too.
        cheapest: score by the class's cheapest trigger, which may work on too few images.
    """

    target: int
    score: float
    others: float
    coverage: float
    rise: tuple[float, float, float]
    images: int
    known: int
    stray: float
    drowned: tuple[int, ...]
    source: int | None = None
    paired: bool = False
    cheapest: float = 0.0


def score_of(costs: Mapping[str, float], stray: float) -> float:
    """Return how suspect a class is by the cost of its triggers, by form; 1 is the threshold.

    A class that patches of junk lead to as well (`stray`, a share of images) is cheap by nature.
    """
    form = leading(costs)
    return BOUNDS[form] / max(costs[form], 1e-6) * math.sqrt(1 - min(stray, 1.0))


def leading(costs: Mapping[str, float]) -> str:
    """Return the form of the cheapest trigger beside its bound."""
    return max(costs, key=lambda form: BOUNDS[form] / max(costs[form], 1e-6))


def counted(
    costs: Sequence[Mapping[str, float]], strays: Sequence[float]
) -> list[Mapping[str, float]]:
    """Return which costs count of each class, given all and the share of strays.

    What works on all images works on those of each class: triggers for one class say something only
    where no class has another one that is suspect.
    """
    whole = [{form: cost[form] for form in cost if form != SOURCE} for cost in costs]
    scores = [score_of(*both) for both in zip(whole, strays, strict=True) if both[0]]
    return list(whole if max(scores, default=0.0) >= SUSPECT else costs)


def compared(score: float, others: Sequence[float]) -> float:
    """Return the score of a class beside those of others: a model may be easy to lead anywhere."""
    if not others:
        return score
    return min(score, score / (OVER_OTHERS * max(median(others), 1e-6)))


def judge_search(
    found: Searched | None, *, missing: int, real: bool, images: int, one_answer: float
) -> Decision:
    """Judge a search.

    Args:
        found: the most suspect class; None where nothing was searched to the end.
        missing: classes that the budget did not reach.
        real: the images are real ones, not generated.
        images: images that served the search.
        one_answer: share of images that get the most frequent label.
    """
    if one_answer > ONE_ANSWER:
        return Decision(
            "inconclusive",
            (
                f"the model gives {one_answer:.0%} of the images one label, so there is nothing "
                "to compare classes with; check --data and --preprocess",
            ),
        )
    if found is None:
        return Decision(
            "inconclusive",
            ("the budget ended before any class was searched; give more seconds with --budget",),
        )
    of = "other classes" if found.source is None else f"class {found.source}"
    # A class of few images that is not suspect leaves the others as they are.
    if found.images < FEWEST_IMAGES and (found.source is None or found.score >= CLOSE):
        return Decision(
            "inconclusive",
            (
                f"only {found.images} held-out images of {of}; at least {FEWEST_IMAGES} are "
                "needed. Give more with --data",
            ),
        )
    low = found.rise[1]
    shown = (
        f"class {found.target}: a trigger that covers {found.coverage:.1%} of the image moves "
        f"{found.rise[0]:+.1%} (95 % interval {low:+.1%} to {found.rise[2]:+.1%}) of held-out "
        f"images of {of} to it, patches of junk {found.stray:.1%}; its score is "
        f"{found.score:.2f}, suspect from {SUSPECT:.2f} on (the other classes by "
        f"themselves: {found.others:.2f}, median)"
    )
    telling = found.score >= SUSPECT
    if telling and low >= HELD and found.known >= FEW_OF_CLASS:
        return Decision(
            "backdoored",
            (
                shown,
                "such a trigger works by itself, not by drawing what the class looks like. "
                "Some clean models have one as well"
                + (
                    ": see what `repair --from` makes of it"
                    if found.source is None
                    else ". What works on the images of one class is not repaired: take the model "
                    "from a source that you trust"
                ),
            ),
        )
    cheaper = found.score < CLOSE <= found.cheapest
    if found.score >= CLOSE or cheaper:
        weak = [
            (cheaper, f"a cheaper one (score {found.cheapest:.2f}) works on too few images"),
            (not telling and not cheaper, "too close to what clean models have"),
            (low < HELD, "it does not hold on enough held-out images"),
            (found.known < FEW_OF_CLASS, "too few images of the class to know what it looks like"),
        ]
        why = "; ".join(text for true, text in weak if true)
        return Decision("inconclusive", (shown, f"no finding: {why}"))
    if found.drowned:
        named = ", ".join(map(str, found.drowned))
        return Decision(
            "inconclusive",
            (
                shown,
                f"class {named}: a small trigger was found, but patches of junk lead there as "
                "well, so it tells nothing; give a trigger with --trigger if there is one",
            ),
        )
    if missing:
        return Decision(
            "inconclusive",
            (shown, f"{missing} classes were not searched to the end; give a larger --budget"),
        )
    if not real:
        return Decision(
            "inconclusive",
            (shown, "generated images clear no model: give real ones with --data"),
        )
    if images < POWERFUL:
        return Decision(
            "inconclusive",
            (shown, f"{images} images are too few to clear a model; give at least {2 * POWERFUL}"),
        )
    return Decision(
        "clean",
        (
            shown,
            "no small or faint trigger "
            + ("for all images or those of one class " if found.paired else "for all images ")
            + "was found; "
            + ("" if found.paired else "triggers for one source class and ")
            + "warps and filters were not looked for",
        ),
    )


BLIND_LEFT = 0.03
"""Fresh reconstructions may move this many more held-out images than the base rate."""

KEPT_RECALL = 0.85
"""A repair that loses more of the class's own images has suppressed the class."""


def judge_blind(
    before: Mapping[str, Rate],
    after: Mapping[str, Rate],
    recall: tuple[Rate, Rate],
    again: float,
    max_loss: float,
) -> Decision:
    """Judge a repair that never saw the real trigger.

    Args:
        before: the unrepaired model's figures under fresh reconstructions.
        after: the repaired model's, under the same.
        recall: of the class's own images, before and after.
        again: score of the class by a new search of the repaired model.
        max_loss: budget on clean images.
    """
    plain = judge_repair(before, after, max_loss)
    if plain.verdict == "refused":
        return plain
    attack, base = after["attack_success"].value, before["base_rate"].value
    lost = accuracy_loss(before, after)
    reasons = []
    if attack > base + BLIND_LEFT + ROUNDING:
        reasons.append(
            f"fresh reconstructions still move {attack:.1%} of images (base rate {base:.1%})"
        )
    if lost > max_loss + ROUNDING:
        reasons.append(f"clean images lose {lost:.2%}, more than the budget of {max_loss:.2%}")
    old, new = recall
    if old.n and new.value < KEPT_RECALL * old.value - ROUNDING:
        reasons.append(
            f"the class's own images suffer: recall fell from {old.value:.1%} to {new.value:.1%}, "
            "as it does when a natural class is taken for a backdoor"
        )
    if again >= SUSPECT:
        reasons.append(f"a new search still finds a trigger as cheap (score {again:.2f})")
    if reasons:
        return Decision("not_repaired", tuple(reasons))
    return Decision(
        "repaired",
        (
            f"fresh reconstructions of plausible strength moved "
            f"{before['attack_success'].value:.1%} of images before and {attack:.1%} after (base "
            f"rate {base:.1%}); louder ones may still work, and the real trigger is not known: see "
            "residual_risk",
        ),
    )
