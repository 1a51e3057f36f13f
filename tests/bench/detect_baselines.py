# SPDX-License-Identifier: Apache-2.0
"""Detectors that know no trigger, to compare the scan with: they get its images and its seed.

Each takes a `Setting` and returns `Scores`. Where an authors' file is named, settings and rules are
read from it; nothing is copied, and what differs is said.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.stats import gamma  # type: ignore[import-untyped]
from torch.nn import functional

from lancet_onnx.runtime.classifier import CHUNK
from tests.bench.detect_search import Attempt, smallest_mask
from tests.bench.detect_setting import (
    Scores,
    Setting,
    backward,
    below_median,
    below_median_of_logs,
)

Detector = Callable[[Setting], Scores]

STEPS: Mapping[str, int] = {
    "neural-cleanse": 1_000,
    "tabor": 500,
    "sign-gradient": 50,
    "maximum-margin": 300,
}
"""The most optimisation steps a class; a step of TABOR costs about two of Neural Cleanse's."""

ANOMALY, SIGN_ANOMALY = 2.0, 2.5
"""From which anomaly on a model is flagged: Neural Cleanse's, and that of the sign-gradient mask
(method.md section 2: no false alarm on five clean models)."""

_FLAT = 1e-5
"""MM-BD stops where the loss changes by less than this share."""

RESTARTS, MARGIN_RATE = 30, 1e-2
LEVEL = 0.05
"""MM-BD flags a model whose p-value is at most this."""

_LARGEST = 300.0
"""Score of a p-value that is too small for a double."""


def neural_cleanse(setting: Setting) -> Scores:
    """Find the smallest mask that moves all images to a class, one class after the other.

    Wang et al., S&P 2019; gh:bolunwang/backdoor, visualizer.py and gtsrb_visualize_example.py: Adam
    0.1 (0.5, 0.9), batch 32, weight from 1e-3 by factors of 2 and 2**1.5, patience 5, success 99 %,
    at most 1,000 batches. There a trigger is judged after every 31 batches, here after `ROUND`.
    Flagged by the plain norms, as mad_outlier_detection.py does.
    """

    def size(attempt: Attempt) -> tuple[torch.Tensor, torch.Tensor]:
        return attempt.mask.sum(), attempt.mask.new_zeros(())

    steps = setting.capped(STEPS["neural-cleanse"])
    norms = [smallest_mask(setting, label, steps, size) for label in range(setting.classes)]
    return setting.scores(norms, below_median(norms), ANOMALY)


def tabor(setting: Setting) -> Scores:
    """Neural Cleanse with TABOR's four terms, in at most half as many steps.

    Guo et al., arXiv 1908.01763. Weights as in gh:UsmannK/TABOR, tabor/snooper.py (the authors
    released none; gh:ain-soph/trojanzoo has the same): mask 1e-6, pattern outside it 1e-5, their
    roughness 1e-7 and 1e-8, blocking 0, overlaying 1e-2. So small, the first four do nothing on
    pixels in [0, 1]; the paper raises them while the attack succeeds (section 4.3). Here Neural
    Cleanse's rule raises them together, in these ratios but for the pattern, which weighs as much
    as the mask: tenfold hides the small mask that Neural Cleanse finds (tried on two models).
    Blocking weighs as much as overlaying. Classes are compared by the mask's plain norm, as
    trojanzoo does.
    """

    def terms(attempt: Attempt) -> tuple[torch.Tensor, torch.Tensor]:
        mask, outside = attempt.mask, (1 - attempt.mask) * attempt.pattern
        scaled = (
            _elastic(mask) + _elastic(outside) + 0.1 * _roughness(mask) + 0.01 * _roughness(outside)
        )
        label = torch.tensor([attempt.label], device=mask.device)
        overlaid = functional.cross_entropy(setting.logits((mask * attempt.pattern)[None]), label)
        if setting.labels is None:
            return scaled, 1e-2 * overlaid
        blocked = setting.logits((1 - mask) * attempt.images)
        kept = functional.cross_entropy(blocked, setting.labels[attempt.rows])
        return scaled, 1e-2 * (overlaid + kept)

    steps = setting.capped(STEPS["tabor"])
    norms = [smallest_mask(setting, label, steps, terms) for label in range(setting.classes)]
    return setting.scores(norms, below_median(norms), ANOMALY)


