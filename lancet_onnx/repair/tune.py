# SPDX-License-Identifier: Apache-2.0
"""Neuron-fine-tuning on pairs: a few weights learn to give triggered images their label back.

The weights of all layers compete. Training starts with all of them and narrows down: after each
round the weights whose change mattered least go back to their old value. At each width of the
ladder the survivors are trained on, and what they reach is one proposal; which of them is taken
is decided elsewhere, on images that were not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lancet_onnx.repair.judging import Judge, Offer
from lancet_onnx.repair.moving import Tensors, top, weights_of
from lancet_onnx.repair.training import Trainer, TuneSettings
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.samples import Pairs
from lancet_onnx.types import Progress, no_progress

PRUNED = (0.5, 0.7, 0.85)
_PRUNING_COSTS = 0.001
"""Pruning tries to keep these shares of the weights, and may cost this much (`Judged.cost`)."""

PRUNING = f"pruning(shares={PRUNED}, costs={_PRUNING_COSTS})"
"""Names how edits are pruned, with all parameters."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What training at one width came to.

    Attributes:
        width: share of the model's numbers that could move, 0 to 1.
        deltas: what is added to which leaf; 0 where a weight stays.
        worth: how much each delta matters, of the same shapes.
    """

    width: float
    deltas: Tensors
    worth: Tensors


def tune(
    classifier: Classifier,
    lessons: Pairs,
    settings: TuneSettings,
    seed: int,
    progress: Progress = no_progress,
) -> Iterator[Proposal]:
    """Train on `lessons` and yield a proposal for each width of the ladder, narrowest last.

    Who has seen enough stops asking; the rest is then not trained.
    """
    trainer = Trainer(classifier, lessons, settings, seed)
    widths = [*settings.warm, *settings.ladder]
    for number, width in enumerate(widths):
        progress("tuning weights", number / len(widths))
        scores = trainer.moving.worth() if number else trainer.promise()
        count = max(1, int(width * weights_of(classifier)))
        warm = number < len(settings.warm)
        rate = settings.rate * (0.001 / width) ** (1 / 3)
        trainer.train(top(scores, count), rate, settle=not warm)
        if not warm:
            deltas = {name: delta.clone() for name, delta in trainer.moving.deltas.items()}
            yield Proposal(width, deltas, trainer.moving.worth())
    progress("tuning weights", 1.0)


def offer_of(classifier: Classifier, proposal: Proposal, share: float = 1.0) -> Offer:
    """Return a proposal as an offer, with the worthiest `share` of its deltas."""
    moved = sum(int(delta.count_nonzero()) for delta in proposal.deltas.values())
    kept = top(proposal.worth, max(1, round(share * moved)))
    params, nodes, weights = {}, [], 0
    for layer in find_layers(classifier):
        delta = proposal.deltas[layer.param] * kept[layer.param]
        changed = int(delta.count_nonzero())
        if changed:
            params[layer.param] = classifier.module.leaves[layer.param] + delta
            nodes.append(layer.node.name)
            weights += changed
    how = f"width {proposal.width:.2%}" + (f", {share:.0%} of it kept" if share < 1 else "")
    return Offer("tune", how, tuple(nodes), params, weights, weights / weights_of(classifier))


def pruned(classifier: Classifier, proposal: Proposal, judge: Judge) -> Offer:
    """Return the offer with as few of its deltas as do the same on the images of `judge`."""
    whole = offer_of(classifier, proposal)
    most = judge.judge(whole).cost + _PRUNING_COSTS
    for share in PRUNED:
        smaller = offer_of(classifier, proposal, share)
        if judge.judge(smaller).cost <= most:
            return smaller
    return whole
