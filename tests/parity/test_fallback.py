# SPDX-License-Identifier: Apache-2.0
"""A node that only onnx2torch converts still runs, and agrees with onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.model import fallback, load
from lancet_onnx.ops import Operator, OpKey, lookup
from lancet_onnx.runtime import binding
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.runtime.parity import compare


def without_roi_align(key: OpKey) -> Operator | None:
    """The table as it would be if it lacked an operator that onnx2torch converts."""
    return None if key[1] == "RoiAlign" else lookup(key)


def model_with_roi_align(path: Path) -> None:
    """Pool one fixed region per image of a batch of one, then classify it."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 8)).astype(np.float32),
        "rois": np.array([[0.0, 0.0, 5.0, 5.0]], np.float32),
        "which": np.zeros(1, np.int64),
    }
    nodes = [
        helper.make_node(
            "RoiAlign",
            ["x", "rois", "which"],
            ["pooled"],
            "align",
            output_height=2,
            output_width=2,
            sampling_ratio=2,
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "roi",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torchvision under vmap
def test_onnx2torch_serves_single_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "lookup", without_roi_align)
    path = tmp_path / "roi.onnx"
    model_with_roi_align(path)
    classifier = Classifier(load(path).graph)
    images = np.random.default_rng(1).normal(size=(1, 2, 8, 8)).astype(np.float32)
    parity = compare(classifier, OrtModel(path, classifier.signature.input, "cpu"), images)
    assert parity.holds, parity


def test_without_onnx2torch_the_node_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "available", lambda: False)
    monkeypatch.setattr(binding, "lookup", without_roi_align)
    path = tmp_path / "roi.onnx"
    model_with_roi_align(path)
    with pytest.raises(UnsupportedError, match=r"'align' \(ai\.onnx\.RoiAlign-16\)"):
        Classifier(load(path).graph)
