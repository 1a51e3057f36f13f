# SPDX-License-Identifier: Apache-2.0
"""Training of some of a model's weights on pairs, next to the model as it was.

    loss = KL(f0(x') || f(x)) + PUSH * relu(lead(x) - max(lead0(x'), -1))    triggered x
         + CLEAN * KL(f0(x') || f(x'))                                        companions x'

lead is by how much the wrong label's logit is over the best other one. f0 is the unrepaired model:
its answers on clean images are the teacher, so no label is needed, and images that nobody took can
be lessons as well: mixtures of two pairs, shifted companions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from lancet_onnx.repair.moving import BETA1, BETA2, Moving, Tensors
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.leads import lead
from lancet_onnx.samples import Pairs
from lancet_onnx.types import ParamName


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Knobs of the training; the defaults are those of docs/results.md.

    Attributes:
        warm: shares of the model's weights that may move in the rounds before the first proposal.
        ladder: shares at which proposals are made, falling.
        steps: steps in each round.
        batch: pairs in a step.
        rate: step size as a share of a layer's root mean square weight, for a thousandth of the
            weights; a round with more of them takes smaller steps, by the cube root.
        clean: weight of the term that keeps clean images as they are.
        push: weight of the term that keeps the wrong label under the others.
        mix: share of a step's pairs that are mixtures of two.
        shift: half of a step's clean images are shifted by up to this share of their size.
    """

    warm: tuple[float, ...] = (1.0, 0.1)
    ladder: tuple[float, ...] = (0.03, 0.01, 0.003, 0.001)
    steps: int = 80
    batch: int = 64
    rate: float = 0.25
    clean: float = 30.0
    push: float = 6.0
    mix: float = 0.5
    shift: float = 0.07

    def __str__(self) -> str:
        return repr(self).replace(type(self).__name__, "tune", 1)


MARGIN = 1.0
"""The wrong label is pushed this far under the others, in units of the logits."""

DUST = 1e-12
"""Gradients to logits under this are taken for 0. Those of an image that the model is sure of would
become numbers too small for full precision on their way back, which a CPU is ten times as slow
with."""

_IMAGE_AXES = 4
_RANKING_BATCHES = 8

TRAINING = (
    f"training(moments={BETA1}/{BETA2}, margin={MARGIN}, dust={DUST}, "
    f"ranking={_RANKING_BATCHES} batches)"
)
"""Names how weights are ranked and learn, with all parameters."""


