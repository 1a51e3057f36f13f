# SPDX-License-Identifier: Apache-2.0
"""The smallest mask that moves all images to a class, by Neural Cleanse's rules.

Wang et al., S&P 2019; settings and rules as in gh:bolunwang/backdoor, visualizer.py and
gtsrb_visualize_example.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import torch
from torch.nn import functional

from tests.bench.detect_setting import Setting, backward

BATCH, ROUND = 32, 4
"""Images of a step, and how many steps are judged together: 31 in the authors' example."""

SUCCESS = 0.99
"""Which share of a round's images a trigger must move."""

INIT_COST, MULTIPLIER, PATIENCE = 1e-3, 2.0, 5
EARLY_STOP = 5 * PATIENCE

_ALMOST_TWO = 2 - 1e-7
"""Tanh divided by this keeps masks and patterns inside (0, 1)."""


@dataclass(slots=True)
class Search:
    """How much a mask's size weighs, adjusted round by round, and when to stop.

    Neural Cleanse's rule: nothing until `PATIENCE` rounds in a row succeed; from then on more after
    as many successes in a row, less after as many failures. It stops once both have happened and
    `EARLY_STOP` rounds brought no smaller mask that succeeds.
    """

    cost: float = 0.0
    best: float = math.inf
    _idle: int = 0
    _set: int = 0
    _row: int = 0
    _up: bool = False
    _down: bool = False

    def judge(self, success: bool, size: float) -> bool:
        """Take one round's outcome; return whether the search is over."""
        better = success and size < self.best
        if better:
            self.best = size
        if self.best < math.inf:
            self._idle = 0 if better else self._idle + 1
        if self._up and self._down and self._idle >= EARLY_STOP:
            return True
        self._set = self._set + 1 if success and self.cost == 0 else 0
        if self._set >= PATIENCE:
            self.cost, self._row, self._up, self._down = INIT_COST, 0, False, False
        # Successes in a row count upwards, failures downwards.
        self._row = max(self._row, 0) + 1 if success else min(self._row, 0) - 1
        if self._row >= PATIENCE:
            self.cost, self._row, self._up = self.cost * MULTIPLIER, 0, True
        elif self._row <= -PATIENCE:
            self.cost, self._row, self._down = self.cost / MULTIPLIER**1.5, 0, True
        return False


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """A trigger as it stands, for one class, and the batch of images it is tried on."""

    setting: Setting
    label: int
    mask: torch.Tensor
    pattern: torch.Tensor
    rows: torch.Tensor

    @property
    def images(self) -> torch.Tensor:
        return self.setting.pixels[self.rows]


Penalty = Callable[[Attempt], tuple[torch.Tensor, torch.Tensor]]
"""What the search's weight is put on, and what has a weight of its own."""


def smallest_mask(setting: Setting, label: int, steps: int, penalty: Penalty) -> float:
    """Return the norm of the smallest mask that succeeded, or of the last one where none did."""
    rng = setting.generator(label)
    _, height, width, channels = setting.pixels.shape
    drawn = [torch.rand((height, width, depth), generator=rng) for depth in (1, channels)]
    raw = [torch.atanh((d - 0.5) * _ALMOST_TWO).to(setting.pixels.device) for d in drawn]
    optimizer = torch.optim.Adam([r.requires_grad_() for r in raw], lr=0.1, betas=(0.5, 0.9))
    search, sizes, hits = Search(), list[float](), list[float]()
    for step in range(1, steps + 1):
        mask, pattern = (torch.tanh(r) / _ALMOST_TWO + 0.5 for r in raw)
        attempt = Attempt(setting, label, mask, pattern, setting.draw(BATCH, rng))
        logits = setting.logits((1 - mask) * attempt.images + mask * pattern)
        wanted = torch.full((len(logits),), label, device=logits.device)
        scaled, fixed = penalty(attempt)
        optimizer.zero_grad()
        backward(functional.cross_entropy(logits, wanted) + search.cost * scaled + fixed)
        optimizer.step()
        sizes.append(float(mask.detach().sum()))
        hits.append(float((logits.argmax(1) == label).float().mean()))
        if step % ROUND == 0:
            success = mean(hits[-ROUND:]) >= SUCCESS
            if search.judge(success, mean(sizes[-ROUND:])):
                break
    return sizes[-1] if math.isinf(search.best) else search.best
