# SPDX-License-Identifier: Apache-2.0
"""Fused and quantised operators written out: the same values, and layers that can be edited."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from builders import info, model_bytes, tensor
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from saturation import saturates

from lancet_onnx.model import load
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.executor import GraphModule
from lancet_onnx.runtime.layers import find_layers
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.runtime.parity import compare

RNG = np.random.default_rng(11)
make = helper.make_node


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


WEIGHTS = {
    "w1": floats(6, 3, 3, 3), "b1": floats(6),
    "w2": floats(6, 6, 3, 3) / 3, "b2": floats(6),
    "w3": floats(96, 5) / 5, "b3": floats(5),
}  # fmt: skip


def plain(path: Path) -> Path:
    """Two convolutions with a residual sum, then a matrix product with a bias."""
    nodes = [
        make("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=[1] * 4),
        make("Relu", ["c1"], ["r1"]),
        make("Conv", ["r1", "w2", "b2"], ["c2"], "second", pads=[1] * 4),
        make("Add", ["c2", "r1"], ["s"]),
        make("Relu", ["s"], ["r2"]),
        make("MaxPool", ["r2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Flatten", ["p"], ["f"]),
        make("Gemm", ["f", "w3", "b3"], ["y"], "last"),
    ]
    tensors = [tensor(name, array) for name, array in WEIGHTS.items()]
    data = model_bytes(nodes, tensors, [info("x", ["N", 3, 8, 8])], [info("y", ["N", 5])])
    path.write_bytes(data)
    return path


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = [floats(4, 3, 8, 8) for _ in range(3)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return {"x": self.left.pop()} if self.left else None


def quantised(folder: Path, way: str) -> Path:
    source, target = plain(folder / "plain.onnx"), folder / f"{way}.onnx"
    kind, _, channels = way.partition("-")
    if kind == "dynamic":
        quantize_dynamic(source, target, per_channel=bool(channels), weight_type=QuantType.QUInt8)
    else:
        quantize_static(
            source,
            target,
            Images(),
            quant_format=QuantFormat.QDQ if kind == "qdq" else QuantFormat.QOperator,
            per_channel=bool(channels),
            reduce_range=saturates(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8 if channels else QuantType.QUInt8,
        )
    return target


def fused(folder: Path, _way: str) -> Path:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    target = folder / "fused.onnx"
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    source = plain(folder / "plain.onnx")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return target


WAYS = {
    "fused": fused,
    **dict.fromkeys(["qdq", "qdq-channels", "qoperator", "qoperator-channels"], quantised),
    **dict.fromkeys(["dynamic", "dynamic-channels"], quantised),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_written_out_graphs_compute_the_same(tmp_path: Path, way: str):
    path = WAYS[way](tmp_path, way)
    graph = load(path).graph
    classifier = Classifier(graph)
    x = floats(6, 3, 8, 8)
    model = OrtModel(path, classifier.signature.input, "cpu", classifier.signature.head)
    # A step of the last quantised tensor; the float and the fused model must be exact.
    assert compare(classifier, model, x).largest < (1e-5 if way == "fused" else 0.02)
    single = torch.from_numpy(x[:1])
    (output,) = (spec.name for spec in graph.outputs)
    whole = GraphModule(graph, torch.device("cpu")).run({"x": single}, [output])[output]
    ours = classifier.run({"x": single}, [output])[output]
    torch.testing.assert_close(ours, whole, rtol=0, atol=0.02 * float(whole.abs().max()))

    layers = find_layers(classifier)
    assert [layer.node.op_type for layer in layers][:2] == ["Conv", "Conv"]
    assert len(layers) == 3
    for layer, name in zip(layers, ("w1", "w2", "w3"), strict=True):
        leaf = classifier.module.leaves[layer.param]
        real = layer.centred(leaf)
        stored = WEIGHTS[name].reshape(leaf.shape) if leaf.shape == WEIGHTS[name].shape else None
        if stored is not None:
            likeness = np.corrcoef(real.flatten().numpy(), stored.reshape(-1))[0, 1]
            assert likeness > (0.999 if "channels" not in way else 0.9)
        torch.testing.assert_close(layer.centred(layer.scaled(leaf, -1.0)), -real)
        cut = classifier.run({"x": single}, [layer.source])
        muted = classifier.run(cut, [layer.output], {layer.param: layer.scaled(leaf, 0.0)})
        rows = muted[layer.output].movedim(layer.channel_axis, -1).flatten(0, -2)
        # With every real weight 0, whatever number stands for it, only a bias is left.
        torch.testing.assert_close(rows, rows[:1].expand_as(rows), rtol=1e-5, atol=1e-4)
    biased = [layer.bias is not None for layer in layers]
    assert biased == ([False] * 3 if way.startswith("dynamic") else [True] * 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_weights_get_gradients_through_the_rounding(tmp_path: Path):
    path = quantised(tmp_path, "qoperator")
    assert {node.op_type for node in onnx.load(path).graph.node} >= {"QLinearConv"}
    module = GraphModule(load(path).graph, torch.device("cpu"))
    plain_module = GraphModule(load(plain(tmp_path / "p.onnx")).graph, torch.device("cpu"))
    x = torch.from_numpy(floats(2, 3, 8, 8))
    name = next(n for n in module.leaves if n in module.graph.quantised and "w2" in n)
    leaf = module.leaves[name].clone().requires_grad_()
    real = plain_module.leaves["w2"].clone().requires_grad_()
    (output,) = (spec.name for spec in module.graph.outputs)
    module.run({"x": x}, [output], {name: leaf})[output][:, 1].sum().backward()
    plain_module.run({"x": x}, ["y"], {"w2": real})["y"][:, 1].sum().backward()
    assert leaf.grad is not None
    assert real.grad is not None
    alike = torch.nn.functional.cosine_similarity(leaf.grad.flatten(), real.grad.flatten(), 0)
    assert float(alike) > 0.9


ACTIVATIONS = {
    "Relu": [],
    "Tanh": [],
    "Sigmoid": [],
    "LeakyRelu": [0.3],
    "HardSigmoid": [0.4, 0.6],
    "Clip": [-0.5, 1.5],
}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_fused_activation_is_written_out(tmp_path: Path, activation: str, residual: bool):
    named = {"activation": activation, "pads": [1] * 4}
    if ACTIVATIONS[activation]:
        named["activation_params"] = ACTIVATIONS[activation]
    inputs = ["x", "w1", "b1", *(["z"] if residual else [])]
    nodes = [
        make("FusedConv", inputs, ["c"], "fused", domain="com.microsoft", **named),
        make("GlobalAveragePool", ["c"], ["p"]),
        make("Flatten", ["p"], ["y"]),
    ]
    z = tensor("z", floats(1, 6, 8, 8))
    tensors = [*(tensor(name, WEIGHTS[name]) for name in ("w1", "b1")), z]
    shapes = [info("x", [1, 3, 8, 8])], [info("y", [1, 6])]
    data = model_bytes(nodes, tensors, *shapes, domains=["com.microsoft"])
    path = tmp_path / "fused.onnx"
    path.write_bytes(data)
    classifier = Classifier(load(path).graph)
    parity = compare(
        classifier, OrtModel(path, classifier.signature.input, "cpu"), floats(3, 3, 8, 8)
    )
    assert parity.largest < 1e-5
    kinds = [node.op_type for node in classifier.graph.nodes][: 2 + residual]
    assert kinds == ["Conv", *(["Add"] if residual else []), activation]
    (layer,) = find_layers(classifier)
    assert (layer.param, layer.bias is not None) == ("w1", True)
