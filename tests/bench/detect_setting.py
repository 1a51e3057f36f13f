# SPDX-License-Identifier: Apache-2.0
"""What a detector without a known trigger is given, what it returns, and which class stands out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from lancet_onnx.errors import DataError
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.signature import torch_dtype
from lancet_onnx.samples import Preprocess, Samples

_NORMAL = 1.4826
"""Median absolute deviation -> standard deviation, for a normal distribution."""

_NARROW = 1e-6
"""Share of the median that a deviation of zero is replaced by, so that scores stay finite."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a method found, class by class.

    Attributes:
        values: a norm or a margin for each class, as the method measures it.
        anomalies: how far each class stands out on the side that a backdoor does; higher is worse.
        threshold: from which anomaly on the method flags a model.
        forwards: image-forward equivalents spent; a backward pass counts as two.
        seconds: time taken.
    """

    values: tuple[float, ...]
    anomalies: tuple[float, ...]
    threshold: float
    forwards: int
    seconds: float

    @property
    def suspect(self) -> int:
        """The class that stands out most."""
        return int(np.argmax(self.anomalies))

    @property
    def score(self) -> float:
        """How far it does."""
        return self.anomalies[self.suspect]

    @property
    def flagged(self) -> bool:
        """Whether that is far enough for the method."""
        return self.score > self.threshold


def below_median(values: Sequence[float]) -> tuple[float, ...]:
    """Return by how many deviations (MAD, scaled as for a normal) each value is under the median.

    This is Neural Cleanse's anomaly index, signed: a value over the median never counts.
    """
    array = np.asarray(values, np.float64)
    under = np.median(array) - array
    deviation = _NORMAL * float(np.median(np.abs(under)))
    smallest = max(_NARROW * abs(float(np.median(array))), np.finfo(np.float64).tiny ** 0.5)
    return tuple(float(v) for v in under / max(deviation, smallest))


def below_median_of_logs(values: Sequence[float]) -> tuple[float, ...]:
    """Return `below_median` of the logarithms; norms are positive and their spread is a ratio."""
    return below_median([math.log(max(v, 1e-12)) for v in values])


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What a method is given: a model, the tool's half of the images, and how they go in.

    Attributes:
        classifier: the model; it counts the image-forwards.
        pixels: (N, H, W, C) images in [0, 1].
        labels: their true classes, or None when unknown.
        canvas: the way from pixels into the model.
        seed: of all random choices.
        steps: the most optimisation steps a class; None leaves each method its own number.
        start: what the classifier's counter stood at.
        started: the clock likewise.
    """

    classifier: Classifier
    pixels: torch.Tensor
    labels: torch.Tensor | None
    canvas: Canvas
    seed: int
    steps: int | None
    start: float
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        samples: Samples,
        preprocess: Preprocess,
        seed: int = 0,
        steps: int | None = None,
    ) -> Setting:
        """Take images as `prepare` gives them.

        Raises:
            DataError: inputs that are no pictures, or that no gradient can reach.
        """
        if samples.raw or not torch_dtype(classifier.signature.input).is_floating_point:
            raise DataError(f"{samples.source}: triggers are sought on pictures, as float inputs")
        place = classifier.module.device
        canvas = Canvas.of(classifier, samples, preprocess)
        return cls(
            classifier,
            _tensor(samples.pixels).to(place),
            None if samples.labels is None else _tensor(samples.labels).to(place),
            canvas,
            seed,
            steps,
            classifier.forwards,
        )

    @property
    def classes(self) -> int:
        """How many classes the model has."""
        return self.classifier.signature.classes

    def generator(self, label: int = 0) -> torch.Generator:
        """Return a generator of a class's own, the same whatever was done before."""
        return torch.Generator().manual_seed(self.seed * 100_003 + label)

    def draw(self, count: int, rng: torch.Generator) -> torch.Tensor:
        """Return the row numbers of a batch of different images."""
        rows = torch.randperm(len(self.pixels), generator=rng)[:count]
        return rows.to(self.pixels.device)

    def capped(self, steps: int) -> int:
        """Return how many steps to take where the method's own number is `steps`."""
        return steps if self.steps is None else min(steps, self.steps)

    def inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return model inputs for pixels (N, H, W, C); gradients reach the pixels."""
        inputs = self.canvas.inputs(pixels.permute(0, 3, 1, 2))
        return inputs.to(torch_dtype(self.classifier.signature.input))

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits of one batch, whose backward pass is counted at once."""
        name, logits = self.classifier.signature.input.name, self.classifier.signature.logits
        self.classifier.forwards += 2 * len(pixels)
        return self.classifier.run({name: self.inputs(pixels)}, [logits])[logits]

    def scores(
        self, values: Sequence[float], anomalies: Sequence[float], threshold: float
    ) -> Scores:
        """Return what was found, with what it has cost since the setting was made."""
        forwards = round(self.classifier.forwards - self.start)
        seconds = time.perf_counter() - self.started
        return Scores(tuple(values), tuple(anomalies), threshold, forwards, seconds)


def backward(loss: torch.Tensor) -> None:
    """Run a loss backward."""
    loss.backward()  # type: ignore[no-untyped-call]


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
