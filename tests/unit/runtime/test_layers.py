# SPDX-License-Identifier: Apache-2.0
"""Which weights may be edited, and which leaf shifts a layer's output by how much."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import dense, info, model_bytes, open_bytes, tensor
from onnx import helper

from lancet_onnx.model import load
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import Layer, find_layers, unedited

RNG = np.random.default_rng(5)
make = helper.make_node


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


FC = floats(6, 4)


def image_model(nodes, *tensors: bytes, value: str = "out") -> bytes:
    """Nodes from x (N, 2, 5, 5) to `value` (N, 6, ...), then pooled and classified."""
    tail = [
        make("GlobalAveragePool", [value], ["pooled"], "pool"),
        make("Flatten", ["pooled"], ["flat"], "flatten"),
        make("MatMul", ["flat", "fc"], ["y"], "fc"),
    ]
    return model_bytes(
        [*nodes, *tail],
        [*tensors, tensor("fc", FC)],
        [info("x", ["N", 2, 5, 5])],
        [info("y", ["N", 4])],
    )


def flat_model(nodes, *tensors: bytes) -> bytes:
    return model_bytes(nodes, tensors, [info("x", ["N", 3])], [info("y", ["N", 4])])


def layers_of(folder: Path, data: bytes) -> tuple[Classifier, dict[str, Layer]]:
    classifier = Classifier(open_bytes(folder, data).graph)
    return classifier, {layer.param: layer for layer in find_layers(classifier)}


def shift(classifier: Classifier, layer: Layer, value: str, d: torch.Tensor, x: torch.Tensor):
    """`value` with d added to the layer's output, and with the leaf moved as `Bias` says."""
    assert layer.bias is not None
    leaf = classifier.module.leaves[layer.bias.param]
    along = [1] * len(classifier.shapes[layer.output])
    along[layer.channel_axis] = -1
    with torch.no_grad():
        nudged = classifier.module.run({"x": x}, [value], nudges={layer.output: d.reshape(along)})[
            value
        ]
        moved = leaf + (d * torch.from_numpy(layer.bias.scale)).reshape(leaf.shape)
        by_leaf = classifier.module.run({"x": x}, [value], {layer.bias.param: moved})[value]
        plain = classifier.module.run({"x": x}, [value])[value]
    return plain, nudged, by_leaf


CONV_W = tensor("w", floats(6, 2, 3, 3))
BN = [tensor("gamma", floats(6)), tensor("mean", floats(6)), tensor("var", floats(6) ** 2 + 0.1)]
BN_NODE = make(
    "BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["out"], "bn", epsilon=0.01
)

BIASES = {
    "Conv": (
        image_model([make("Conv", ["x", "w", "b"], ["out"], "c")], CONV_W, tensor("b", floats(6))),
        "b",
        "out",
    ),
    "ConvTranspose": (
        image_model(
            [make("ConvTranspose", ["x", "w", "b"], ["out"], "c")],
            tensor("w", floats(2, 6, 3, 3)),
            tensor("b", floats(6)),
        ),
        "b",
        "out",
    ),
    "Conv+BatchNormalization": (
        image_model(
            [make("Conv", ["x", "w"], ["c"], "c"), BN_NODE], CONV_W, *BN, tensor("beta", floats(6))
        ),
        "beta",
        "out",
    ),
    "Conv+Add": (
        image_model(
            [make("Conv", ["x", "w"], ["c"], "c"), make("Add", ["b", "c"], ["out"], "a")],
            CONV_W,
            tensor("b", floats(6, 1, 1)),
        ),
        "b",
        "out",
    ),
    "Gemm": (
        flat_model(
            [make("Gemm", ["x", "w", "b"], ["y"], "g")],
            tensor("w", floats(3, 4)),
            tensor("b", floats(4)),
        ),
        "b",
        "y",
    ),
    "Gemm with beta, transB and alpha": (
        flat_model(
            [make("Gemm", ["x", "w", "b"], ["y"], "g", beta=0.25, alpha=2.0, transB=1)],
            tensor("w", floats(4, 3)),
            tensor("b", floats(1, 4)),
        ),
        "b",
        "y",
    ),
    "MatMul+Add": (dense(floats(3, 4), floats(4)), "b", "y"),
}


