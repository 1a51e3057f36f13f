# SPDX-License-Identifier: Apache-2.0
"""Does our graph compute what onnxruntime computes? Checked on the very images that are used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.samples.core import Floats

CPU_TOLERANCE = 1e-4
GPU_TOLERANCE = 1e-3
HALF_TOLERANCE = 3e-2
"""Where onnxruntime rounds to half precision between nodes differs with its optimisations."""

QUANTISED_TOLERANCE = 0.1
"""A value on the edge between two steps falls to either side, and errors of a step add up."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest difference between torch and onnxruntime.

    Attributes:
        images: how many were compared.
        largest: largest absolute difference over the largest absolute score.
        agreement: share of images with the same label.
        tolerance: what is allowed on this device.
    """

    images: int
    largest: float
    agreement: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the two compute the same thing."""
        return self.largest <= self.tolerance


def compare(classifier: Classifier, model: OrtModel, inputs: Floats) -> Parity:
    """Run `inputs` through both and compare what the file itself answers."""
    head = classifier.signature.head
    feeds = {classifier.signature.input.name: classifier.tensor(inputs)}
    scores = classifier.run(feeds, [head.scores])[head.scores].detach().cpu().numpy()
    theirs = model.scores(inputs)
    ours = head.rows(scores)
    if head.form == "labels":
        ours = np.eye(ours.shape[1], dtype=np.float32)[ours.argmax(axis=1)]
    return _parity(ours, theirs, _tolerance(classifier, model.placement.device))


def between(classifier: Classifier, one: OrtModel, other: OrtModel, inputs: Floats) -> Parity:
    """Run `inputs` through the same file in two places, such as CPU and GPU."""
    places = {model.placement.device for model in (one, other)}
    tolerance = _tolerance(classifier, "cuda" if "cuda" in places else "cpu")
    return _parity(one.scores(inputs), other.scores(inputs), tolerance)


def _parity(ours: Floats, theirs: Floats, tolerance: float) -> Parity:
    scale = max(float(np.abs(theirs).max()), 1e-30)
    return Parity(
        len(theirs),
        float(np.abs(ours - theirs).max()) / scale,
        float((ours.argmax(1) == theirs.argmax(1)).mean()),
        tolerance,
    )


def _tolerance(classifier: Classifier, device: str) -> float:
    graph = classifier.graph
    if graph.quantised:
        return QUANTISED_TOLERANCE
    if any(graph.constants[name].dtype.itemsize == 2 for name in graph.leaves):
        return HALF_TOLERANCE
    return GPU_TOLERANCE if device == "cuda" else CPU_TOLERANCE
