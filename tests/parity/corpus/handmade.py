# SPDX-License-Identifier: Apache-2.0
"""Hand-made classifiers: old opsets, other frameworks' layouts, control flow, local functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpus import handmade_rare as rare
from corpus.sketch import Sketch, info
from corpus.store import ROWS, Made, Recipe

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def _old_cnn(opset: int, path: Path) -> Made:
    """What Caffe2, MXNet and the first PyTorch wrote: LRN, Upsample, Dropout, weights as inputs."""
    g = Sketch(opset)
    x = g("Conv", "x", g.weight(8, 3, 3, 3), g.weight(8), pads=[1, 1, 1, 1], strides=[1, 1])
    names = [g.positive(8), g.weight(8), g.weight(8), g.positive(8)]
    x = g("BatchNormalization", x, *names, epsilon=1e-5)
    x = g("LRN", g("Relu", x), size=3, alpha=0.01, beta=0.75, bias=1.5)
    x = g("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    x = g("PRelu", x, g.weight(8, 1, 1))
    if opset < 9:
        x = g("Upsample", x, mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])
    else:
        x = g("Upsample", x, g.const([1, 1, 2, 2], np.float32), mode="linear")
    x = g("Pad", x, pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")
    x = g("Conv", x, g.weight(6, 4, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2], group=2)
    x = g("Slice", x, axes=[2, 3], starts=[0, 1], ends=[7, 1000])
    x = g("Dropout", g("LeakyRelu", x, alpha=0.2), ratio=0.4)
    x = g("Sum", g("Elu", x), g("Clip", x, min=-1.0, max=2.0), x)
    x = g("AveragePool", x, kernel_shape=[2, 2], auto_pad="SAME_LOWER")
    x = g("Flatten", g("GlobalAveragePool", x))
    x = g("Gemm", x, g.weight(5, 6, gain=30), g.weight(5), transB=1, alpha=0.5, beta=2.0)
    return g.save(path, {"x": (3, 16, 16)}, g("Softmax", x), as_inputs=True)


def _old_mlp(opset: int, path: Path) -> Made:
    """Reductions, squeezes and splits by attribute, as before opset 13."""
    g = Sketch(opset, 1)
    x = g("MatMul", "x", g.weight(12, 16))
    a, b = g("Split", g("Add", x, g.weight(16)), n=2, axis=1, split=[10, 6])
    a = g("Selu", g("Unsqueeze", a, axes=[2]))
    a = g(
        "Squeeze",
        g("ReduceMean", g("Concat", a, g("Tanh", a), axis=2), axes=[2], keepdims=1),
        axes=[2],
    )
    b = g("Mul", g("HardSigmoid", b, alpha=0.3, beta=0.4), g("Softsign", b))
    n = g("ReduceL2", b, axes=[1], keepdims=1)
    b = g("Div", b, g("Add", n, g.const([0.5], np.float32)))
    y = g("Concat", a, b, g("Softplus", b), axis=1)
    y = g("Gemm", g("Max", y, g("Neg", y)), g.weight(22, 6), g.weight(6))
    y = g("Sub", y, g("ReduceMax", y, axes=[1], keepdims=1))
    return g.save(path, {"x": (12,)}, g("LogSoftmax", y, axis=1), as_inputs=opset < 9)


def _old_rnn(op: str, opset: int, path: Path) -> Made:
    """A recurrent node as old PyTorch wrote it: a Transpose around, an initial state of zeros."""
    g, hidden, gates = Sketch(opset, 2), 6, {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    x = g("Transpose", "x", perm=[1, 0, 2])
    weights = [g.weight(2, gates * hidden, 5), g.weight(2, gates * hidden, hidden)]
    extra: dict[str, Any] = {"linear_before_reset": 1} if op == "GRU" else {}
    y, last = g(
        op, x, *weights, g.weight(2, 2 * gates * hidden), n=2,
        hidden_size=hidden, direction="bidirectional", **extra,
    )  # fmt: skip
    y = g("Squeeze", g("Slice", y, axes=[1], starts=[0], ends=[1]), axes=[1])
    y = g("ReduceMax", y, axes=[0], keepdims=0)
    last = g("Reshape", g("Transpose", last, perm=[1, 0, 2]), g.const([-1, 2 * hidden]))
    y = g("Gemm", g("Concat", y, last, axis=1), g.weight(4, 3 * hidden), g.weight(4), transB=1)
    return g.save(path, {"x": (7, 5)}, y)


def _channels_last(opset: int, path: Path) -> Made:
    """Keras's layout as tf2onnx writes it: Transpose, SAME pads, folded BatchNorm, MatMul head."""
    g = Sketch(opset, 3)
    x = g("Transpose", "input:0", perm=[0, 3, 1, 2])
    x = g("Conv", x, g.weight(8, 3, 3, 3), g.weight(8), auto_pad="SAME_UPPER", strides=[2, 2])
    x = g("Clip", x, g.const(0, np.float32), g.const(6, np.float32))
    y = g("Conv", x, g.weight(8, 1, 3, 3), group=8, pads=[0, 0, 1, 1])
    names = [g.positive(8), g.weight(8), g.weight(8), g.positive(8)]
    y = g("BatchNormalization", y, *names, epsilon=1e-3)
    y = g("Pad", g("Relu", y), g.const([0, 0, 0, 0, 0, 0, 1, 1]), g.const(0, np.float32))
    x = g("Add", g("MaxPool", x, kernel_shape=[2, 2]), g("Conv", y, g.weight(8, 8, 2, 2)))
    x = g("Transpose", x, perm=[0, 2, 3, 1])
    x = g("Mul", x, g.weight(1, 1, 8, name="model/scale/Read:0"))
    x = g("Reshape", g("ReduceMean", x, axes=[1, 2], keepdims=0), g.const([-1, 8]))
    x = g(
        "Add",
        g("MatMul", x, g.weight(8, 5, name="dense/MatMul/ReadVariableOp:0", gain=5)),
        g.weight(5),
    )
    return g.save(path, {"input:0": (15, 15, 3)}, g("Softmax", x, axis=-1))