@pytest.mark.parametrize("case", BIASES)
def test_moving_the_bias_leaf_moves_the_output(tmp_path: Path, case: str):
    data, name, value = BIASES[case]
    classifier, layers = layers_of(tmp_path, data)
    layer = layers["w"]
    assert layer.bias is not None
    assert layer.bias.param == name
    channels = classifier.shapes[layer.output][layer.channel_axis]
    assert layer.bias.scale.shape == (channels,)
    x = torch.from_numpy(floats(3, *classifier.shapes["x"][1:]))
    plain, nudged, by_leaf = shift(classifier, layer, value, torch.from_numpy(floats(channels)), x)
    torch.testing.assert_close(by_leaf, nudged, rtol=1e-4, atol=1e-5)
    assert (by_leaf - plain).abs().max() > 0.1


NO_BIAS = {
    "none in the file": image_model([make("Conv", ["x", "w"], ["out"], "c")], CONV_W),
    "shared by two layers": image_model(
        [
            make("Conv", ["x", "w", "b"], ["c1"], "c1"),
            make("Conv", ["x", "v", "b"], ["c2"], "c2"),
            make("Add", ["c1", "c2"], ["out"], "sum"),
        ],
        CONV_W,
        tensor("v", floats(6, 2, 3, 3)),
        tensor("b", floats(6)),
    ),
    "an addend along another axis": image_model(
        [make("Conv", ["x", "w"], ["c"], "c"), make("Add", ["c", "b"], ["out"], "a")],
        CONV_W,
        tensor("b", floats(3)),
    ),
    "an addend of the input": image_model(
        [make("Conv", ["x", "w"], ["c"], "c"), make("Add", ["c", "c"], ["out"], "a")], CONV_W
    ),
    "the output is read twice": image_model(
        [
            make("Conv", ["x", "w"], ["c"], "c"),
            make("Add", ["c", "b"], ["a"], "a"),
            make("Mul", ["a", "c"], ["out"], "m"),
        ],
        CONV_W,
        tensor("b", floats(6, 1, 1)),
    ),
    "a bias behind a node": flat_model(
        [
            make("Neg", ["b"], ["nb"], "n"),
            make("Gemm", ["x", "w", "nb"], ["y"], "g"),
        ],
        tensor("w", floats(3, 4)),
        tensor("b", floats(4)),
    ),
    "one number for all channels": flat_model(
        [make("Gemm", ["x", "w", "b"], ["y"], "g")],
        tensor("w", floats(3, 4)),
        tensor("b", floats(1)),
    ),
    "a Gemm bias that is switched off": flat_model(
        [make("Gemm", ["x", "w", "b"], ["y"], "g", beta=0.0)],
        tensor("w", floats(3, 4)),
        tensor("b", floats(4)),
    ),
    "the shift is also the mean": image_model(
        [
            make("Conv", ["x", "w"], ["c"], "c"),
            make("BatchNormalization", ["c", "gamma", "b", "b", "var"], ["out"], "bn"),
        ],
        CONV_W,
        tensor("gamma", np.ones(6, np.float32)),
        tensor("var", np.ones(6, np.float32)),
        tensor("b", np.zeros(6, np.float32)),
    ),
}


@pytest.mark.parametrize("case", NO_BIAS)
def test_layers_without_a_bias_of_their_own(tmp_path: Path, case: str):
    _, layers = layers_of(tmp_path, NO_BIAS[case])
    assert layers["w"].bias is None


def test_layers_are_listed_in_execution_order(tmp_path: Path):
    _, layers = layers_of(tmp_path, BIASES["Conv+BatchNormalization"][0])
    assert [(p, layer.depth) for p, layer in layers.items()] == [("w", 0), ("fc", 1)]
    assert layers["w"].size == 6 * 2 * 3 * 3
    assert (layers["w"].source, layers["w"].output) == ("x", "c")


