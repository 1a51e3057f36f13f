# SPDX-License-Identifier: Apache-2.0
"""An edit that the tool does not make: a factor a channel, as a BatchNorm's scale has it."""

from __future__ import annotations

import math

import torch

from lancet_onnx.repair import Offer, TuneSettings
from lancet_onnx.repair.moving import Tensors, weights_of
from lancet_onnx.repair.training import Trainer
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import Layer, find_layers
from lancet_onnx.samples import Pairs

ROUNDS = 6
"""As many rounds of steps as tuning takes with its usual ladder."""

RATE = 0.02
"""Step of a factor; a bias moves by this share of its layer's root mean square bias."""


def scale_channels(
    classifier: Classifier, lessons: Pairs, settings: TuneSettings, seed: int
) -> Offer:
    """Learn a factor for each output channel of each layer, and the shift of its bias."""
    trainer = Trainer(classifier, lessons, settings, seed)
    layers, leaves = find_layers(classifier), classifier.module.leaves
    factors = {
        n.param: torch.zeros(_channels(n, leaves[n.param]), requires_grad=True) for n in layers
    }
    shifts = {
        n.bias.param: torch.zeros_like(leaves[n.bias.param], requires_grad=True)
        for n in layers
        if n.bias
    }

    def params() -> Tensors:
        scaled = {name: leaves[name] * (1 + factor) for name, factor in factors.items()}
        moved = {name: leaves[name] + shift * _size(leaves[name]) for name, shift in shifts.items()}
        return scaled | moved

    learnt = [*factors.values(), *shifts.values()]
    optimiser = torch.optim.Adam(learnt, RATE)
    steps = ROUNDS * settings.steps
    for step in range(steps):
        part = next(trainer.batches)
        optimiser.param_groups[0]["lr"] = RATE * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        trainer.loss(part, params()).backward()  # type: ignore[no-untyped-call]
        classifier.forwards += 4 * len(part)
        optimiser.step()
    weights = sum(layer.size for layer in layers)
    final = {name: leaf.detach() for name, leaf in params().items()}
    nodes = tuple(layer.node.name for layer in layers)
    return Offer("tune", "channels", nodes, final, weights, weights / weights_of(classifier))


def _channels(layer: Layer, weight: torch.Tensor) -> tuple[int, ...]:
    """Return the shape that broadcasts a number a channel over a Conv's, Gemm's or MatMul's weight.

    Output channels are the first axis (Conv; Gemm with transB) or the last.
    """
    first = layer.node.op_type == "Conv" or bool(layer.node.attributes.get("transB"))
    axis = 0 if first else weight.ndim - 1
    return tuple(size if n == axis else 1 for n, size in enumerate(weight.shape))


def _size(leaf: torch.Tensor) -> torch.Tensor:
    return leaf.square().mean().sqrt()
