# SPDX-License-Identifier: Apache-2.0
"""Losses, which models that were exported for training carry behind their logits."""

from __future__ import annotations

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import meet
from lancet_onnx.ops.registry import op


def _loss(
    scores: torch.Tensor,
    classes: torch.Tensor,
    weights: torch.Tensor | None,
    ignored: int | None,
    reduction: str,
) -> torch.Tensor:
    """Return the loss of log probabilities (N, C, ...) for classes (N, ...)."""
    if reduction not in ("none", "sum", "mean"):
        raise UnsupportedError(f"a loss with reduction={reduction!r} is not known")
    logs, wanted = meet(scores, classes.to(torch.int64))
    counts = torch.ones_like(wanted, dtype=torch.bool)
    if ignored is not None:
        counts = wanted != ignored
        wanted = torch.where(counts, wanted, torch.zeros_like(wanted))
    each = -torch.gather(logs, 1, wanted.unsqueeze(1)).squeeze(1)
    shares = counts.to(logs.dtype)
    if weights is not None:
        chosen = torch.index_select(meet(logs, weights)[1], 0, wanted.reshape(-1))
        shares = chosen.reshape(wanted.shape) * shares
    # An ignored place may hold -inf, which no share of zero would silence.
    each = torch.where(counts, each, torch.zeros_like(each)) * shares
    if reduction == "none":
        return each
    total = torch.sum(each)
    return total if reduction == "sum" else total / torch.sum(shares)


@op("NegativeLogLikelihoodLoss", 12, 13, 22)
def negative_log_likelihood_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """NegativeLogLikelihoodLoss (12, 13, 22)."""
    return _loss(input, target, weight, ignore_index, reduction)


@op("SoftmaxCrossEntropyLoss", 12, 13)
def softmax_cross_entropy_loss(
    scores: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> tuple[torch.Tensor, torch.Tensor]:
    """SoftmaxCrossEntropyLoss (12, 13), with the log probabilities."""
    logs = torch.log_softmax(scores, 1)
    return _loss(logs, labels, weights, ignore_index, reduction), logs
