# SPDX-License-Identifier: Apache-2.0
"""Small models put together node by node: control flow, functions, storage forms, old opsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_models import EXPORTED, Builder, Built

make = helper.make_node


def weights(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return float32 weights of these shapes, of a size that keeps activations near 1."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(max(shape[0], 1))).astype(np.float32)
        for name, shape in shapes.items()
    }


def data(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def info(name: str, shape: Sequence[int | str] | None = None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    tensors: dict[str, np.ndarray],
    x: np.ndarray,
    *,
    opset: int = 17,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    outputs: Sequence[Any] | None = None,
) -> Built:
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", x.shape, kind)],
        outputs or [info("y", None, kind)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return (
        helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10),
        {"x": x},
    )


def branching() -> Built:
    """Take one of two layers, the untaken one with its own weights."""

    def layer(name: str, activation: str, seed: int) -> onnx.GraphProto:
        own = weights(seed, **{f"w_{name}": (8, 4)})
        nodes = [
            make("MatMul", ["h", f"w_{name}"], [f"m_{name}"]),
            make(activation, [f"m_{name}"], [f"o_{name}"]),
        ]
        inside = [numpy_helper.from_array(array, key) for key, array in own.items()]
        return helper.make_graph(nodes, name, [], [info(f"o_{name}")], inside)

    nodes = [
        make("Gemm", ["x", "w", "b"], ["h"]),
        make("ReduceSum", ["h"], ["total"], keepdims=0),
        make("Greater", ["total", "limit"], ["above"]),
        make("If", ["above"], ["z"], then_branch=layer("then", "Tanh", 1),
             else_branch=layer("else", "Sigmoid", 2)),
        make("MatMul", ["z", "last"], ["y"]),
    ]  # fmt: skip
    tensors = {**weights(3, w=(6, 8), b=(8,), last=(4, 3)), "limit": np.float32([-1e4]).reshape(())}
    return model(nodes, tensors, data(3, 6))


def looping() -> Built:
    """Apply one layer three times, collecting each result."""
    body = helper.make_graph(
        [
            make("MatMul", ["h", "w"], ["m"]),
            make("Add", ["m", "shift"], ["s"]),
            make("Tanh", ["s"], ["h_out"]),
            make("Identity", ["go"], ["go_out"]),
            make("ReduceMean", ["h_out"], ["step"], axes=[0], keepdims=0),
        ],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("h", [3, 6])],
        [info("go_out", [], TensorProto.BOOL), info("h_out", [3, 6]), info("step", [6])],
        [numpy_helper.from_array(weights(4, w=(6, 6))["w"], "w")],
    )
    nodes = [
        make("Loop", ["trips", "", "x"], ["last", "steps"], body=body),
        make("MatMul", ["last", "head"], ["y"]),
    ]
    tensors = {**weights(5, head=(6, 4), shift=(6,)), "trips": np.array(3)}
    outputs = [info("y", None), info("steps", None)]
    return model(nodes, tensors, data(3, 6), opset=16, outputs=outputs)


def scanning() -> Built:
    """A recurrent cell written out as a Scan over time, backwards."""
    body = helper.make_graph(
        [
            make("MatMul", ["xt", "w"], ["a"]),
            make("MatMul", ["h", "r"], ["b"]),
            make("Sum", ["a", "b", "bias"], ["s"]),
            make("Tanh", ["s"], ["h_out"]),
            make("Identity", ["h_out"], ["seen"]),
        ],
        "body",
        [info("h", [2, 5]), info("xt", [2, 6])],
        [info("h_out", [2, 5]), info("seen", [2, 5])],
    )
    nodes = [
        make("Scan", ["start", "x"], ["last", "all"], body=body, num_scan_inputs=1,
             scan_input_axes=[1], scan_input_directions=[1], scan_output_axes=[1]),
        make("ReduceMax", ["all"], ["most"], axes=[1], keepdims=0),
        make("Sub", ["last", "most"], ["d"]),
        make("MatMul", ["d", "head"], ["y"]),
    ]  # fmt: skip
    tensors = weights(6, w=(6, 5), r=(5, 5), bias=(5,), head=(5, 4), start=(2, 5))
    return model(nodes, tensors, data(2, 4, 6), opset=16)


def of_functions() -> Built:
    """A function of the model, called twice, with an attribute and a constant of its own."""
    own = numpy_helper.from_array(weights(7, k=(8, 8))["k"], "k")
    alpha = make("LeakyRelu", ["n"], ["out"])
    alpha.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=1))
    function = helper.make_function(
        "own",
        "Layer",
        ["v", "weight"],
        ["out"],
        [
            make("Constant", [], ["k"], value=own),
            make("MatMul", ["v", "weight"], ["m"]),
            make("MatMul", ["m", "k"], ["n"]),
            alpha,
        ],
        [helper.make_opsetid("", 17)],
        ["slope"],
    )
    nodes = [
        make("Layer", ["x", "w1"], ["h"], domain="own", slope=0.1),
        make("Layer", ["h", "w2"], ["g"], domain="own", slope=0.3),
        make("MatMul", ["g", "w3"], ["y"]),
    ]
    tensors = weights(8, w1=(6, 8), w2=(8, 8), w3=(8, 4))
    return model(nodes, tensors, data(3, 6), domains=["own"], functions=[function])


def sparse() -> Built:
    """One weight stored sparsely: a third of it, the rest zeros."""
    nodes = [
        make("MatMul", ["x", "s"], ["h"]),
        make("Tanh", ["h"], ["t"]),
        make("MatMul", ["t", "w"], ["y"]),
    ]
    proto, feeds = model(nodes, weights(9, w=(8, 4)), data(3, 12), opset=13)
    places = np.arange(0, 96, 3)
    values = numpy_helper.from_array(weights(10, s=(len(places),))["s"] * 5, "s")
    indices = numpy_helper.from_array(places, "")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [12, 8]))
    return proto, feeds


def in_constant_nodes() -> Built:
    """Every weight in a Constant node, one of them as plain numbers."""
    proto, feeds = EXPORTED["mlp_newer"]()
    constants = []
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        value = {"value": tensor} if array.ndim != 1 else {"value_floats": array.tolist()}
        constants.append(make("Constant", [], [tensor.name], **value))
    constants += proto.graph.node
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend(constants)
    return proto, feeds


def of_opset_7() -> Built:
    """The operators of 2017, as CNTK and the first exporters wrote them."""
    nodes = [
        make("Conv", ["x", "w"], ["c"], auto_pad="SAME_LOWER", strides=[2, 2]),
        make("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], spatial=1),
        make("LRN", ["n"], ["l"], size=3, alpha=0.2),
        make("Relu", ["l"], ["r"]),
        make("Upsample", ["r"], ["u"], scales=[1.0, 1.0, 2.0, 2.0]),
        make("Dropout", ["u"], ["d"], ratio=0.5),
        make("Pad", ["d"], ["p"], pads=[0, 0, 1, 0, 0, 0, 0, 1], value=0.5),
        make("AveragePool", ["p"], ["a"], kernel_shape=[3, 3], strides=[3, 3]),
        make("Slice", ["a"], ["s"], axes=[2, 3], starts=[0, 1], ends=[2, 3]),
        make("Flatten", ["s"], ["f"]),
        make("Gemm", ["f", "g", "bias"], ["h"], transB=1, alpha=0.7, beta=1.3),
        make("Softmax", ["h"], ["y"]),
    ]
    tensors = weights(11, w=(5, 3, 3, 3), scale=(5,), shift=(5,), mean=(5,), g=(4, 20), bias=(4,))
    tensors["var"] = np.abs(weights(12, v=(5,))["v"]) + np.float32(0.5)
    return model(nodes, tensors, data(2, 3, 8, 8), opset=7)


def half() -> Built:
    """A residual network and its input in half precision."""
    proto, feeds = EXPORTED["residual"]()
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    del proto.graph.value_info[:]
    for entry in (*proto.graph.input, *proto.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.FLOAT16
    return proto, {name: array.astype(np.float16) for name, array in feeds.items()}


def of_doubles() -> Built:
    """A file whose own weights are doubles."""
    nodes = [
        make("Gemm", ["x", "w", "b"], ["h"]),
        make("LayerNormalization", ["h", "scale", "shift"], ["n"]),
        make("Tanh", ["n"], ["s"]),
        make("MatMul", ["s", "v"], ["y"]),
    ]
    tensors = weights(13, w=(6, 8), b=(8,), scale=(8,), shift=(8,), v=(8, 4))
    doubles = {name: array.astype(np.float64) for name, array in tensors.items()}
    return model(nodes, doubles, data(3, 6).astype(np.float64))


def of_sklearn() -> Built:
    """An MLPClassifier as skl2onnx writes it: casts, label and probabilities."""
    nodes = [
        make("Cast", ["x"], ["cast"], to=TensorProto.FLOAT),
        make("MatMul", ["cast", "coefficient"], ["m"]),
        make("Add", ["m", "intercepts"], ["a"]),
        make("Relu", ["a"], ["r"]),
        make("MatMul", ["r", "coefficient1"], ["m1"]),
        make("Add", ["m1", "intercepts1"], ["a1"]),
        make("Softmax", ["a1"], ["probabilities"], axis=1),
        make("ArgMax", ["probabilities"], ["place"], axis=1, keepdims=0),
        make("ArrayFeatureExtractor", ["classes", "place"], ["label"], domain="ai.onnx.ml"),
    ]
    shapes = {"coefficient": (6, 10), "intercepts": (1, 10), "coefficient1": (10, 3)}
    tensors = {**weights(14, **shapes, intercepts1=(1, 3)), "classes": np.array([4, 8, 15])}
    outputs = [info("label", None, TensorProto.INT64), info("probabilities", None)]
    return model(nodes, tensors, data(5, 6), domains=["ai.onnx.ml"], outputs=outputs)


def fused_attention() -> Built:
    """Operators of com.microsoft as the transformer optimiser joins them."""
    contrib = {"domain": "com.microsoft"}
    nodes = [
        make("Attention", ["x", "qkv", "b"], ["a"], num_heads=2, **contrib),
        make("SkipLayerNormalization", ["a", "x", "gamma", "beta", "skip_b"], ["n"], **contrib),
        make("FusedMatMul", ["n", "up"], ["u"], transB=1, alpha=0.5, **contrib),
        make("BiasGelu", ["u", "up_b"], ["g"], **contrib),
        make("MatMul", ["g", "down"], ["d"]),
        make("QuickGelu", ["d"], ["q"], alpha=1.7, **contrib),
        make("ReduceMean", ["q"], ["m"], axes=[1], keepdims=0),
        make("FusedGemm", ["m", "head", "head_b"], ["y"], activation="Tanh", **contrib),
    ]
    shapes = {"qkv": (8, 24), "b": (24,), "gamma": (8,), "beta": (8,), "skip_b": (8,)}
    last = {"up": (12, 8), "up_b": (12,), "down": (12, 8), "head": (8, 4), "head_b": (4,)}
    return model(nodes, weights(15, **shapes, **last), data(2, 5, 8), domains=["com.microsoft"])


HANDMADE: dict[str, Builder] = {
    "if": branching,
    "loop": looping,
    "scan": scanning,
    "functions": of_functions,
    "sparse_initializer": sparse,
    "constant_nodes": in_constant_nodes,
    "opset_7": of_opset_7,
    "float16": half,
    "float64": of_doubles,
    "sklearn": of_sklearn,
    "fused_attention": fused_attention,
}
