# SPDX-License-Identifier: Apache-2.0
"""Ways to train that the tool does not take, for the ablation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from lancet_onnx.repair.judging import Judged
from lancet_onnx.repair.moving import Tensors
from lancet_onnx.repair.training import Trainer
from lancet_onnx.types import ParamName

TEMPERATURE = 3.0


class OneRate(Trainer):
    """Steps of one size for all layers, that of the root mean square over all weights."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        moving = self.moving
        leaves = torch.cat([leaf.reshape(-1) for leaf in moving.leaves.values()])
        moving.unit = dict.fromkeys(moving.unit, leaves.square().mean().sqrt())


class HardAnswers(Trainer):
    """The teacher gives labels, not probabilities."""

    def _apart(self, scores: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(scores, before.argmax(1))


class SoftAnswers(Trainer):
    """The teacher's and the pupil's logits are divided by a temperature."""

    def _apart(self, scores: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return TEMPERATURE**2 * super()._apart(scores / TEMPERATURE, before / TEMPERATURE)


class SquareLoss(Trainer):
    """Logits are compared as they are, but for their mean."""

    def _apart(self, scores: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        gaps = scores - before
        return (gaps - gaps.mean(1, keepdim=True)).square().mean()


class Averaged(Trainer):
    """A round's result is the mean of its second half."""

    def train(self, kept: Mapping[ParamName, torch.Tensor], rate: float, *, settle: bool) -> None:
        """Take a round of steps, then the mean of where they led."""
        self.total, self.seen = self.moving.zeros(), 0
        super().train(kept, rate, settle=settle)
        if settle and self.seen:
            self.moving.deltas = {name: total / self.seen for name, total in self.total.items()}

    def loss(self, part: torch.Tensor, params: Tensors) -> torch.Tensor:
        """Return the loss, and remember the weights if the step is of the second half."""
        if 2 * (self.moving.taken % self.settings.steps) >= self.settings.steps:
            self.seen += 1
            for name, delta in self.moving.deltas.items():
                self.total[name] += delta
        return super().loss(part, params)


def by_loss_alone(judged: Judged) -> float:
    """Return a cost that leaves out what the unrepaired model thinks of changed labels."""
    return max(judged.excess, 0.0) + max(judged.loss, 0.0)
