# SPDX-License-Identifier: Apache-2.0
"""Edits that methods offer, measured side by side on the same pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import Pairs
from lancet_onnx.types import Method, NodeName, ParamName

LEANING = 0.2
"""An image leans to the erroneous label when its probability is over this."""


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """One edit that a method makes.

    Attributes:
        method: what was done to the weights.
        how: the ranking or the width that it came from, for reports.
        nodes: the nodes whose weights it changes, in execution order.
        params: leaves after the edit.
        weights: how many weights it changes, moved biases apart.
        share: these over all numbers of the model's leaves, 0 to 1.
    """

    method: Method
    how: str
    nodes: tuple[NodeName, ...]
    params: Mapping[ParamName, torch.Tensor]
    weights: int
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """An offer with its figures.

    Attributes:
        offer: the edit.
        excess: how much more often triggered images lean to the erroneous label than their
            companions do in the unrepaired model, -1 to 1.
        excess_error: its standard error.
        loss: what clean images lose: mean probability of their true label; where that is unknown,
            the share whose label changes.
        loss_error: its standard error.
        regret: what clean images lose by the unrepaired model's own probabilities: that of the
            label it gave less that of the label the edited model gives, on average. Few images
            tell a loss of true labels only roughly; this varies much less between edits.
        agreement: share of clean images that keep the label they had.
        recovery: share of triggered images that get their companions' label.
    """

    offer: Offer
    excess: float
    excess_error: float
    loss: float
    loss_error: float
    regret: float
    agreement: float
    recovery: float

    @property
    def cost(self) -> float:
        """What is left of the error and what is lost, as one number; of two losses the worse."""
        return max(self.excess, 0.0) + max(self.loss, self.regret)


class Judge:
    """Measures offers on the same pairs; the unrepaired model runs once."""

    def __init__(self, classifier: Classifier, pairs: Pairs, *, labelled: bool) -> None:
        """Run the unrepaired model on the companions; `labelled`: `right` are the true labels."""
        self.classifier, self.labelled = classifier, labelled
        self.bad, self.good = classifier.tensor(pairs.bad), classifier.tensor(pairs.good)
        device = classifier.module.device
        self.right = torch.from_numpy(pairs.right).to(device)
        self.wrong = torch.from_numpy(pairs.wrong).to(device)
        self.before = classifier.logits(self.good).softmax(1)

    def judge(self, offer: Offer) -> Judged:
        """Return the offer with its figures."""
        bad = self.classifier.logits(self.bad, offer.params).softmax(1)
        good = self.classifier.logits(self.good, offer.params).softmax(1)
        own = self.before.argmax(1)
        others = self.right != self.wrong
        leans, leant = (_of(p, self.wrong) > LEANING for p in (bad, self.before))
        more = (leans.float() - leant.float())[others]
        lost = (
            _of(self.before, self.right) - _of(good, self.right)
            if self.labelled
            else (good.argmax(1) != own).float()
        )
        restored = (bad.argmax(1) == self.right)[others & (own == self.right)]
        return Judged(
            offer,
            *_mean(more),
            *_mean(lost),
            regret=_mean(_of(self.before, own) - _of(self.before, good.argmax(1)))[0],
            agreement=_share(good.argmax(1) == own),
            recovery=_share(restored),
        )


def _of(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return probabilities.gather(1, labels[:, None])[:, 0]


def _mean(values: torch.Tensor) -> tuple[float, float]:
    """Return the mean and its standard error; 0 and 1 where there is nothing to judge by."""
    if not len(values):
        return 0.0, 1.0
    return float(values.mean()), float(values.std(correction=0)) / len(values) ** 0.5


def _share(hits: torch.Tensor) -> float:
    return float(hits.float().mean()) if len(hits) else 0.0