def test_the_layers_of_the_fixtures(fixtures):
    found = {}
    for name in ("mnist_cnn_square", "mnist_resnet_scattered"):
        classifier = Classifier(load(fixtures.model(name)).graph)
        found[name] = {layer.param: layer.bias for layer in find_layers(classifier)}
    square = found["mnist_cnn_square"]
    assert list(square) == ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]
    assert [b.param for b in square.values()] == [
        "conv1.bias",
        "conv2.bias",
        "fc1.bias",
        "fc2.bias",
    ]
    assert len(found["mnist_resnet_scattered"]) == 10
    assert found["mnist_resnet_scattered"]["block1.conv2.weight"] is None


def test_a_weight_behind_transpose_and_identity_is_the_stored_leaf(tmp_path: Path):
    nodes = [
        make("Identity", ["w"], ["i"], "i"),
        make("Transpose", ["i"], ["t"], "t"),
        make("MatMul", ["x", "t"], ["y"], "mm"),
    ]
    _, layers = layers_of(tmp_path, flat_model(nodes, tensor("w", floats(4, 3))))
    assert list(layers) == ["w"]


def test_a_tied_weight_is_one_leaf_and_not_edited(tmp_path: Path):
    nodes = [
        make("Transpose", ["w"], ["wt"], "t"),
        make("MatMul", ["x", "w"], ["h"], "up"),
        make("MatMul", ["h", "wt"], ["back"], "down"),
        make("MatMul", ["back", "v"], ["y"], "out"),
    ]
    data = flat_model(nodes, tensor("w", floats(3, 5)), tensor("v", floats(3, 4)))
    classifier, layers = layers_of(tmp_path, data)
    assert set(classifier.module.leaves) == {"w", "v"}
    assert list(layers) == ["v"]
    assert unedited(classifier) == {"w": "shared by 2 nodes: an edit would act in all of them"}
    # One leaf acts in both places.
    x, w = (torch.from_numpy(floats(*shape)) for shape in ((2, 3), (3, 5)))
    v = classifier.module.leaves["v"]
    torch.testing.assert_close(classifier.logits(x, {"w": w}), x @ w @ w.T @ v)


@pytest.mark.parametrize(
    "nodes",
    [
        [make("Relu", ["w"], ["r"], "r"), make("MatMul", ["x", "r"], ["y"], "b")],
        [make("MatMul", ["w", "w2"], ["p"], "p"), make("MatMul", ["x", "p"], ["y"], "b")],
    ],
    ids=["weight through Relu", "product of weights"],
)
def test_weights_that_are_no_layer(tmp_path: Path, nodes):
    stored = [tensor("w", floats(3, 4)), tensor("w2", floats(4, 4))]
    _, layers = layers_of(tmp_path, flat_model(nodes, *stored))
    assert layers == {}


def test_a_weight_on_the_left_is_no_layer(tmp_path: Path):
    nodes = [
        make("MatMul", ["left", "x"], ["h"], "a"),
        make("MatMul", ["h", "w"], ["y"], "b"),
    ]
    stored = [tensor("left", floats(2, 2)), tensor("w", floats(3, 4))]
    data = model_bytes(nodes, stored, [info("x", [2, 3])], [info("y", [2, 4])])
    _, layers = layers_of(tmp_path, data)
    assert list(layers) == ["w"]


def test_double_weights_are_layers_too(tmp_path: Path):
    nodes = [
        make("Cast", ["x"], ["d"], "c", to=11),
        make("MatMul", ["d", "w"], ["h"], "mm"),
        make("Cast", ["h"], ["f"], "c2", to=1),
        make("MatMul", ["f", "v"], ["y"], "mm2"),
    ]
    data = flat_model(nodes, tensor("w", RNG.normal(size=(3, 4))), tensor("v", floats(4, 4)))
    _, layers = layers_of(tmp_path, data)
    assert list(layers) == ["w", "v"]
