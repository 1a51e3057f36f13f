# SPDX-License-Identifier: Apache-2.0
"""Weights that move: Adam on chosen weights of all layers, each layer in steps of its own size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch

from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.types import ParamName

Tensors = dict[ParamName, torch.Tensor]

BETA1, BETA2 = 0.9, 0.99
_EPSILON = 1e-8


class Moving:
    """What is added to the weights of a model's layers, and the moments of their gradients.

    Attributes:
        leaves: the weights as they were.
        deltas: what has been added to them.
        taken: steps so far.
        unit: the size of a step in each layer: root mean square of its weights.
    """

    def __init__(self, classifier: Classifier) -> None:
        leaves = classifier.module.leaves
        self.leaves = {layer.param: leaves[layer.param] for layer in find_layers(classifier)}
        self.deltas, self.first, self.second = (self.zeros() for _ in range(3))
        self.taken = 0
        self.unit = {name: leaf.square().mean().sqrt() for name, leaf in self.leaves.items()}

    def zeros(self) -> Tensors:
        """Return a tensor of zeros for each leaf."""
        return {name: torch.zeros_like(leaf) for name, leaf in self.leaves.items()}

    def params(self, names: Iterable[ParamName]) -> Tensors:
        """Return the moved weights of some leaves, ready for gradients."""
        return {name: (self.leaves[name] + self.deltas[name]).requires_grad_() for name in names}

    def worth(self) -> Tensors:
        """Return |delta| * root mean square gradient: what a change has done."""
        return {name: d.abs() * self.second[name].sqrt() for name, d in self.deltas.items()}

    def round(
        self,
        kept: Mapping[ParamName, torch.Tensor],
        steps: int,
        rate: float,
        gradients: Callable[[Tensors], Tensors],
        *,
        settle: bool,
    ) -> None:
        """Take steps on the weights in `kept`; all others go back to what they were.

        With `settle` the steps shrink to nothing, so that the end of the round is a result.
        """
        for name, mask in kept.items():
            self.deltas[name] *= mask
            self.first[name] *= mask
        live = [name for name, mask in kept.items() if bool(mask.any())]
        for step in range(steps if live else 0):
            found = gradients(self.params(live))
            self.taken += 1
            size = rate * (0.5 + 0.5 * math.cos(math.pi * step / steps) if settle else 1.0)
            for name, gradient in found.items():
                m, v = self.first[name], self.second[name]
                m.mul_(BETA1).add_(gradient, alpha=1 - BETA1)
                v.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
                spread = (v / (1 - BETA2**self.taken)).sqrt() + _EPSILON
                move = m / (1 - BETA1**self.taken) / spread
                self.deltas[name] -= size * self.unit[name] * move * kept[name]


def weights_of(classifier: Classifier) -> int:
    """Return how many numbers the model's leaves hold."""
    return sum(leaf.numel() for leaf in classifier.module.leaves.values())


def top(scores: Mapping[ParamName, torch.Tensor], count: int) -> Tensors:
    """Return masks of the `count` highest scores over all leaves; never of a score of 0."""
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    best = flat.topk(min(count, len(flat))).indices
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[best] = flat[best] > 0
    parts = kept.split([score.numel() for score in scores.values()])  # type: ignore[no-untyped-call]
    shaped = zip(scores.items(), parts, strict=True)
    return {name: part.reshape(score.shape) for (name, score), part in shaped}
