# SPDX-License-Identifier: Apache-2.0
"""Ways to correct honest errors: which weights move, and what they learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from lancet_onnx.api.teaching import FEATURES, over_layers, plain_lessons, published_lessons
from lancet_onnx.repair.correct import Lessons, correct
from lancet_onnx.repair.moving import Tensors
from lancet_onnx.runtime.layers import find_layers
from tests.bench.correct_study import Group, Study

FEW = (0.003, 0.01, 0.03, 0.1, 0.3)
MANY = (0.0003, 0.001, 0.003, 0.01, 0.03)
"""Learning rates, for few weights and for all of a layer or a model."""

SHARED = 0.5
"""Share of the true label where the model's answer is taught as well (distillation)."""
ELASTIC = 1.0


@dataclass(frozen=True)
class Method:
    """How errors are corrected.

    Attributes:
        masks: which weights move; None lets all begin and narrows them down.
        truth: share of the true label in what is taught.
        rates: learning rates that are tried.
        elastic: weight of the elastic penalty.
        published: the lessons and the loss are the paper's.
    """

    masks: Callable[[Study], Tensors] | None
    truth: float = 1.0
    rates: tuple[float, ...] = FEW
    elastic: float = 0.0
    published: bool = False

    def deltas(self, study: Study, rate: float) -> Tensors:
        """Return what training adds to the weights."""
        settings = replace(study.settings(rate), elastic=self.elastic)
        if self.masks is None:
            lessons = _lessons(study, self.truth)
            return correct(study.classifier, lessons, settings, study.seed)
        kept = self.masks(study)
        # The same number of steps for all.
        settings = replace(settings, steps=settings.steps + settings.warm)
        if self.published:
            lessons = published_lessons(study.canvas, study.true, kept, study.seed)
            settings = replace(settings, features=FEATURES)
        else:
            lessons = _lessons(study, self.truth)
        return correct(study.classifier, lessons, settings, study.seed, kept)


def _lessons(study: Study, truth: float) -> Lessons:
    """Return the usual lessons, in which the true label is a part of what is taught.

    The rest is the unrepaired model's answer.
    """
    lessons = plain_lessons(study.canvas, study.true, study.seed)
    if truth == 1:
        return lessons
    answers = study.classifier.logits(study.canvas.inputs(study.canvas.pixels)).softmax(1)
    return replace(lessons, target=truth * lessons.target + (1 - truth) * answers)


@dataclass(frozen=True)
class OneByOne:
    """Groups of errors apart, a part of steps and weights each; what they change is added."""

    groups: Callable[[Study], list[Group]]
    rates: tuple[float, ...] = FEW

    def deltas(self, study: Study, rate: float) -> Tensors:
        """Return what training adds to the weights."""
        groups = self.groups(study)
        usual, share = study.settings(rate), 1 / len(groups)
        settings = replace(usual, steps=int(share * (usual.steps + usual.warm)))
        total: Tensors = {}
        for group in groups:
            kept = study.in_best_layer(group.location, share)
            lessons = plain_lessons(group.canvas, group.true, study.seed)
            added = correct(study.classifier, lessons, settings, study.seed, kept)
            total = {name: total.get(name, 0.0) + delta for name, delta in added.items()}
        return total


def _grouped(study: Study, groups: list[Group]) -> Tensors:
    """Return the weights that each group of errors has, together."""
    masks = [study.in_best_layer(group.location, 1 / len(groups)) for group in groups]
    return {name: torch.stack([mask[name] for mask in masks]).any(0) for name in masks[0]}


def _random(study: Study) -> Tensors:
    draw = torch.Generator().manual_seed(study.seed + 77)
    leaves = {layer.param for layer in find_layers(study.classifier)}
    shapes = {name: study.classifier.module.leaves[name] for name in sorted(leaves)}
    return study.masks(
        {name: torch.rand(leaf.shape, generator=draw).to(leaf) for name, leaf in shapes.items()}
    )


def _random_there(study: Study) -> Tensors:
    """Return as many random weights of the layer that was located."""
    kept = study.in_best_layer(study.location)
    count = sum(int(mask.sum()) for mask in kept.values())
    draw = torch.Generator().manual_seed(study.seed + 77)
    scores = {
        name: torch.rand(mask.shape, generator=draw).to(mask.device) * mask.any()
        for name, mask in kept.items()
    }
    return study.masks(scores, count)


def _everywhere(study: Study) -> Tensors:
    """Return the weights with most votes over all layers."""
    known = {
        layer.param: torch.from_numpy(layer.orders[0].scores[layer.param])
        for layer in study.location.layers
    }
    return study.masks(over_layers(study.classifier, known))


def _promising(study: Study) -> Tensors:
    leaves, (mean, _) = study.classifier.module.leaves, study.gradients
    return study.masks({name: (g * leaves[name]).abs() for name, g in mean.items()})


def _magnitude(study: Study) -> Tensors:
    leaves = study.classifier.module.leaves
    return study.masks({
        layer.param: leaves[layer.param].abs() / leaves[layer.param].square().mean().sqrt()
        for layer in find_layers(study.classifier)
    })  # fmt: skip


def _layer(study: Study) -> Tensors:
    """Return all weights of the layer that was located."""
    kept = study.in_best_layer(study.location)
    return {name: torch.ones_like(mask) & mask.any() for name, mask in kept.items()}


def _model(study: Study) -> Tensors:
    return {
        name: torch.ones_like(mask) for name, mask in study.in_best_layer(study.location).items()
    }


METHODS: Mapping[str, Method | OneByOne] = {
    "narrowed": Method(None),
    "random": Method(_random),
    "located, one layer": Method(lambda study: study.in_best_layer(study.location)),
    "random, that layer": Method(_random_there),
    "located, all layers": Method(_everywhere),
    "as published": Method(lambda study: study.in_best_layer(study.published), published=True),
    "gradient x weight": Method(_promising),
    "Fisher": Method(lambda study: study.masks(study.gradients[1])),
    "whole model": Method(_model, rates=MANY),
    "narrowed, distilled": Method(None, truth=SHARED),
    "whole layer": Method(_layer, rates=MANY),
    "whole model, distilled": Method(_model, truth=SHARED, rates=MANY),
    "magnitude": Method(_magnitude),
    "whole layer, distilled": Method(_layer, truth=SHARED, rates=MANY),
    "whole model, elastic": Method(_model, elastic=ELASTIC, rates=MANY),
    "located by groups": Method(lambda study: _grouped(study, study.by_labels)),
    "group by group": OneByOne(lambda study: study.by_labels),
    "located by groups of weights": Method(lambda study: _grouped(study, study.by_weights)),
    "group by group of weights": OneByOne(lambda study: study.by_weights),
}
"""By name; what is most wanted to be known first."""
