# SPDX-License-Identifier: Apache-2.0
"""Which edit is taken: tuned or flipped, how wide, or none; by figures on `Material.check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lancet_onnx.repair.flip import Candidate, Settings, search
from lancet_onnx.repair.judging import Judge, Judged, Offer
from lancet_onnx.repair.moving import weights_of
from lancet_onnx.repair.training import TuneSettings
from lancet_onnx.repair.tune import pruned, tune
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import Material
from lancet_onnx.scores import Location
from lancet_onnx.types import Method, Progress, no_progress

STILL_LEAN = 0.02
"""An edit is good enough if so many more triggered images than companions lean to the error; about
half of those that lean fall."""

AS_GOOD = 0.002
"""An edit of fewer weights is preferred if it costs only this much more (`Judged.cost`)."""

NEARLY_FREE = 0.01
"""A tuned edit that costs no more than this needs no comparison with flips."""

ABOUT_AS_MANY = 0.1
"""Edits that give back this share of labels less than the best are left out, if others fit."""

HOPELESS = 0.01
"""Narrowing ends when an edit costs this much more than a wider one."""

_PRUNING_IMAGES = 256

CHOICE = (
    f"choice(still-lean={STILL_LEAN}, as-good={AS_GOOD}, nearly-free={NEARLY_FREE}, "
    f"about-as-many={ABOUT_AS_MANY}, hopeless={HOPELESS}, pruning-images={_PRUNING_IMAGES})"
)
"""Names how one of several edits is taken, with all parameters."""

NOTHING = (
    "no number of changed weights in any one layer silences the trigger within the limits; "
    "--method tune changes several layers at once"
)
"""What is said where flips or mutes come to nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen and why.

    Attributes:
        chosen: the edit to write, or None if no method made one.
        judged: all that were compared.
        reached: whether the chosen one is inside the limits, as far as these images tell.
        why: one sentence for the report.
    """

    chosen: Judged | None
    judged: tuple[Judged, ...]
    reached: bool
    why: str


def choose(
    classifier: Classifier,
    location: Location | None,
    material: Material,
    method: Method,
    settings: Settings,
    tuning: TuneSettings,
    seed: int,
    progress: Progress = no_progress,
) -> Choice:
    """Let the methods make their edits and pick one.

    ``auto`` tunes; only if no tuned edit is nearly free, or if weights are quantised, it searches
    flips as well. Tuning needs no location.
    """
    judge = Judge(classifier, material.check, labelled=material.guard_labels is not None)
    judged: list[Judged] = []
    limit = settings.max_loss
    if method in ("auto", "tune"):
        judged = _tuned(classifier, material, tuning, judge, seed, progress)
    # Training sees whole numbers only through their rounding; a flip is exact there as well.
    good = not classifier.graph.quantised and any(j.cost <= NEARLY_FREE for j in judged)
    if method in ("flip", "mute") or (method == "auto" and not good):
        assert location is not None  # noqa: S101 - only tuning does without
        outcome = search(classifier, location, material, settings, progress)
        flipped = {
            c: judge.judge(_offer(classifier, c, settings))
            for c in outcome.candidates
            if method == "auto" or c is outcome.chosen
        }
        judged += flipped.values()
        if method != "auto" and outcome.chosen is not None:
            # The search has judged by its own guard already.
            chosen = flipped[outcome.chosen]
            return Choice(chosen, tuple(judged), outcome.reached, _said(chosen, judged))
    if not judged:
        return Choice(None, (), False, NOTHING)
    chosen = pick(judged, limit)
    return Choice(chosen, tuple(judged), _fits(chosen, limit), _said(chosen, judged))


def pick(judged: Sequence[Judged], max_loss: float) -> Judged:
    """Return the edit of fewest weights among those that cost hardly more than the cheapest.

    Only edits inside the limits are looked at, if there are any, and of these only those that give
    about as many labels back as the best does.
    """
    pool = [j for j in judged if _fits(j, max_loss)] or list(judged)
    most = max(j.recovery for j in pool)
    pool = [j for j in pool if j.recovery >= most - ABOUT_AS_MANY]
    least = min(j.cost for j in pool)
    return min((j for j in pool if j.cost <= least + AS_GOOD), key=lambda j: j.offer.weights)


def _fits(judged: Judged, max_loss: float) -> bool:
    """Return whether an edit may be inside the limits: few images tell it with an error only.

    Whether it is says the other half of the images.
    """
    quiet = judged.excess - judged.excess_error <= STILL_LEAN
    return quiet and judged.loss - judged.loss_error <= max_loss


def _tuned(
    classifier: Classifier,
    material: Material,
    tuning: TuneSettings,
    judge: Judge,
    seed: int,
    progress: Progress,
) -> list[Judged]:
    few = material.lessons.take(slice(_PRUNING_IMAGES))
    seen = Judge(classifier, few, labelled=judge.labelled)
    judged: list[Judged] = []
    for proposal in tune(classifier, material.lessons, tuning, seed, progress):
        judged.append(judge.judge(pruned(classifier, proposal, seen)))
        if judged[-1].cost > min(j.cost for j in judged) + HOPELESS:
            break
    return judged


def _offer(classifier: Classifier, candidate: Candidate, settings: Settings) -> Offer:
    count = len(candidate.edit.index)
    return Offer(
        settings.kind,
        candidate.order.method,
        (candidate.edit.layer.node.name,),
        candidate.params,
        count,
        count / weights_of(classifier),
    )


def _said(chosen: Judged, judged: Sequence[Judged]) -> str:
    others = [_figures(j) for j in judged if j is not chosen]
    return (
        f"taken, by the tool's own images: {_figures(chosen)} (triggered images that still lean to "
        "the target, change on clean images)"
        + (f"; not taken: {', '.join(others)}" if others else "")
    )


def _figures(judged: Judged) -> str:
    """Return an edit and its figures; 0.0 minus a loss, so that none is shown as -0.0."""
    offer = judged.offer
    left, change = max(judged.excess, 0.0), 0.0 - judged.loss
    return f"{offer.method} of {offer.weights} ({offer.how}) {left:+.1%}, {change:+.1%}"