def _tied(path: Path) -> Made:
    """One weight used three times, once transposed; names that differ in punctuation only."""
    g = Sketch(13, 4)
    w = g.weight(12, 12, name="a.b")
    x = g("Relu", g("MatMul", "x", w))
    x = g("Add", g("MatMul", x, g("Transpose", w, perm=[1, 0])), g.weight(12, name="a_b"))
    x = g("Gemm", g("Tanh", x), w, g.weight(12, name="a/b"), transB=1)
    return g.save(path, {"x": (12,)}, g("MatMul", x, g.weight(12, 4, name="a:b")))


def _constants(path: Path) -> Made:
    """Weights in Constant nodes (tensor, floats, float) and in float_data instead of raw bytes."""
    g = Sketch(13, 5)
    values = g.rng.normal(size=(8, 12)).astype(np.float32)
    w = helper.make_tensor("w", FLOAT, [8, 12], values.flatten().tolist())
    g.initializers.append(w)
    x = g("MatMul", "x", g("Transpose", "w", perm=[1, 0]))
    x = g("Add", x, g("Constant", value_floats=[0.1 * i for i in range(8)]))
    x = g("Mul", x, g("Constant", value_float=0.7))
    tensor = onnx.numpy_helper.from_array(g.rng.normal(size=(8, 4)).astype(np.float32))
    return g.save(path, {"x": (12,)}, g("MatMul", g("Relu", x), g("Constant", value=tensor)))


def _if(path: Path) -> Made:
    """An If on a shape (decided once) and an If on data, both with weights outside and inside."""
    g = Sketch(17, 6)
    w = g.weight(12, 8)
    size = g("Gather", g("Shape", "x"), g.const(1), axis=0)

    def wide() -> list[Any]:
        return [(g("Tanh", g("MatMul", "x", w)), FLOAT, ["N", 8])]

    def narrow() -> list[Any]:
        return [
            (
                g("Identity", g("Slice", "x", g.const([0]), g.const([8]), g.const([1]))),
                FLOAT,
                ["N", 8],
            )
        ]

    x = g(
        "If",
        g("Greater", size, g.const(9)),
        then_branch=g.branch(wide),
        else_branch=g.branch(narrow),
    )
    inner = onnx.numpy_helper.from_array(g.rng.normal(size=(8, 8)).astype(np.float32))

    def bright() -> list[Any]:
        return [(g("MatMul", x, g("Constant", value=inner)), FLOAT, ["N", 8])]

    def dark() -> list[Any]:
        return [(g("Mul", x, g.weight(8)), FLOAT, ["N", 8])]

    mean = g("ReduceMean", "x", keepdims=0)
    y = g(
        "If", g("Less", mean, g.const(9, np.float32)),
        then_branch=g.branch(bright), else_branch=g.branch(dark),
    )  # fmt: skip
    return g.save(path, {"x": (12,)}, g("MatMul", y, g.weight(8, 4)), batch=1)


def _loop(path: Path) -> Made:
    """A Loop with a fixed trip count, a carried state, and a scanned output."""
    g = Sketch(17, 7)
    w = g.weight(12, 12)

    def body() -> list[Any]:
        after = g("Add", g("Tanh", g("MatMul", "state", w)), "state")
        return [
            (g("Identity", "going"), BOOL, []),
            (after, FLOAT, ["N", 12]),
            (g("ReduceSum", after, g.const([1]), keepdims=0), FLOAT, ["N"]),
        ]

    inputs = [info("i", [], INT64), info("going", [], BOOL), info("state", ["N", 12])]
    state, sums = g(
        "Loop", g.const(3), g.const(True, np.bool_), "x", n=2, body=g.branch(body, inputs)
    )
    y = g("Concat", state, g("Transpose", sums, perm=[1, 0]), axis=1)
    return g.save(path, {"x": (12,)}, g("MatMul", y, g.weight(15, 4)))


