# SPDX-License-Identifier: Apache-2.0
"""Progressive ablation: the fewest top-ranked weights whose removal gives x its label back.

All pairs are searched at once, each with its own ablated weights, and only the part of the network
from the layer on is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import Layer
from lancet_onnx.types import ValueName

LARGEST_SHARE = 0.2
"""More of a layer than this is no location."""

PRECISION = 0.04
"""The search stops when it knows the number of weights to this relative precision."""


Restored = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """Per pair: how many top-ranked weights had to go (0: not located), and which they are."""

    counts: torch.Tensor
    located: torch.Tensor


def ablate(
    classifier: Classifier,
    layer: Layer,
    cut: Mapping[ValueName, torch.Tensor],
    iv: torch.Tensor,
    right: torch.Tensor,
) -> Ablation:
    """Gallop k = 1, 2, 4 ... up to a fifth of the layer, then bisect, for all pairs together.

    Args:
        classifier: the model.
        layer: where weights are zeroed.
        cut: values of x from which the layer and all that follows can be run, one row a pair.
        iv: (K, *shape of W) importance values.
        right: (K,) the labels that x should get.

    Returns:
        the counts and (K, number of weights) booleans of the located weights.
    """
    ranks, restored = restorer(classifier, layer, cut, iv, right)
    limit = max(1, int(LARGEST_SHARE * layer.size))
    count = len(right)
    low = torch.zeros(count, dtype=torch.long, device=right.device)
    high = torch.ones_like(low)
    open_rows = torch.arange(count, device=right.device)
    success = torch.zeros(count, dtype=torch.bool, device=right.device)
    while len(open_rows):
        done = restored(high, open_rows)
        success[open_rows[done]] = True
        failed = open_rows[~done]
        low[failed] = high[failed]
        open_rows = failed[high[failed] < limit]
        high[open_rows] = (high[open_rows] * 2).clamp(max=limit)
    while True:
        wide = success & (high - low > torch.clamp((PRECISION * high).long(), min=1))
        rows = wide.nonzero()[:, 0]
        if not len(rows):
            break
        middle = (low + high) // 2
        done = restored(middle, rows)
        high[rows[done]] = middle[rows[done]]
        low[rows[~done]] = middle[rows[~done]]
    counts = torch.where(success, high, torch.zeros_like(high))
    return Ablation(counts, ranks < counts[:, None])


def restorer(
    classifier: Classifier,
    layer: Layer,
    cut: Mapping[ValueName, torch.Tensor],
    iv: torch.Tensor,
    right: torch.Tensor,
) -> tuple[torch.Tensor, Restored]:
    """Return each weight's rank (K, weights), and a test of ablations.

    The test takes how many top-ranked weights of each pair are zeroed, and the rows of the pairs
    to try; it says which of these x get their right label then.
    """
    weight = classifier.module.leaves[layer.param]
    ranks = _ranks(iv.flatten(1))
    logits = classifier.signature.logits

    def restored(k: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        kept = (ranks[rows] >= k[rows, None]).reshape(-1, *weight.shape)
        part = {name: value[rows] for name, value in cut.items()}
        muted = {layer.param: layer.scaled(weight, kept)}
        scores = classifier.run_each(part, [logits], muted)[logits]
        return scores.argmax(1) == right[rows]

    return ranks, restored


def _ranks(scores: torch.Tensor) -> torch.Tensor:
    """Return the rank of each score in its row, 0 for the highest."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(scores.shape[1], device=scores.device).expand_as(order))
    return ranks
