# SPDX-License-Identifier: Apache-2.0
"""What a repair of honest errors came to: better or worse on images that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping

from lancet_onnx.verify.metrics import Rate, mcnemar
from lancet_onnx.verify.policy import FEWEST_IMAGES, ROUNDING, Decision

BY_CHANCE = 0.05
"""From this p-value of McNemar's test on, a gain is said to be possible by chance."""


def judge_correction(
    after: Mapping[str, Rate], given: Rate | None, apart: int, max_regression: float
) -> Decision:
    """Judge the repair of misclassified images by what held-out images show.

    ``repaired`` asks that more images got better than worse, that no more than the budget got
    worse, and that some of the errors that were given are right now.

    Args:
        after: figures of `verify.metrics.corrections` on held-out images.
        given: held-out errors of those that were given, and how many are right now; None where
            the errors are those of the same images.
        apart: how many of these are right now and not among the images of `after`. Whoever gives
            errors knows that they occur, so they count as better; for the p-value they do not,
            since they were picked for being wrong.
        max_regression: how many of the images that were right may be wrong now, 0 to 1.
    """
    was_wrong, was_right = after["repair_rate"], after["regression_rate"]
    if was_right.n < FEWEST_IMAGES:
        return Decision(
            "refused",
            (
                f"only {was_right.n} held-out images that the model gets right; at least "
                f"{FEWEST_IMAGES} are needed to see what a repair breaks. Give more with --data",
            ),
        )
    better, worse = was_wrong.count, was_right.count
    p = mcnemar(better, worse)
    told = [
        f"of {was_wrong.n} held-out errors {better} are right now, of {was_right.n} right ones "
        f"{worse} are wrong now (McNemar's p = {p:.2g})"
    ]
    if given is not None and given.n:
        told.append(f"of {given.n} held-out errors that were given {given.count} are right now")
    reasons = []
    if better + apart <= worse:
        reasons.append("no more images got better than worse")
    if was_right.value > max_regression + ROUNDING:
        reasons.append(
            f"{was_right.value:.2%} of what was right is wrong now, more than the budget of "
            f"{max_regression:.2%}"
        )
    if given is not None and given.n and not given.count:
        reasons.append("none of the errors that were given is right now")
    if reasons:
        return Decision("not_repaired", (*told, *reasons))
    if p >= BY_CHANCE and not apart:
        told.append("so small a gain may be chance; more images with --data would tell")
    return Decision("repaired", tuple(told))