def _scan(path: Path) -> Made:
    """A Scan: a hand-written recurrent cell over the first axis."""
    g = Sketch(17, 8)
    w, u = g.weight(5, 6), g.weight(6, 6)

    def body() -> list[Any]:
        h = g("Tanh", g("Add", g("MatMul", "step", w), g("MatMul", "h", u)))
        return [(h, FLOAT, ["N", 6]), (g("Identity", h), FLOAT, ["N", 6])]

    graph = g.branch(body, [info("h", ["N", 6]), info("step", ["N", 5])])
    x = g("Transpose", "x", perm=[1, 0, 2])
    rows = g("Slice", g("Shape", "x"), g.const([0]), g.const([1]))
    zeros = g("ConstantOfShape", g("Concat", rows, g.const([6]), axis=0))
    last, every = g("Scan", zeros, x, n=2, body=graph, num_scan_inputs=1)
    y = g("Add", last, g("ReduceMax", every, axes=[0], keepdims=0))
    return g.save(path, {"x": (7, 5)}, g("MatMul", y, g.weight(6, 4)))


def _functions(nested: bool, path: Path) -> Made:
    """Local functions with attributes, called twice with other weights; one calls another."""
    g = Sketch(17, 9)
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    leaky = helper.make_node("LeakyRelu", ["z"], ["y"])
    leaky.attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    dense = helper.make_function(
        "own", "Dense", ["x", "w", "b"], ["y"],
        [
            helper.make_node("MatMul", ["x", "w"], ["p"]),
            helper.make_node("Add", ["p", "b"], ["z"]),
            leaky,
        ],
        opset, ["slope"],
    )  # fmt: skip
    block = helper.make_function(
        "own", "Block", ["x", "w", "b"], ["y"],
        [
            helper.make_node("Dense", ["x", "w", "b"], ["h"], domain="own", slope=0.3),
            helper.make_node("Constant", [], ["c"], value_floats=[0.5]),
            helper.make_node("Mul", ["h", "c"], ["m"]),
            helper.make_node("Add", ["x", "m"], ["y"]),
        ],
        opset, [],
    )  # fmt: skip
    g.functions, g.domains = [dense, block], {"own": 1}
    x = "x"
    for _ in range(2):
        weights = [g.weight(12, 12), g.weight(12)]
        if nested:
            x = g("Block", x, *weights, domain="own")
        else:
            x = g("Dense", x, *weights, domain="own", slope=0.2)
    return g.save(path, {"x": (12,)}, g("MatMul", x, g.weight(12, 4)))


def _script(path: Path) -> Made:
    """onnxscript's own functions, kept as local functions by to_model_proto."""
    from corpus.scripted import network

    model = network.to_model_proto()
    rng = np.random.default_rng(10)
    for entry, shape in zip(list(model.graph.input)[1:], ((12, 12), (12,), (12, 4)), strict=True):
        values = (rng.normal(size=shape) * 0.4).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, entry.name))
        model.graph.input.remove(entry)
    onnx.save(model, path)
    return Made({"x": rng.normal(size=(ROWS, 12)).astype(np.float32)}, None)


def recipes() -> list[Recipe]:
    """Return every recipe of this module."""
    forms: list[tuple[str, int, Callable[[Path], Made], tuple[str, ...]]] = [
        *((f"old_cnn@opset{n}", n, partial(_old_cnn, n), ()) for n in (7, 8, 9)),
        *((f"old_mlp@opset{n}", n, partial(_old_mlp, n), ()) for n in (7, 8, 9)),
        *(
            (f"old_{op.lower()}@opset{n}", n, partial(_old_rnn, op, n), ())
            for op, n in (("LSTM", 7), ("GRU", 7), ("RNN", 8), ("LSTM", 9))
        ),
        *((f"channels_last@opset{n}", n, partial(_channels_last, n), ()) for n in (11, 13, 17)),
        ("tied", 13, _tied, ()),
        ("constants", 13, _constants, ()),
        ("if", 17, _if, ()),
        ("loop", 17, _loop, ()),
        ("scan", 17, _scan, ()),
        ("functions", 17, partial(_functions, False), ()),
        ("functions_nested", 17, partial(_functions, True), ()),
        ("functions_onnxscript", 18, _script, ("onnxscript",)),
        ("unusual_pooling", 18, rare.unusual_pooling, ()),
        ("spatial_transformer", 20, rare.grid, ()),
        ("audio", 17, rare.audio, ()),
        ("indexing", 18, rare.indexing, ()),
        ("sequences", 17, rare.sequences, ()),
        ("elementwise", 18, rare.optional_maths, ()),
        *((f"resizing@opset{n}", n, partial(rare.resizing, n), ()) for n in (11, 13, 19)),
        ("new_operators", 24, rare.new_operators, ()),
        ("volume", 13, rare.volume, ()),
        ("classical", 17, rare.classical, ()),
        ("backwards", 17, rare.backwards, ()),
    ]
    return [
        Recipe(f"hand/{name}", "onnxscript" if needs else "by hand", opset, make, needs)
        for name, opset, make, needs in forms
    ]
