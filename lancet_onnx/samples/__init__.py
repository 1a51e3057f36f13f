# SPDX-License-Identifier: Apache-2.0
"""Images and labels, how a model wants them prepared, and where they are read from."""

from lancet_onnx.samples.core import Material, Pairs, Samples, Sizes, Split, apart
from lancet_onnx.samples.preprocess import PRESETS, Preprocess
from lancet_onnx.samples.reading import read_samples

__all__ = [
    "PRESETS",
    "Material",
    "Pairs",
    "Preprocess",
    "Samples",
    "Sizes",
    "Split",
    "apart",
    "read_samples",
]
