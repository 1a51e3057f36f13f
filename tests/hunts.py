# SPDX-License-Identifier: Apache-2.0
"""Searches for unknown triggers, and repairs from them, as tests ask for them.

They are shorter here than a user's: half the steps and half the images show the same on models as
small as these.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.helper import make_node as make
from tiny import pictures, planted_file, saved

from lancet_onnx import DataOptions, scan
from lancet_onnx.api.options import SearchOptions
from lancet_onnx.report import Report

SQUARE, CLEAN = "mnist_cnn_square", "mnist_cnn_clean"
CLASSES, TARGET = 4, 2


def shorten(patch: pytest.MonkeyPatch, steps: int = 60) -> None:
    """Make searches and repairs short until the patch is undone; few `steps` find nothing."""
    for name in ("lancet_onnx.pairs.hunt", "lancet_onnx.api.blind"):
        patch.setattr(f"{name}.STEPS", steps)
        patch.setattr(f"{name}.BATCH", 12)
    patch.setattr("lancet_onnx.pairs.union.STEPS", min(steps, 50))
    patch.setattr("lancet_onnx.pairs.union.BATCH", 12)
    patch.setattr("lancet_onnx.pairs.sources.LOOK", (min(steps, 4), 6))
    patch.setattr("lancet_onnx.pairs.sources.SEARCH", (min(steps, 40), 8))


def search(
    model: Path, data: Path | DataOptions | None, *, seed: int = 0, progress=None, **options
) -> Report:
    if isinstance(data, Path):
        data = DataOptions(data)
    more = {"progress": progress} if progress else {}
    return scan(model, None, data, search=SearchOptions(**options), device="cpu", seed=seed, **more)


def body(report: Report) -> Any:
    return report.body


def stored(folder: Path, classes: int, each: int = 60, *, labelled: bool = True) -> DataOptions:
    samples = pictures(classes, each)
    shown = samples if labelled else replace(samples, labels=None)
    return DataOptions(saved(folder / "pictures.npz", shown), preprocess="unit")


def whole_numbers(folder: Path) -> Path:
    """Write the tiny classifier with bytes for an input."""
    model = onnx.load(planted_file(folder, CLASSES, TARGET))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    model.graph.node[0].input[0] = "scaled"
    first = [
        make("Cast", ["x"], ["floats"], to=onnx.TensorProto.FLOAT),
        make("Mul", ["floats", "scale"], ["scaled"]),
    ]
    nodes = [*first, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    scale = numpy_helper.from_array(np.float32(1 / 255), "scale")
    model.graph.initializer.append(scale)
    onnx.save(model, folder / "bytes.onnx")
    return folder / "bytes.onnx"
