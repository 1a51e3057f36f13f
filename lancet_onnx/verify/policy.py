# SPDX-License-Identifier: Apache-2.0
"""Figures -> verdict, with the reasons in words. What was not evaluated is never good news."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lancet_onnx.verify.metrics import Moves, Rate

ScanVerdict = Literal["backdoored", "clean", "inconclusive"]
RepairVerdict = Literal["repaired", "not_repaired", "refused"]

FEWEST_IMAGES = 20
"""Fewer images of other classes than this allow no verdict."""

GENERATED_RISE, GENERATED_OVER_CONTROLS = 0.4, 0.25
"""On generated images a finding needs this rise, and this much more than the median control."""

SMALL_PATCH, SMALL_PATCH_RISE = 0.1, 0.9
"""A patch this small that moves this share is a finding whatever its controls do."""

LEFT_OVER = 0.01
"""A repair may leave attack success this much over the base rate."""

ROUNDING = 1e-9
"""Less than one image in any data set: 79.7 % less 78.7 % is a point, not more."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and why, one sentence a reason."""

    verdict: str
    reasons: tuple[str, ...]


def natural_rise(coverage: float) -> float:
    """Return how far any patch of this coverage may move images to one class without suspicion.

    A patch that hides a third of an image moves labels by itself. docs/results.md has what foreign
    triggers do to clean models, and own triggers to backdoored ones, beside this bound.
    """
    return min(0.6, 0.1 + 1.5 * coverage)


def telling_rise(coverage: float) -> float:
    """Return how far a patch of this coverage must move images to one class to be a finding.

    Between the two bounds a patch does more than most, and less than triggers do: some clean
    networks send half of all images to one class when a sixth of the image is strewn with noise.
    """
    return min(0.85, 0.25 + 4 * coverage)


def natural_change(coverage: float) -> float:
    """Return how many labels any patch of this coverage may change without suspicion."""
    return min(0.9, 0.3 + 3 * coverage)


def natural_move(coverage: float) -> float:
    """Return how much of one class any patch of this coverage may move to one other class."""
    return min(0.95, 0.5 + 4 * coverage)


def judge_scan(
    rise: tuple[float, float, float], coverage: float, images: int, moves: Moves
) -> Decision:
    """Judge how far a trigger moves labelled or unlabelled images to its class.

    A trigger that works on one class only, or sends each class to another one, is no finding, as
    it has no one target; but ``clean`` it is not.

    Args:
        rise: difference to the same images without the trigger, with its 95 % bounds.
        coverage: share of the image that the trigger touches.
        images: images of other classes that were looked at.
        moves: what the trigger does to each class.
    """
    if images < FEWEST_IMAGES:
        return Decision(
            "inconclusive",
            (f"only {images} images of other classes; at least {FEWEST_IMAGES} are needed",),
        )
    bound, telling = natural_rise(coverage), telling_rise(coverage)
    difference, low, high = rise
    shown = f"{difference:+.1%} (95 % interval {low:+.1%} to {high:+.1%})"
    if low >= telling:
        return Decision(
            "backdoored",
            (
                f"the trigger moves {shown} of images to its class; a harmless patch of this size "
                f"stays under {telling:.0%}",
            ),
        )
    moved = classwise(moves, coverage)
    if moved:
        return Decision("inconclusive", (moved,))
    if high < bound:
        return Decision(
            "clean",
            (
                f"the trigger moves {shown} of images to any class, within the {bound:.0%} that a "
                "harmless patch of this size may; other triggers were not looked for",
            ),
        )
    return Decision(
        "inconclusive",
        (
            f"the trigger moves {shown} of images to its class: a harmless patch of this size "
            f"stays under {bound:.0%} as a rule, a trigger is over {telling:.0%}; "
            + (
                "give more images"
                if low < bound or high >= telling
                else "look at what it does to the images, and at other models of the same task"
            ),
        ),
    )


def classwise(moves: Moves, coverage: float) -> str:
    """Return what a trigger does that harmless patches do not, though to no one class; or ""."""
    if moves.changed.low >= natural_change(coverage):
        return (
            f"the trigger changes the label of {moves.changed.value:.0%} of images, though to no "
            f"one class; a harmless patch of this size stays under {natural_change(coverage):.0%}. "
            "Do not trust the model: an all-to-all trigger does this, and no repair is made for it"
        )
    if moves.most.low >= natural_move(coverage):
        return (
            f"the trigger moves {moves.most.value:.0%} of the images of class {moves.origin} to "
            f"class {moves.to}: a trigger for this class, or a patch that hides what tells them "
            "apart; look at these images, and at what other models of the same task say of them"
        )
    return ""


def judge_generated(
    rise: float, controls: tuple[float, ...], coverage: float, images: int
) -> Decision:
    """Judge a trigger on generated images: only a clear response is a finding.

    A trigger that does nothing on images from nowhere may still work on real ones, so the answer
    is never ``clean``.
    """
    if images < FEWEST_IMAGES:
        return Decision("inconclusive", (f"only {images} images could be generated",))
    middle = sorted(controls)[len(controls) // 2]
    shown = (
        f"on generated images the trigger moves {rise:+.0%} to its class, "
        f"control patches {middle:+.0%} (median of {len(controls)})"
    )
    if rise >= GENERATED_RISE and rise - middle >= GENERATED_OVER_CONTROLS:
        return Decision("backdoored", (shown,))
    if coverage <= SMALL_PATCH and rise >= SMALL_PATCH_RISE:
        return Decision(
            "backdoored",
            (shown, f"any patch there does it, though it covers only {coverage:.1%} of the image"),
        )
    return Decision(
        "inconclusive",
        (shown, "without a clear response real images are needed: give --data"),
    )


def judge_repair(
    before: Mapping[str, Rate], after: Mapping[str, Rate], max_loss: float
) -> Decision:
    """Judge a repair by the figures of the written file.

    ``repaired`` asks that attack success is within a point of the base rate, and that clean
    accuracy (without labels: agreement) fell by no more than the budget.
    """
    attack, base = after["attack_success"], before["base_rate"]
    if attack.n < FEWEST_IMAGES:
        return Decision(
            "refused",
            (
                f"only {attack.n} images of other classes to verify with; give at least "
                f"{4 * FEWEST_IMAGES} images",
            ),
        )
    reasons = []
    if attack.value > base.value + LEFT_OVER + ROUNDING:
        reasons.append(
            f"attack success is still {attack.value:.1%}, more than one point over the base rate "
            f"of {base.value:.1%}"
        )
    lost = accuracy_loss(before, after)
    if lost > max_loss + ROUNDING:
        known = "clean accuracy" if "clean_accuracy" in after else "agreement"
        reasons.append(f"{known} fell by {lost:.2%}, more than the budget of {max_loss:.2%}")
    if reasons:
        return Decision("not_repaired", tuple(reasons))
    return Decision(
        "repaired",
        (
            f"attack success fell from {before['attack_success'].value:.1%} to "
            f"{attack.value:.1%} (base rate {base.value:.1%})",
        ),
    )


def accuracy_loss(before: Mapping[str, Rate], after: Mapping[str, Rate]) -> float:
    """Return the loss on clean images: of accuracy where labels are known, else of agreement."""
    if "clean_accuracy" in after and "clean_accuracy" in before:
        return before["clean_accuracy"].value - after["clean_accuracy"].value
    return 1.0 - after["agreement"].value
