# SPDX-License-Identifier: Apache-2.0
"""Sequences between nodes, as exporters write them for split and chunk, against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.model import load
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.executor import GraphModule
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.runtime.parity import compare

RNG = np.random.default_rng(2)
make = helper.make_node
CONSTANTS = {
    "w": RNG.normal(size=(6, 6)).astype(np.float32),
    "v": RNG.normal(size=(6, 4)).astype(np.float32),
    "two": np.array(2),
    "sizes": np.array([1, 3, 2]),
    "first": np.array(0),
    "last": np.array(-1),
}
WAYS: dict[str, list[Any]] = {
    "by one size": [
        make("SplitToSequence", ["h", "two"], ["s"], axis=1),
        make("ConcatFromSequence", ["s"], ["j"], axis=1),
    ],
    "by sizes": [
        make("SplitToSequence", ["h", "sizes"], ["s"], axis=-1),
        make("SequenceErase", ["s", "first"], ["t"]),
        make("SequenceAt", ["s", "first"], ["a"]),
        make("SequenceInsert", ["t", "a"], ["u"]),
        make("ConcatFromSequence", ["u"], ["j"], axis=1),
    ],
    "into places": [
        make("SplitToSequence", ["h"], ["s"], axis=1, keepdims=0),
        make("SequenceErase", ["s"], ["t"]),
        make("SequenceAt", ["s", "last"], ["a"]),
        make("SequenceInsert", ["t", "a", "first"], ["u"]),
        make("ConcatFromSequence", ["u"], ["j"], axis=1, new_axis=1),
    ],
    "into kept places": [
        make("SplitToSequence", ["h"], ["s"], axis=1),
        make("ConcatFromSequence", ["s"], ["j"], axis=-1),
    ],
    "made of values": [
        make("SequenceConstruct", ["h", "x"], ["s"]),
        make("SequenceLength", ["s"], ["n"]),
        make("Cast", ["n"], ["m"], to=1),
        make("SequenceAt", ["s", "first"], ["a"]),
        make("Div", ["a", "m"], ["j"]),
    ],
    "from nothing": [
        make("SequenceEmpty", [], ["e"]),
        make("SequenceInsert", ["e", "h"], ["s"]),
        make("SequenceInsert", ["s", "x", "first"], ["t"]),
        make("SequenceAt", ["t", "last"], ["j"]),
    ],
}


def model(path: Path, nodes: list[Any], batch: int | str) -> Path:
    chain = [
        make("MatMul", ["x", "w"], ["h"], "before"),
        *nodes,
        make("MatMul", ["j", "v"], ["y"], "after"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        chain,
        "g",
        [value("x", TensorProto.FLOAT, [batch, 6])],
        [value("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    return path


@pytest.mark.parametrize("batch", ["N", 1], ids=["free", "fixed"])
@pytest.mark.parametrize("way", WAYS)
def test_sequences_equal_onnxruntime(tmp_path: Path, way: str, batch: int | str) -> None:
    path = model(tmp_path / "m.onnx", WAYS[way], batch)
    classifier = Classifier(load(path).graph)
    x = RNG.normal(size=(5, 6)).astype(np.float32)
    parity = compare(classifier, OrtModel(path, classifier.signature.input, "cpu"), x)
    assert parity.largest < 1e-6
    leaf = classifier.module.leaves["w"].clone().requires_grad_()
    y = classifier.run({"x": torch.from_numpy(x)}, ["y"], {"w": leaf})["y"]
    y[:, 0].sum().backward()
    assert leaf.grad is not None
    assert float(leaf.grad.abs().max()) > 0
    for layer in find_layers(classifier):
        cut = classifier.run({"x": torch.from_numpy(x)}, classifier.cut_set([layer.node]))
        again = classifier.run(cut, ["y"])["y"]
        torch.testing.assert_close(again, y.detach())


def test_places_outside_a_sequence_are_refused(tmp_path: Path) -> None:
    nodes = [
        make("SequenceConstruct", ["h", "x"], ["s"]),
        make("SequenceAt", ["s", "two"], ["j"], "beyond"),
    ]
    graph = load(model(tmp_path / "m.onnx", nodes, "N")).graph
    module = GraphModule(graph, torch.device("cpu"))
    with pytest.raises(UnsupportedError, match=r"'beyond'.*position 2 in a sequence of 2"):
        module.run({"x": torch.ones(1, 6)}, ["y"])