class Trainer:
    """Lessons, their loss, and the weights that learn from them."""

    def __init__(
        self, classifier: Classifier, lessons: Pairs, settings: TuneSettings, seed: int
    ) -> None:
        self.classifier, self.settings = classifier, settings
        self.bad, self.good = classifier.tensor(lessons.bad), classifier.tensor(lessons.good)
        self.wrong = torch.from_numpy(lessons.wrong).to(self.good.device)
        self.before = classifier.logits(self.good)
        self.moving = Moving(classifier)
        self.draw = torch.Generator().manual_seed(seed)
        self.batches = self._batches()
        self.axes = height_and_width(self.good.shape)

    def promise(self) -> Tensors:
        """Return |gradient * weight| of the triggered images' loss: what a change could do."""
        leaves = self.moving.leaves
        total = self.moving.zeros()
        for _, part in zip(range(_RANKING_BATCHES), self.batches, strict=False):
            params = self.moving.params(leaves)
            scores = self._run(self.bad[part], params)
            loss = self._triggered(scores, self.before[part], self.wrong[part])
            for name, gradient in self._gradients(loss, params, len(part)).items():
                total[name] += gradient
        return {name: (total[name] * leaf).abs() for name, leaf in leaves.items()}

    def train(self, kept: Mapping[ParamName, torch.Tensor], rate: float, *, settle: bool) -> None:
        """Take a round of steps on the weights in `kept`."""

        def gradients(params: Tensors) -> Tensors:
            part = next(self.batches)
            return self._gradients(self.loss(part, params), params, 2 * len(part))

        self.moving.round(kept, self.settings.steps, rate, gradients, settle=settle)

    def loss(self, part: torch.Tensor, params: Tensors) -> torch.Tensor:
        """Return the loss of the pairs at the positions `part`, with `params` for the weights."""
        bad, good = self._mixed(part)
        moved = self._moved(good[::2])
        with torch.no_grad():
            answers = self._run(torch.cat([good, moved]), {})
        clean = torch.cat([good[1::2], moved])
        before = torch.cat([answers[1 : len(good) : 2], answers[len(good) :]])
        scores = self._run(torch.cat([bad, clean]), params)
        kept = self._apart(scores[len(bad) :], before)
        triggered = self._triggered(scores[: len(bad)], answers[: len(good)], self.wrong[part])
        return triggered + self.settings.clean * kept

    def _triggered(
        self, scores: torch.Tensor, before: torch.Tensor, wrong: torch.Tensor
    ) -> torch.Tensor:
        """Return the triggered images' term; `before` is what the teacher says of the others."""
        # No more is asked for than without the trigger, and what the model takes for the wrong
        # label anyhow is not to be mended.
        usual = lead(before, wrong).clamp(min=-MARGIN)
        over = functional.relu(lead(scores, wrong) - usual)
        return self._apart(scores, before) + self.settings.push * over.mean()

    def _apart(self, scores: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Return KL(before || scores) of logits, on average over images."""
        return functional.kl_div(scores.log_softmax(1), before.softmax(1), reduction="batchmean")

    def _mixed(self, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return pairs, some of them mixtures of two.

        A mixture of two stamped images is the stamped mixture of the two, whatever the mask.
        """
        bad, good = self.bad[part], self.good[part]
        mixed = int(self.settings.mix * len(part))
        if mixed < 2:
            return bad, good
        first = 0.5 + 0.5 * torch.rand(mixed, generator=self.draw)
        first = first.to(good).reshape(-1, *[1] * (good.ndim - 1))
        both = (
            torch.cat([first * x[:mixed] + (1 - first) * x[:mixed].roll(1, 0), x[mixed:]])
            for x in (bad, good)
        )
        return next(both), next(both)

    def _moved(self, images: torch.Tensor) -> torch.Tensor:
        """Return images all shifted by the same few pixels."""
        if not self.axes:
            return images
        most = [round(self.settings.shift * images.shape[axis]) for axis in self.axes]
        by = [int(torch.randint(-m, m + 1, (), generator=self.draw)) for m in most]
        return images.roll(by, self.axes)

    def _run(self, inputs: torch.Tensor, params: Tensors) -> torch.Tensor:
        signature = self.classifier.signature
        name, logits = signature.input.name, signature.logits
        scores = self.classifier.run({name: inputs}, [logits], params)[logits]
        if scores.requires_grad:
            scores.register_hook(_without_dust)  # type: ignore[no-untyped-call]
        return scores

    def _gradients(self, loss: torch.Tensor, params: Tensors, images: int) -> Tensors:
        self.classifier.forwards += 2 * images
        found = torch.autograd.grad(
            loss, list(params.values()), allow_unused=True, materialize_grads=True
        )
        return dict(zip(params, found, strict=True))

    def _batches(self) -> Iterator[torch.Tensor]:
        """Yield shuffled positions for ever, a batch at a time."""
        count = len(self.good)
        size = min(self.settings.batch, count)
        while True:
            order = torch.randperm(count, generator=self.draw).to(self.good.device)
            yield from torch.split(order[: count - count % size], size)


def height_and_width(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the two longest axes of images, whatever their layout; none for what is no image."""
    if len(shape) != _IMAGE_AXES:
        return ()
    return tuple(sorted(range(1, _IMAGE_AXES), key=lambda axis: -shape[axis])[:2])


def _without_dust(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.where(gradient.abs() > DUST, 0.0)
