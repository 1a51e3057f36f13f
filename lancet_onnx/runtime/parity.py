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
    """Run `inputs` through both and compare the file's own first output."""
    graph = classifier.graph
    output = graph.outputs[0].name
    feeds = {classifier.signature.input.name: classifier.tensor(inputs)}
    ours = classifier.run(feeds, [output])[output].detach().cpu().numpy()
    theirs = model.scores(inputs)
    scale = max(float(np.abs(theirs).max()), 1e-30)
    device = model.placement.device
    return Parity(
        len(inputs),
        float(np.abs(ours - theirs).max()) / scale,
        float((ours.argmax(1) == theirs.argmax(1)).mean()),
        GPU_TOLERANCE if device == "cuda" else CPU_TOLERANCE,
    )
