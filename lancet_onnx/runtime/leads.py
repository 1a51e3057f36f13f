# SPDX-License-Identifier: Apache-2.0
"""By how much one class is over the best other one: what attacks raise and repairs lower."""

from __future__ import annotations

import torch


def lead(scores: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return (N,) the score of `label` (N,) less the highest other one of `scores` (N, classes)."""
    own = label[:, None]
    return scores.gather(1, own)[:, 0] - scores.scatter(1, own, -torch.inf).amax(1)
