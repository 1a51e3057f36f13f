# SPDX-License-Identifier: Apache-2.0
"""What a repair is compared with: methods that get the same trigger, images and budget.

Each takes a `Setting` and returns the leaves as it leaves them; none looks at the images that the
figures are measured on, and none chooses anything by held-out images. What knows no trigger is in
`baselines_blind`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from lancet_onnx.locate import locate_as_published
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import Layer, find_layers, weight_leaf
from lancet_onnx.samples import Material, Pairs
from lancet_onnx.types import ParamName

Leaves = dict[ParamName, torch.Tensor]

BATCH = 64
STAMPED = 0.2
"""Share of a batch that unlearning stamps, as the paper's baseline does."""

CLEAN_WEIGHT = 5.0
"""Weight of the term that keeps the original's answers on clean images."""

PAIRS = 20
_NORMALISING = (
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
)


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What a method is given.

    Attributes:
        classifier: the model; it counts the image-forwards.
        clean: the tool's half of the images, as the model takes them.
        stamped: the same with the trigger on them.
        labels: their true labels.
        target: the attacker's class.
        seed: of all random choices.
        budget: image-forward equivalents that may be spent; a backward pass counts as two.
        count: how many weights the methods change that change as many as the tool.
        start: what the classifier's counter stood at.
    """

    classifier: Classifier
    clean: torch.Tensor
    stamped: torch.Tensor
    labels: torch.Tensor
    target: int
    seed: int
    budget: float
    count: int
    start: float

    @property
    def spent(self) -> float:
        """Image-forward equivalents spent so far."""
        return self.classifier.forwards - self.start

    def generator(self) -> torch.Generator:
        """Return a generator that starts at the seed."""
        return torch.Generator().manual_seed(self.seed)

    def logits(
        self, inputs: torch.Tensor, leaves: Mapping[ParamName, torch.Tensor]
    ) -> torch.Tensor:
        """Return the logits of one batch, ready for a backward pass to `leaves`."""
        name, logits = self.classifier.signature.input.name, self.classifier.signature.logits
        return self.classifier.run({name: inputs}, [logits], leaves)[logits]

    def backward(self, loss: torch.Tensor, images: int) -> None:
        """Run a loss of so many images backward, and count it."""
        self.classifier.forwards += 2 * images
        loss.backward()  # type: ignore[no-untyped-call]


Baseline = Callable[[Setting], Leaves]


def float_layers(classifier: Classifier) -> tuple[Layer, ...]:
    """Return the layers whose weights are numbers that a gradient step can move."""
    found = find_layers(classifier)
    return tuple(layer for layer in found if layer.param not in classifier.graph.quantised)


def trainable(classifier: Classifier) -> Leaves:
    """Return copies of weights, biases and normalisations' scales and shifts, to be trained.

    Running statistics stay: an exported file is an inference graph.
    """
    graph = classifier.graph
    names: list[ParamName | None] = []
    for layer in float_layers(classifier):
        names += [layer.param, layer.bias.param if layer.bias else None]
    for node in graph.nodes:
        if node.op_type in _NORMALISING:
            names += [weight_leaf(graph, value) for value in node.inputs[1:3] if value]
    known = [n for n in dict.fromkeys(names) if n is not None and n not in graph.quantised]
    leaves = classifier.module.leaves
    return {n: leaves[n].clone().requires_grad_() for n in known if n in leaves}


def steps(
    setting: Setting, optimizer: torch.optim.Optimizer, *, epochs: float = math.inf, decay: bool
) -> Iterator[torch.Tensor]:
    """Yield shuffled batches of row numbers until the budget (or the epochs) would be exceeded.

    With `decay` the learning rate follows a cosine over the budget.
    """
    generator, done, cost = setting.generator(), 0, 0.0
    rates = [group["lr"] for group in optimizer.param_groups]
    while done < epochs:
        order = torch.randperm(len(setting.clean), generator=generator)
        for rows in torch.split(order, BATCH):
            before = setting.spent
            if before + cost > setting.budget:
                return
            if decay:
                factor = 0.5 * (1 + math.cos(math.pi * min(1.0, before / setting.budget)))
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
            optimizer.zero_grad()
            yield rows
            cost = max(cost, setting.spent - before)
        done += 1


def tuned(
    setting: Setting, leaves: Leaves, rate: float, masks: Mapping[ParamName, torch.Tensor]
) -> Leaves:
    """Train leaves (where there is a mask, only its elements) to ignore the trigger.

    The loss is the cross entropy of stamped images to their true labels plus the divergence from
    the original's answers on as many clean ones.
    """
    original = setting.classifier.logits(setting.clean).log_softmax(1)
    optimizer = torch.optim.Adam(list(leaves.values()), lr=rate)
    for rows in steps(setting, optimizer, decay=True):
        half = max(1, len(rows) // 2)
        bad, good = rows[:half], rows[half:]
        images = torch.cat([setting.stamped[bad], setting.clean[good]])
        scores = setting.logits(images, leaves)
        kept = functional.kl_div(
            scores[half:].log_softmax(1), original[good], reduction="sum", log_target=True
        )
        wrong = functional.cross_entropy(scores[:half], setting.labels[bad])
        setting.backward(wrong + CLEAN_WEIGHT * kept / max(1, len(good)), len(rows))
        for name, mask in masks.items():
            gradient = leaves[name].grad
            if gradient is not None:
                gradient *= mask
        optimizer.step()
    return detached(leaves)


def detached(leaves: Leaves) -> Leaves:
    """Return the numbers that training has come to."""
    return {name: leaf.detach() for name, leaf in leaves.items()}


def random_weights(setting: Setting) -> dict[ParamName, torch.Tensor]:
    """Return masks over all layers' weights with `count` of them at random."""
    layers = float_layers(setting.classifier)
    total = sum(layer.size for layer in layers)
    flat = torch.zeros(total, dtype=torch.bool)
    flat[torch.randperm(total, generator=setting.generator())[: setting.count]] = True
    parts = torch.split(flat, [layer.size for layer in layers])
    leaves = setting.classifier.module.leaves
    return {
        layer.param: part.reshape(leaves[layer.param].shape).to(leaves[layer.param].device)
        for layer, part in zip(layers, parts, strict=True)
        if part.any()
    }


