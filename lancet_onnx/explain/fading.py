# SPDX-License-Identifier: Apache-2.0
"""The paper's check: wipe out the masked region step by step and watch both labels.

If the error comes from there, the wrong label fades with the region and the true one comes up.
"""

from __future__ import annotations

import numpy as np
import torch

from lancet_onnx.pairs.fills import blurred, filled
from lancet_onnx.samples.core import Floats

AMOUNTS = tuple(step / 10 for step in range(11))
"""Shares of the region that are wiped out, from none to all."""


def faded(pixels: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return images with their masked region blurred to each of `AMOUNTS`.

    From pixels (N, C, H, W) and masks (N, 1, H, W), both in [0, 1], to (N, amounts, C, H, W); the
    first of each image is the image, the last its companion.

    Source: the paper's check of its companions (doi 10.1145/3460120.3484818), on our masks.
    """
    return torch.stack([filled(pixels, amount * masks, blurred) for amount in AMOUNTS], 1)


def probabilities(scores: Floats) -> Floats:
    """Return (N, classes) probabilities of a model's scores: its own, or the softmax of logits."""
    if (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3):
        return scores
    raised = np.exp(scores - scores.max(1, keepdims=True))
    shares: Floats = (raised / raised.sum(1, keepdims=True)).astype(np.float32)
    return shares
