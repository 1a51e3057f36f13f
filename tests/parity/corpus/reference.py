# SPDX-License-Identifier: Apache-2.0
"""What a file really computes: onnxruntime on one thread, ONNX's own evaluator where it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

Feeds = Mapping[str, NDArray[Any]]
Results = dict[str, NDArray[Any]]


class Reference:
    """A file, opened.

    Attributes:
        by: who computes it.
    """

    def __init__(self, file: Path, optimised: bool = True) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.by = "onnxruntime"
        self._session: Any = None
        try:
            self._session = ort.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
            if any("bfloat16" in entry.type for entry in self._session.get_inputs()):
                self._session = None
        except Exception as error:
            # Kernels are missing for whole element types on the CPU; a broken file is an error.
            if "NOT_IMPLEMENTED" not in str(error) and "Could not find an impl" not in str(error):
                raise
        if self._session is None:
            self.by = "ONNX's reference"
            self._session = ReferenceEvaluator(str(file))
        self.outputs = (
            list(self._session.output_names)
            if self.by == "ONNX's reference"
            else [entry.name for entry in self._session.get_outputs()]
        )

    def run(self, feeds: Feeds) -> Results:
        """Return the numeric outputs by name."""
        results = self._session.run(None, dict(feeds))
        return {
            name: value
            for name, value in zip(self.outputs, results, strict=True)
            if isinstance(value, np.ndarray) and value.dtype != object
        }


def typed(feeds: Feeds, graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Return the stored rows in the element types of the file (bfloat16 is stored as its bits)."""
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in graph.input}
    return {
        name: array.view(ml_dtypes.bfloat16) if kinds[name] == TensorProto.BFLOAT16 else array
        for name, array in feeds.items()
    }


def difference(ours: Mapping[str, NDArray[Any]], theirs: Results) -> float:
    """Return the largest max|y - reference| / max|reference| of all outputs; inf: other shapes.

    Whole-number outputs (labels) count as 1 where any differs.
    """
    worst = 0.0
    for name, right in theirs.items():
        left = ours[name]
        if left.shape != right.shape:
            return float("inf")
        if right.size == 0:
            continue
        if right.dtype.kind in "iub":
            worst = max(worst, float((left != right).any()))
            continue
        a, b = left.astype(np.float64), right.astype(np.float64)
        if not np.isfinite(b).all():
            return float("nan")
        worst = max(worst, float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)))
    return worst if worst == worst else float("inf")


def spread(results: Results) -> float:
    """Return how far outputs of different rows lie apart, relative to their size."""
    floats = [
        r.astype(np.float64) for r in results.values() if r.dtype.kind not in "iub" and r.size
    ]
    return max((float(np.ptp(r, 0).max() / max(np.abs(r).max(), 1e-30)) for r in floats), default=0)
