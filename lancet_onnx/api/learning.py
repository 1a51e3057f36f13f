# SPDX-License-Identifier: Apache-2.0
"""The tool's half of the images, in two: to learn from, and to say how far the weights go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lancet_onnx.api.given import joined
from lancet_onnx.api.subject import Prepared
from lancet_onnx.errors import DataError
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.repair.correct import PARTS, moved
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.executor import Params
from lancet_onnx.samples import Samples, apart
from lancet_onnx.types import ParamName
from lancet_onnx.verify.policy import ROUNDING

ASIDE = 4
"""One in so many images is not learnt from and says how far the weights go."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Images that tell what a change makes better and worse.

    Attributes:
        inputs: (N, ...) in the model's form.
        true: (N,) int64, their labels.
        before: (N,) int64, what the unrepaired model says of them.
    """

    inputs: torch.Tensor
    true: torch.Tensor
    before: torch.Tensor

    @classmethod
    def of(cls, classifier: Classifier, prepared: Prepared, samples: Samples) -> Probe:
        """Run the unrepaired model over labelled samples."""
        inputs = classifier.tensor(prepared.inputs(samples))
        return cls(inputs, labels_on(classifier, samples), classifier.logits(inputs).argmax(1))

    @property
    def wrong(self) -> torch.Tensor:
        """(N,) which of them the unrepaired model gets wrong."""
        return self.before != self.true

    def better_and_worse(
        self, classifier: Classifier, params: Params
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N,) which are right only with `params`, and which only without."""
        now = classifier.logits(self.inputs, params).argmax(1) == self.true
        return self.wrong & now, ~self.wrong & ~now


@dataclass(frozen=True, slots=True, eq=False)
class Learning:
    """Images that are learnt from, and others that say how far the weights go.

    Attributes:
        canvas: the former.
        true: (N,) int64, their labels.
        aside: the latter; none of them is a copy of one that is learnt from.
    """

    canvas: Canvas
    true: torch.Tensor
    aside: Probe

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        prepared: Prepared,
        tool: Samples,
        given: Samples | None,
        seed: int,
    ) -> Learning:
        """Put one in `ASIDE` aside, of the tool's half and of the errors that were given.

        Raises:
            DataError: the model gets none of those aside right.
        """
        aside, learnt = apart(tool, seed, ASIDE)
        if given is not None and len(given):
            more = apart(given, seed, ASIDE)
            aside, learnt = joined(aside, more[0]), joined(learnt, more[1])
        canvas = Canvas.of(classifier, learnt, prepared.preprocess)
        probe = Probe.of(classifier, prepared, aside)
        if bool(probe.wrong.all()):
            raise DataError(
                f"{tool.source}: the model gets none of the {len(aside)} images right that say how "
                "far a repair goes; give more images"
            )
        return cls(canvas, labels_on(classifier, learnt), probe)

    @property
    def wrong(self) -> torch.Tensor:
        """(N,) which images that are learnt from the model gets wrong."""
        return self.canvas.labels != self.true

    def parts(self, deltas: Mapping[ParamName, torch.Tensor]) -> list[dict[str, float]]:
        """Return what the images aside say of each of `PARTS`."""
        classifier, found = self.canvas.classifier, []
        for part in PARTS:
            params = moved(classifier, deltas, part)
            better, worse = (
                int(one.sum()) for one in self.aside.better_and_worse(classifier, params)
            )
            found.append(
                {
                    "part": part,
                    "images": len(self.aside.true),
                    "right": int((~self.aside.wrong).sum()),
                    "better": better,
                    "worse": worse,
                    "net": better - worse,
                }
            )
        return found


def farthest(parts: Sequence[Mapping[str, float]], max_regression: float) -> float:
    """Return the part of the way with the best net gain aside, of those within the budget.

    A standard error is left to it, so that other images are likely to find it kept as well.
    """

    def breaks(one: Mapping[str, float]) -> float:
        n = max(one["right"], 1)
        rate = one["worse"] / n
        return rate + math.sqrt(rate * (1 - rate) / n)

    within = [one for one in parts if breaks(one) <= max_regression + ROUNDING]
    return max(within or parts[:1], key=lambda one: (one["net"], -one["part"]))["part"]


def labels_on(classifier: Classifier, samples: Samples) -> torch.Tensor:
    """Return the labels of labelled samples on the model's device."""
    assert samples.labels is not None  # noqa: S101 - unlabelled images were refused
    return torch.from_numpy(samples.labels).to(classifier.module.device)