def sign_gradient(
    setting: Setting, mask_step: float = 0.03, pattern_step: float = 0.003, batch: int = 10
) -> Scores:
    """Reconstruct triggers by the signs of gradients, the mask's weight fixed; classes at once.

    AI-Lancet's Restore_trigger.py (gh:mooncaptain/AI-Lancet): mask tanh(8 (m - 0.5)) / 2 + 0.5 from
    m = 0, pattern from grey, loss CE + |mask| / 100, batches of 10. With the smaller mask step, 50
    batches and the MAD of log norms of method.md section 2.
    """
    _, height, width, channels = setting.pixels.shape
    classes, rng = setting.classes, setting.generator()
    raw = setting.pixels.new_zeros((classes, height, width, 1))
    patterns = setting.pixels.new_full((classes, height, width, channels), 0.5)
    for _ in range(setting.capped(STEPS["sign-gradient"])):
        images = setting.pixels[setting.draw(batch, rng)]
        raw.requires_grad_()
        patterns.requires_grad_()
        for part in torch.split(torch.arange(classes), max(1, CHUNK // len(images))):
            masks = (torch.tanh(8 * (raw[part] - 0.5)) / 2 + 0.5)[:, None]
            stamped = (1 - masks) * images + masks * patterns[part, None]
            logits = setting.logits(stamped.flatten(0, 1))
            wanted = part.repeat_interleave(len(images)).to(logits.device)
            loss = functional.cross_entropy(logits, wanted, reduction="sum") / len(images)
            backward(loss + masks.sum() / 100)
        assert raw.grad is not None
        assert patterns.grad is not None
        raw = (raw.detach() - mask_step * raw.grad.sign()).clamp(0, 1)
        patterns = (patterns.detach() - pattern_step * patterns.grad.sign()).clamp(0, 1)
    norms = (torch.tanh(8 * (raw - 0.5)) / 2 + 0.5).flatten(1).sum(1).tolist()
    return setting.scores(norms, below_median_of_logs(norms), SIGN_ANOMALY)


def maximum_margin(setting: Setting, restarts: int = RESTARTS) -> Scores:
    """MM-BD: how far random images can lift a class's logit over the others; needs no images.

    Wang et al., S&P 2024; gh:wanghangpsu/MM-BD, univ_bd.py: 30 images a class, at most 300 steps
    of 1e-2. (A new optimiser a step there: its momentum never acts, so there is none here.)
    """
    margins = [_margin(setting, label, restarts) for label in range(setting.classes)]
    return setting.scores(margins, null_scores(margins), -math.log10(LEVEL))


def null_scores(margins: Sequence[float]) -> tuple[float, ...]:
    """Return -log10 of each class's p-value under a gamma fitted to all but the largest margin.

    The p-value is that of the largest of so many draws, as published; the logarithm ranks what
    1 - p rounds to 1.
    """
    array = np.asarray(margins, np.float64)
    rest = np.delete(array, array.argmax())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit to so few numbers warns whenever it is steep
        try:
            shape, place, scale = gamma.fit(rest)
        except (ValueError, RuntimeError):  # scipy's FitError; an exponential is a gamma of 1
            shape, place, scale = 1.0, rest.min(), max(rest.mean() - rest.min(), 1e-12)
        tails = np.asarray(gamma.sf(array, shape, place, scale), np.float64)
        # 1 - (1 - tail)**n, exact for small tails
        scores = -np.log10(-np.expm1(len(array) * np.log1p(-tails)))
    return tuple(float(s) for s in np.nan_to_num(scores, posinf=_LARGEST))


def _margin(setting: Setting, label: int, restarts: int) -> float:
    shape = (restarts, *setting.pixels.shape[1:])
    images = torch.rand(shape, generator=setting.generator(label)).to(setting.pixels.device)
    margins, last = images.new_zeros(restarts), math.inf
    for _ in range(setting.capped(STEPS["maximum-margin"])):
        images.requires_grad_()
        logits = setting.logits(images.clamp(0, 1))
        others = logits.clone()
        others[:, label] = -math.inf
        margins = logits[:, label] - others.amax(1)
        loss = -margins.sum()
        (gradient,) = torch.autograd.grad(loss, images)
        margins = margins.detach()
        images = images.detach() - MARGIN_RATE * gradient
        if abs(last - loss.item()) < _FLAT * abs(last):
            break
        last = loss.item()
    return float(margins.max())


def _elastic(values: torch.Tensor) -> torch.Tensor:
    return values.abs().sum() + values.square().sum()


def _roughness(values: torch.Tensor) -> torch.Tensor:
    return values.diff(dim=0).square().sum() + values.diff(dim=1).square().sum()


DETECTORS: Mapping[str, Detector] = {
    "neural-cleanse": neural_cleanse,
    "tabor": tabor,
    "sign-gradient": sign_gradient,
    "maximum-margin": maximum_margin,
}
