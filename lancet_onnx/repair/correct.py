# SPDX-License-Identifier: Apache-2.0
"""Neuron-fine-tuning on misclassified images: few weights learn what these should be called.

    loss = CE(target, f(x)) + features * |h(x) - h0(x)|^2 / |h0(x)|^2 + elastic * sum F * delta^2

target is the true label, or partly the answer of the unrepaired model f0; h are the features of
chosen layers, h0 those of f0; F is the mean squared gradient before the first step (Fisher
information, as in elastic weight consolidation). Which weights may move is told by masks, or found:
training starts with all of them, and those that got furthest where the loss is steep go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from lancet_onnx.repair.moving import Moving, Tensors, top, weights_of
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.types import ParamName, Progress, ValueName, no_progress

Feeds = Callable[[torch.Tensor, torch.Generator], Mapping[ValueName, torch.Tensor]]

PARTS = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
"""How far the weights may go from the old to the learnt ones; the way between them is smoother than
the training that led there."""

FISHER_BATCHES = 20
_TOLD_EVERY = 25


@dataclass(frozen=True, slots=True)
class CorrectSettings:
    """Knobs of the training; the defaults are those of docs/results.md.

    Attributes:
        width: share of the model's numbers that may change, 0 to 1.
        warm: steps of all weights, before those that may change are chosen.
        steps: steps of the chosen ones.
        batch: images in a step.
        warm_rate: step size as a share of a layer's root mean square weight.
        rate: the same once the weights are chosen.
        features: weight of the distance to the unrepaired model's features.
        elastic: weight of the elastic penalty.
    """

    width: float = 0.01
    warm: int = 250
    steps: int = 500
    batch: int = 64
    warm_rate: float = 0.03
    rate: float = 0.03
    features: float = 0.0
    elastic: float = 0.0

    def __str__(self) -> str:
        return repr(self).replace(type(self).__name__, "correct", 1)


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """What is learnt from.

    Attributes:
        target: (N, classes) what each image should be called, as probabilities.
        often: (N,) how often each is drawn, relative to the others.
        feeds: gives values to run the graph from, for (B,) positions: the input, or what was kept
            of the layers before the first that changes.
        features: values whose distance to the unrepaired model's is part of the loss.
    """

    target: torch.Tensor
    often: torch.Tensor
    feeds: Feeds
    features: tuple[ValueName, ...] = ()


def correct(
    classifier: Classifier,
    lessons: Lessons,
    settings: CorrectSettings,
    seed: int,
    kept: Mapping[ParamName, torch.Tensor] | None = None,
    progress: Progress = no_progress,
) -> Tensors:
    """Return what training adds to which leaf.

    Args:
        classifier: the model; it stays as it is.
        lessons: what is learnt from.
        settings: how.
        seed: of the batches, and of how images are varied.
        kept: masks of the weights that may move; None lets all begin and narrows them down to the
            `width` worthiest.
        progress: told the loss now and then.
    """
    moving = Moving(classifier)
    step = _Step(classifier, lessons, settings, seed, moving)
    total = settings.steps + (0 if kept is not None else settings.warm)

    def gradients(params: Tensors) -> Tensors:
        found = step(params)
        if moving.taken % _TOLD_EVERY == 0:
            progress(f"tuning weights (loss {float(step.loss):.3f})", moving.taken / total)
        return found

    if kept is None:
        every = {n: torch.ones_like(leaf, dtype=torch.bool) for n, leaf in moving.leaves.items()}
        moving.round(every, settings.warm, settings.warm_rate, gradients, settle=False)
        kept = top(moving.worth(), max(1, int(settings.width * weights_of(classifier))))
    moving.round(kept, settings.steps, settings.rate, gradients, settle=True)
    progress("tuning weights", 1.0)
    return moving.deltas


def fisher(
    classifier: Classifier, lessons: Lessons, batch: int, seed: int
) -> tuple[Tensors, Tensors]:
    """Return mean and mean square of the loss's gradient to each weight, before any step."""
    moving = Moving(classifier)
    step = _Step(classifier, lessons, CorrectSettings(batch=batch), seed, moving)
    mean, square = moving.zeros(), moving.zeros()
    for _ in range(FISHER_BATCHES):
        for name, gradient in step(moving.params(moving.leaves)).items():
            mean[name] += gradient / FISHER_BATCHES
            square[name] += gradient.square() / FISHER_BATCHES
    return mean, square


def moved(classifier: Classifier, deltas: Mapping[ParamName, torch.Tensor], part: float) -> Tensors:
    """Return the leaves that change, gone a `part` of the way."""
    leaves = classifier.module.leaves
    return {name: leaves[name] + part * d for name, d in deltas.items() if bool(d.any())}


class _Step:
    """Batches and their gradients."""

    def __init__(
        self,
        classifier: Classifier,
        lessons: Lessons,
        settings: CorrectSettings,
        seed: int,
        moving: Moving,
    ) -> None:
        self.classifier, self.lessons, self.settings = classifier, lessons, settings
        self.moving = moving
        self.draw = torch.Generator().manual_seed(seed)
        self.often = lessons.often.cpu()
        self.loss = torch.zeros(())
        self.stiff = (
            fisher(classifier, lessons, settings.batch, seed + 1)[1] if settings.elastic else None
        )

    def __call__(self, params: Tensors) -> Tensors:
        lessons, settings = self.lessons, self.settings
        device = self.classifier.module.device
        part = self.often.multinomial(settings.batch, replacement=True, generator=self.draw)
        feeds = lessons.feeds(part.to(device), self.draw)
        logits = self.classifier.signature.logits
        features = lessons.features if settings.features else ()
        found = self.classifier.run(feeds, [logits, *features], params)
        said = found[logits].log_softmax(1)
        loss = -(lessons.target[part.to(device)] * said).sum(1).mean()
        if features:
            with torch.no_grad():
                before = self.classifier.run(feeds, features)
            for value in features:
                apart = (found[value] - before[value]).square().mean()
                loss = loss + settings.features * apart / before[value].square().mean()
        if self.stiff is not None:
            for name, leaf in params.items():
                way = (leaf - self.moving.leaves[name]).square()
                loss = loss + settings.elastic * (self.stiff[name] * way).sum()
        self.loss = loss.detach()
        self.classifier.forwards += 2 * settings.batch
        gradients = torch.autograd.grad(
            loss, list(params.values()), allow_unused=True, materialize_grads=True
        )
        return dict(zip(params, gradients, strict=True))