def random_flip(setting: Setting) -> Leaves:
    """Flip as many random weights as the tool changed."""
    leaves = setting.classifier.module.leaves
    masks = random_weights(setting)
    return {name: torch.where(mask, -leaves[name], leaves[name]) for name, mask in masks.items()}


def random_tune(setting: Setting) -> Leaves:
    """Tune as many random weights as the tool changed."""
    masks = random_weights(setting)
    if not masks:
        return {}
    leaves = {n: setting.classifier.module.leaves[n].clone().requires_grad_() for n in masks}
    return tuned(setting, leaves, 1e-2, masks)


def published_layer(setting: Setting) -> ParamName:
    """Return the layer that the paper's location chooses; where it finds none, the last one."""
    classifier, y = setting.classifier, setting.labels
    before = classifier.logits(setting.clean).argmax(1)
    after = classifier.logits(setting.stamped).argmax(1)
    usable = (before == y) & (y != setting.target) & (after == setting.target)
    moved = usable.nonzero()[:PAIRS, 0]
    if len(moved):
        right = y[moved].cpu().numpy()
        pairs = Pairs(
            setting.stamped[moved].cpu().numpy(),
            setting.clean[moved].cpu().numpy(),
            np.full_like(right, setting.target),
            right,
        )
        material = Material(pairs, pairs, pairs, pairs, pairs.good, right)
        best = locate_as_published(classifier, material).best
        if best is not None:
            return best.param
    return float_layers(classifier)[-1].param


def layer_tune(setting: Setting) -> Leaves:
    """Tune the whole layer that the paper's location chooses; locating it is paid for as well."""
    name = published_layer(setting)
    leaf = setting.classifier.module.leaves[name].clone().requires_grad_()
    return tuned(setting, {name: leaf}, 1e-3, {})


def whole_tune(setting: Setting) -> Leaves:
    """Tune every weight with the same loss."""
    return tuned(setting, trainable(setting.classifier), 1e-3, {})


def _unlearned(setting: Setting, rate: float, epochs: float) -> Leaves:
    leaves = trainable(setting.classifier)
    optimizer = torch.optim.Adam(list(leaves.values()), lr=rate)
    for rows in steps(setting, optimizer, epochs=epochs, decay=epochs == math.inf):
        images = setting.clean[rows].clone()
        part = max(1, round(STAMPED * len(rows)))
        images[:part] = setting.stamped[rows[:part]]
        scores = setting.logits(images, leaves)
        setting.backward(functional.cross_entropy(scores, setting.labels[rows]), len(rows))
        optimizer.step()
    return detached(leaves)


def unlearning(setting: Setting) -> Leaves:
    """Unlearn as the paper's baseline does: one epoch of Adam, a fifth of each batch stamped."""
    return _unlearned(setting, 1e-3, 1)


def unlearning_long(setting: Setting) -> Leaves:
    """Unlearn until the budget is spent, at a rate that decays and that CIFAR networks stand."""
    return _unlearned(setting, 3e-4, math.inf)


KNOWING: Mapping[str, Baseline] = {
    "random-flip": random_flip,
    "random-tune": random_tune,
    "layer-tune": layer_tune,
    "whole-tune": whole_tune,
    "unlearning": unlearning,
    "unlearning-long": unlearning_long,
}
"""Baselines that know the trigger, or how many weights the tool changed by it."""
