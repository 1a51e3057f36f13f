# SPDX-License-Identifier: Apache-2.0
"""Carried integers: what only moves them runs, what would compute with them is refused by name."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from builders import info, model_bytes, open_bytes, tensor
from onnx import helper

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.runtime.binding import refusals
from lancet_onnx.runtime.executor import GraphModule

make = helper.make_node
CONSTANTS = [
    tensor("scale", np.array(0.05, np.float32)),
    tensor("zero", np.array(120, np.uint8)),
    tensor("two", np.array(2, np.uint8)),
    tensor("sizes", np.array([1, 2, 6, 6])),
    tensor("w", np.random.default_rng(0).integers(-9, 9, (4, 3)).astype(np.int8)),
    tensor("shift", np.array([5, -6, 7], np.int32)),
]


def between(nodes) -> bytes:
    """Quantise, do something with the integers, make them real again."""
    chain = [
        make("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quantise"),
        *nodes,
        make("DequantizeLinear", ["r", "scale", "zero"], ["y"], "real"),
    ]
    shape = [1, 2, 4, 4]
    return model_bytes(chain, CONSTANTS, [info("x", shape)], [info("y", None)], opset=13)


MOVING = {
    "Concat": [make("Concat", ["q", "q"], ["r"], axis=1)],
    "MaxPool": [make("MaxPool", ["q"], ["r"], kernel_shape=[2, 2])],
    "Slice and Transpose": [
        make("Transpose", ["q"], ["t"], perm=[0, 2, 3, 1]),
        make("Split", ["t"], ["r", "rest"], axis=1),
    ],
    "Resize": [make("Resize", ["q", "", "", "sizes"], ["r"], mode="nearest")],
}
COMPUTING = {
    "Resize": [make("Resize", ["q", "", "", "sizes"], ["r"], "at", mode="linear")],
    "Div": [make("Transpose", ["q"], ["t"]), make("Div", ["t", "two"], ["r"], "at")],
    "Add": [make("Add", ["q", "q"], ["r"], "at")],
    "ReduceMean": [make("ReduceMean", ["q"], ["r"], "at", axes=[1])],
}


@pytest.mark.parametrize("way", MOVING)
def test_what_only_moves_integers_runs(tmp_path: Path, way: str):
    data = between(MOVING[way])
    module = GraphModule(open_bytes(tmp_path, data).graph, torch.device("cpu"))
    x = np.random.default_rng(1).normal(size=(1, 2, 4, 4)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(data).run(None, {"x": x})
    found = module.run({"x": torch.from_numpy(x)}, ["y"])["y"]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("way", COMPUTING)
def test_what_computes_with_integers_is_refused(tmp_path: Path, way: str):
    graph = open_bytes(tmp_path, between(COMPUTING[way])).graph
    (refusal,) = refusals(graph)
    assert str(refusal).startswith(f"node 'at' (ai.onnx.{way}-")
    assert "computes with the quantised integers" in refusal.reason
    with pytest.raises(UnsupportedError, match="quantised integers"):
        GraphModule(graph, torch.device("cpu"))


def test_sums_of_32_bits_are_exact(tmp_path: Path):
    nodes = [
        make("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        make("MatMulInteger", ["q", "w", "z"], ["m"]),
        make("Add", ["m", "shift"], ["a"]),
        make("Cast", ["a"], ["f"], to=1),
        make("Mul", ["f", "s"], ["y"]),
    ]
    data = model_bytes(nodes, CONSTANTS, [info("x", [5, 4])], [info("y", [5, 3])], opset=13)
    module = GraphModule(open_bytes(tmp_path, data).graph, torch.device("cpu"))
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(data).run(None, {"x": x})
    found = module.run({"x": torch.from_numpy(x)}, ["y"])["y"]
    np.testing.assert_array_equal(found, wanted)
