# SPDX-License-Identifier: Apache-2.0
"""A second opinion on each class: how small a mask is that asks for nothing but the label.

`pairs.reconstruct` weighs what a trigger does inside the model. This search does not: images are as
they are, the price of the mask is fixed, and only the signs of gradients count, so that each pixel
of the mask moves at the same speed. It is far cheaper, errs on other models than the first, and two
that agree tell more than either:

    loss = cross entropy to the class + PRICE * sum of the mask        (AI-Lancet, Restore_trigger)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.reconstruct import Found
from lancet_onnx.runtime.executor import Params

PLAIN_STEPS, PLAIN_BATCH = 50, 10
_PRICE = 0.01
_SHARP = 8.0
_MASK_STEP, _PATTERN_STEP = 0.03, 0.003


def plain_masks(
    canvas: Canvas,
    classes: Sequence[int],
    *,
    seed: int = 0,
    steps: int = PLAIN_STEPS,
    params: Params | None = None,
    stop: Callable[[float], bool] = lambda share: False,
) -> Found | None:
    """Search all `classes` at once, on the same images; a cost is the sum of a class's mask.

    `params` and `stop` as in `reconstruct`.
    """
    device = canvas.pixels.device
    draw = torch.Generator().manual_seed(seed)
    targets = torch.tensor(list(classes), device=device)
    count, (channels, height, width) = len(targets), canvas.pixels.shape[1:]
    numbers = torch.zeros((count, 1, height, width), device=device)
    pattern = torch.full((count, channels, height, width), 0.5, device=device)
    logits = canvas.classifier.signature.logits
    for step in range(steps):
        rows = torch.randperm(len(canvas.pixels), generator=draw)[:PLAIN_BATCH].to(device)
        images = canvas.pixels[rows]
        mask = _opacity(numbers.requires_grad_())[:, None]
        stamped = (1 - mask) * images + mask * pattern.requires_grad_()[:, None]
        scores = canvas.run(stamped.flatten(0, 1), [logits], params)[0]
        wanted = targets.repeat_interleave(len(images))
        loss = functional.cross_entropy(scores, wanted, reduction="sum") / len(images)
        gradients = torch.autograd.grad(loss + _PRICE * mask.sum(), [numbers, pattern])
        canvas.classifier.forwards += 2 * len(wanted)
        numbers = (numbers.detach() - _MASK_STEP * gradients[0].sign()).clamp(0, 1)
        pattern = (pattern.detach() - _PATTERN_STEP * gradients[1].sign()).clamp(0, 1)
        if stop((step + 1) / steps) and step + 1 < steps:
            return None
    shown = _opacity(numbers)
    coverage = shown.mean((1, 2, 3))
    return Found(
        targets, shown.sum((1, 2, 3)), coverage, torch.zeros_like(coverage), shown, pattern
    )


def anomalies(found: Found) -> torch.Tensor:
    """Return by how many deviations the log of each mask's size is under the median of all (T,).

    Sizes are positive and spread by ratios. The deviation is the median absolute one, scaled as for
    a normal distribution, but no less than a third of the standard one: of few classes most are
    often alike.
    """
    under = found.cost.clamp(min=1e-12).log()
    under = under.quantile(0.5) - under
    spread = 1.4826 * under.abs().quantile(0.5)
    spread = torch.maximum(spread, under.std(correction=0) / 3)
    return under / spread.clamp(min=1e-6)


def _opacity(numbers: torch.Tensor) -> torch.Tensor:
    return torch.tanh(_SHARP * (numbers - 0.5)) / 2 + 0.5
