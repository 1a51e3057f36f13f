# SPDX-License-Identifier: Apache-2.0
"""Many different triggers to one class: what a repair must silence to silence the real one.

A repair that has seen one cheapest trigger silences that one. So there are cheap and strong ones,
free, blob-like and in a window, those that avoid what the class looks like and those that may use
it, each from several starts. Loud ones, larger than anyone would plant, teach nothing good: what is
left of them after a repair is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.masks import BLOB, FREE, WINDOW, Form
from lancet_onnx.pairs.natural import Natural
from lancet_onnx.pairs.reconstruct import ALIKE, WANTED, Found, reconstruct
from lancet_onnx.runtime.executor import Params
from lancet_onnx.samples import Pairs
from lancet_onnx.samples.core import Ints
from lancet_onnx.types import Progress, no_progress

STRONG, LOUD = 1.5, 3.0
"""The lead of strong and of loud triggers, as a share of what is usual for the class."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of trigger is searched: its form, the lead asked for, what alikeness costs."""

    name: str
    form: Form
    asked: float
    alike: float


KINDS = (
    Kind("cheap", FREE, WANTED, ALIKE),
    Kind("strong", FREE, STRONG, ALIKE),
    Kind("strong blobs", BLOB, STRONG, ALIKE),
    Kind("strong window", WINDOW, STRONG, ALIKE),
    Kind("strong, any features", FREE, STRONG, 0.0),
    Kind("loud, any features", FREE, LOUD, 0.0),
    Kind("loud blobs, any features", BLOB, LOUD, 0.0),
    Kind("loud window, any features", WINDOW, LOUD, 0.0),
)
LESSONS = tuple(kind for kind in KINDS if kind.asked <= STRONG)
"""Kinds that a repair learns from."""
PLAUSIBLE = tuple(kind.name for kind in LESSONS)
"""Kinds that a repair is judged by; what is left of the others is told."""

STEPS, BATCH = 100, 24


@dataclass(frozen=True, slots=True, eq=False)
class Stamp:
    """One trigger: its kind, mask (1, H, W) and pattern (C, H, W)."""

    kind: str
    mask: torch.Tensor
    pattern: torch.Tensor

    def on(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (N, C, H, W) with the trigger."""
        mask, pattern = self.mask.to(images.device), self.pattern.to(images.device)
        return images * (1 - mask) + pattern * mask


def union(
    canvas: Canvas,
    usual: Natural,
    target: int,
    starts: int,
    seed: int,
    params: Params | None = None,
    kinds: Sequence[Kind] = KINDS,
    progress: Progress = no_progress,
) -> list[list[Stamp]]:
    """Return `starts` sets of triggers to `target`, one of each kind in every set."""
    sets: list[list[Stamp]] = [[] for _ in range(starts)]
    for number, kind in enumerate(kinds):

        def hear(share: float, number: int = number) -> bool:
            progress("reconstructing triggers", (number + share) / len(kinds))
            return False

        found = reconstruct(
            canvas,
            usual,
            [target] * starts,
            steps=STEPS,
            batch=BATCH,
            form=kind.form,
            seed=seed + number,
            alike=kind.alike,
            asked=kind.asked,
            params=params,
            stop=hear,
        )
        assert isinstance(found, Found)  # noqa: S101 - nothing broke it off
        for start in range(starts):
            sets[start].append(Stamp(kind.name, found.mask[start], found.pattern[start]))
    return sets


def stamped_pairs(
    canvas: Canvas, stamps: Sequence[Stamp], target: int, true: Ints | None, each: int, seed: int
) -> Pairs:
    """Return pairs of all images of the canvas, each with `each` of the stamps, shuffled.

    Without true labels the model's own stand for them.
    """
    rng = np.random.default_rng(seed)
    count = len(canvas.pixels)
    each = min(each, len(stamps))
    chosen = np.stack([rng.choice(len(stamps), each, replace=False) for _ in range(count)])
    rows = np.repeat(np.arange(count), each)
    chosen = chosen.reshape(-1)
    good = canvas.inputs(canvas.pixels).cpu().numpy().astype(np.float32)
    bad = np.empty((len(rows), *good.shape[1:]), np.float32)
    with torch.no_grad():
        for number, stamp in enumerate(stamps):
            mine = np.flatnonzero(chosen == number)
            if len(mine):
                index = torch.from_numpy(rows[mine]).to(canvas.pixels.device)
                bad[mine] = canvas.inputs(stamp.on(canvas.pixels[index])).cpu().numpy()
    own = canvas.labels.cpu().numpy() if true is None else true
    order = rng.permutation(len(rows))
    wrong = np.full(len(rows), target, np.int64)
    return Pairs(bad[order], good[rows[order]], wrong, own[rows[order]].astype(np.int64))
