# SPDX-License-Identifier: Apache-2.0
"""One-node models for every operator of the table, over its versions and attributes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper


@dataclass
class Case:
    op_type: str
    opset: int
    inputs: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    domain: str = ""

    def __str__(self) -> str:
        shapes = [None if x is None else np.shape(x) for x in self.inputs]
        return f"{self.op_type} at opset {self.opset} of {shapes} with {self.attributes}"

    def model(self) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
        feeds = {f"i{k}": np.asarray(x) for k, x in enumerate(self.inputs) if x is not None}
        names = [f"i{k}" if x is not None else "" for k, x in enumerate(self.inputs)]
        outputs = [f"o{k}" for k in range(self.outputs)]
        node = helper.make_node(self.op_type, names, outputs, domain=self.domain, **self.attributes)
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in feeds.items()
        ]
        graph = helper.make_graph(
            [node], "one", infos, [onnx.ValueInfoProto(name=name) for name in outputs]
        )
        opsets = [helper.make_opsetid("", self.opset)]
        if self.domain:
            # The opset of the other domain is always its first; the case's own is the default's.
            opsets = [helper.make_opsetid("", 17), helper.make_opsetid(self.domain, self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10), feeds


RNG = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def words(text: str) -> list[str]:
    return text.split()


def with_axes(op_type: str, opset: int, data: np.ndarray, axes: list[int], **rest: Any) -> Case:
    """Build a case whose axes are an attribute or an input, as the version wants."""
    moved = 13 if op_type in ("ReduceSum", "Squeeze", "Unsqueeze") else 18
    if opset >= moved:
        return Case(op_type, opset, [data, i64(*axes)], rest)
    return Case(op_type, opset, [data], {"axes": axes, **rest})


UNARY = words(
    """
    Abs Acos Asin Asinh Atan Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu GlobalAveragePool
    GlobalLpPool GlobalMaxPool HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu
    LpNormalization MeanVarianceNormalization Mish Neg Reciprocal Relu Round Selu Shape
    Shrink Sigmoid Sign Sin Sinh Size Softplus Softsign Swish Tan Tanh ThresholdedRelu
    Dropout
    """
)
BINARY = [
    "Add",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Mul",
    "PRelu",
    "Sub",
]
VARIADIC = ["Max", "Mean", "Min", "Sum"]
REDUCTIONS = words(
    """
    ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare ReduceLogSum
    """
)


def unary(op_type: str, opset: int) -> Iterator[Case]:
    data = f(2, 3, 4, 1)
    yield Case(op_type, opset, [np.tanh(data) if op_type in ("Acos", "Asin") else data])
    if op_type == "Gelu":
        yield Case(op_type, opset, [data], {"approximate": "tanh"})
    if op_type == "LpNormalization":
        yield Case(op_type, opset, [data], {"axis": 1, "p": 1})
    if op_type == "Shape" and opset >= 15:
        yield Case(op_type, opset, [data], {"start": -3, "end": -1})
    if op_type in ("Elu", "LeakyRelu", "ThresholdedRelu", "Celu", "HardSigmoid", "Selu"):
        yield Case(op_type, opset, [data], {"alpha": 0.3})


def positive(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [np.abs(f(2, 3)) + 1])


def atanh(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [np.tanh(f(2, 3)) * np.float32(0.9)])


def binary(op_type: str, opset: int) -> Iterator[Case]:
    if op_type != "Equal" or opset >= 11:
        yield Case(op_type, opset, [f(2, 3, 4, 5), f(4, 1)])
    if op_type in ("Div", "Add", "Mul", "Sub"):
        yield Case(op_type, opset, [i64(-7, 7, -8, 5), i64(2, -2, 3, 5)])
    if op_type == "Equal":
        yield Case(op_type, opset, [i64(1, 2, 3), i64(1, 0, 3)])
    if opset >= 13 and op_type != "PRelu":
        yield from unsigned(op_type, opset)


def unsigned(op_type: str, opset: int) -> Iterator[Case]:
    """Yield a case of 64-bit numbers, half of them past the largest that is signed."""
    numbers = RNG.integers(1, 2**64, (2, 40), np.uint64)
    numbers[:, ::2] >>= np.uint64(40)
    numbers[1, :10] = numbers[0, :10]
    yield Case(op_type, opset, list(numbers))


def variadic(op_type: str, opset: int) -> Iterator[Case]:
    other = f(4, 1) if opset >= 8 else f(2, 3, 4, 5)
    yield Case(op_type, opset, [f(2, 3, 4, 5), other, f(2, 3, 4, 5)])
    if op_type in ("Max", "Min") and opset >= 12:
        yield from unsigned(op_type, opset)


def logic(op_type: str, opset: int) -> Iterator[Case]:
    data = [f(2, 3) > 0] * (1 if op_type == "Not" else 2)
    yield Case(op_type, opset, data)


def mod(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [i64(-7, 7, -8, 5), i64(2, -2, 3, 5)])
    yield Case(op_type, opset, [f(2, 3) * 3, f(3)], {"fmod": 1})
    yield from unsigned(op_type, opset)


def pow_(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [np.abs(f(2, 3)), f(3)])
    if opset >= 12:
        yield Case(op_type, opset, [f(2, 3), i64(1, 2, 3)])


def clip(op_type: str, opset: int) -> Iterator[Case]:
    if opset < 11:
        yield Case(op_type, opset, [f(3, 4)], {"min": -0.5, "max": 0.3})
        return
    for low, high in ((-0.5, 0.3), (0.5, -0.3), (None, 0.3), (-0.5, None)):
        bounds = [None if b is None else np.float32(b) for b in (low, high)]
        yield Case(op_type, opset, [f(3, 4), *bounds])


def by_axis(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [f(2, 3, 4, 5)])
    for axis in (0, 2, 3, *((-1, -2) if opset >= 11 else ())):
        yield Case(op_type, opset, [f(2, 3, 4, 5)], {"axis": axis})
    if op_type.startswith("Arg") and opset >= 12:
        rounded = np.round(f(3, 9))
        yield Case(op_type, opset, [rounded], {"axis": 1, "select_last_index": 1})
        yield Case(op_type, opset, [rounded], {"axis": 1, "keepdims": 0})


def reduction(op_type: str, opset: int) -> Iterator[Case]:
    data = np.abs(f(2, 3, 4, 5)) + 0.1
    yield Case(op_type, opset, [data])
    for axes, keep in itertools.product([[1], [1, 3], *([[-1]] if opset >= 11 else [])], (0, 1)):
        yield with_axes(op_type, opset, data, axes, keepdims=keep)
    if opset >= (13 if op_type == "ReduceSum" else 18):
        yield Case(op_type, opset, [data], {"noop_with_empty_axes": 1})


def conv(op_type: str, opset: int) -> Iterator[Case]:
    for auto_pad, (k, s) in itertools.product(
        ("SAME_UPPER", "SAME_LOWER", "VALID"), ((2, 2), (3, 2), (1, 2), (4, 1), (2, 3))
    ):
        attributes = {"strides": [s, s], "auto_pad": auto_pad, "group": 2}
        yield Case(op_type, opset, [f(2, 4, 9, 10), f(6, 2, k, k), f(6)], attributes)
    for pads in ([1, 1, 1, 1], [0, 1, 2, 0]):
        attributes = {"pads": pads, "dilations": [2, 1], "strides": [1, 2]}
        yield Case(op_type, opset, [f(2, 4, 9, 10), f(6, 4, 3, 3)], attributes)
    yield Case(op_type, opset, [f(2, 4, 9), f(6, 4, 3), f(6)], {"pads": [1, 2]})
    yield Case(op_type, opset, [f(1, 2, 5, 6, 4), f(3, 2, 3, 3, 2), f(3)])


def conv_transpose(op_type: str, opset: int) -> Iterator[Case]:
    inputs = [f(1, 2, 4, 5), f(2, 3, 3, 3), f(3)]
    for pads, extra in itertools.product(([1, 1, 1, 1], [0, 1, 2, 0]), ([0, 0], [1, 1], [1, 0])):
        attributes = {"pads": pads, "strides": [2, 3], "output_padding": extra}
        yield Case(op_type, opset, inputs, {**attributes, "dilations": [1, 2]})
    kernels = (1, 2, 3, 4) if opset >= 11 else (1, 3)
    for auto_pad, k in itertools.product(("SAME_UPPER", "SAME_LOWER"), kernels):
        yield Case(op_type, opset, [f(1, 2, 4, 5), f(2, 3, k, k), f(3)], {"auto_pad": auto_pad})
    for wanted in ([9, 11], [7, 9], *([[8, 10]] if opset >= 11 else [])):
        for auto_pad in ("NOTSET", "SAME_UPPER", "SAME_LOWER"):
            attributes = {"output_shape": wanted, "strides": [2, 2], "auto_pad": auto_pad}
            yield Case(op_type, opset, inputs, attributes)
    grouped = [f(1, 4, 5), f(4, 3, 3), f(6)]
    yield Case(op_type, opset, grouped, {"group": 2, "strides": [2]})


def gemm(op_type: str, opset: int) -> Iterator[Case]:
    for a, b in itertools.product((0, 1), (0, 1)):
        pair = [f(4, 3) if a else f(3, 4), f(5, 4) if b else f(4, 5)]
        attributes = {"transA": a, "transB": b}
        yield Case(op_type, opset, [*pair, f(5)], {**attributes, "alpha": 0.5, "beta": 2.0})
        yield Case(op_type, opset, [*pair, f(3, 1)], attributes)
        if opset >= 11:
            yield Case(op_type, opset, pair, attributes)


def matmul(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [f(2, 1, 3, 4), f(5, 4, 2)])
    yield Case(op_type, opset, [f(4), f(5, 4, 2)])


def normalization(op_type: str, opset: int) -> Iterator[Case]:
    image = f(2, 6, 4, 5)
    if op_type == "BatchNormalization":
        statistics = [f(6), f(6), f(6), np.abs(f(6))]
        yield Case(op_type, opset, [image, *statistics], {"epsilon": 1e-3})
        if opset >= 14:
            attributes = {"training_mode": 1, "momentum": 0.7}
            yield Case(op_type, opset, [image, *statistics], attributes, 3)
    elif op_type == "InstanceNormalization":
        yield Case(op_type, opset, [image, f(6), f(6)])
    elif op_type == "GroupNormalization":
        n = 6 if opset >= 21 else 2
        yield Case(op_type, opset, [image, f(n), f(n)], {"num_groups": 2})
    elif op_type == "LRN":
        for size in (3, 5):  # onnxruntime takes odd sizes only
            yield Case(op_type, opset, [image], {"size": size, "alpha": 0.1, "bias": 2.0})
    elif op_type == "RMSNormalization":
        yield Case(op_type, opset, [f(2, 3, 4), f(4)])
        yield Case(op_type, opset, [f(2, 3, 4), f(3, 4)], {"axis": 1})
    else:
        yield Case(op_type, opset, [f(2, 3, 4), f(4), f(4)])
        yield Case(op_type, opset, [f(2, 3, 4), f(3, 4)], {"axis": 1}, 3)


def slice_(op_type: str, opset: int) -> Iterator[Case]:
    if opset < 10:
        attributes = {"starts": [1, -3], "ends": [100, -1], "axes": [0, 2]}
        yield Case(op_type, opset, [f(5, 6, 7)], attributes)
        return
    for starts, ends, axes, steps in (
        ([1, -3], [100, -1], [0, 2], [1, 1]),
        ([-1, 4], [-100, -(2**62)], [0, 1], [-1, -2]),
        ([0], [0], [1], [1]),
        ([3], [1], [2], [-1]),
        ([-100], [100], [-1], [3]),
    ):
        inputs = [f(5, 6, 7), i64(*starts), i64(*ends), i64(*axes), i64(*steps)]
        yield Case(op_type, opset, inputs)


def pad(op_type: str, opset: int) -> Iterator[Case]:
    pads, crop = [0, 1, 2, 3, 0, 2, 1, 0], [0, -1, 1, -2, 0, 1, -1, 0]
    for mode in ("constant", "reflect", "edge", *(["wrap"] if opset >= 19 else [])):
        data = f(1, 3, 4, 5)
        if opset < 11:
            yield Case(op_type, opset, [data], {"pads": pads, "mode": mode})
        else:
            yield Case(op_type, opset, [data, i64(*pads)], {"mode": mode})
        if opset >= 18:
            inputs = [data, i64(1, 2, 2, 1), None, i64(-1, 2)]
            yield Case(op_type, opset, inputs, {"mode": mode})
    if opset < 11:
        yield Case(op_type, opset, [f(1, 3, 4, 5)], {"pads": crop, "value": 1.5})
    else:
        yield Case(op_type, opset, [f(1, 3, 4, 5), i64(*crop), np.float32(1.5)])


def top_k(op_type: str, opset: int) -> Iterator[Case]:
    data = np.round(f(3, 9))
    if opset < 10:
        yield Case(op_type, opset, [data], {"k": 4}, 2)
        return
    yield Case(op_type, opset, [data, i64(4)], {}, 2)
    if opset >= 11:
        yield Case(op_type, opset, [data, i64(2)], {"largest": 0, "axis": 0}, 2)


def split(op_type: str, opset: int) -> Iterator[Case]:
    data = f(6, 4)
    if opset < 13:
        yield Case(op_type, opset, [data], {"split": [2, 4]}, 2)
    else:
        yield Case(op_type, opset, [data, i64(2, 4)], {}, 2)
    if opset < 18:
        yield Case(op_type, opset, [data], {"axis": 1}, 2)
    else:
        yield Case(op_type, opset, [f(4, 7)], {"axis": -1, "num_outputs": 3}, 3)


def gathering(op_type: str, opset: int) -> Iterator[Case]:
    indices = i64(0, 2, 1, 1).reshape(2, 2)
    if op_type == "Gather":
        yield Case(op_type, opset, [f(3, 4, 5), indices], {"axis": 1})
        yield Case(op_type, opset, [f(3, 4, 5), np.int64(1)], {"axis": 2})
        yield Case(op_type, opset, [f(3), np.int64(1)])
    elif op_type == "GatherElements":
        yield Case(op_type, opset, [f(3, 4), indices - 1], {"axis": 1})
    else:
        yield Case(op_type, opset, [f(3, 4, 5), indices - 1])
        if opset >= 12:
            inputs = [f(2, 4, 5), indices.reshape(2, 1, 2)]
            yield Case(op_type, opset, inputs, {"batch_dims": 1})


def scattering(op_type: str, opset: int) -> Iterator[Case]:
    single, double = i64(0, 1, 2, 3).reshape(2, 2), i64(0, 1, 0, 1).reshape(2, 2)
    updates = f(2) if op_type == "ScatterND" else f(2, 2)
    yield Case(op_type, opset, [f(4, 5), single, updates])
    yield Case(op_type, opset, [f(4, 5), single - 1, updates])
    reductions = ("add", "mul", "max", "min")[: 0 if opset < 16 else 2 if opset < 18 else 4]
    for way in reductions:
        yield Case(op_type, opset, [f(4, 5), double, updates], {"reduction": way})


def layout(op_type: str, opset: int) -> Iterator[Case]:
    if op_type == "Reshape":
        for shape in ([0, -1], [2, 0, 2, -1], [-1]):
            yield Case(op_type, opset, [f(2, 3, 4), i64(*shape)])
        if opset >= 14:
            yield Case(op_type, opset, [f(0, 3, 4), i64(3, 0, 7)], {"allowzero": 1})
    elif op_type == "Squeeze":
        yield Case(op_type, opset, [f(1, 3, 1, 5)])
        yield with_axes(op_type, opset, f(1, 3, 1, 5), [2])
    elif op_type == "Unsqueeze":
        yield with_axes(op_type, opset, f(3, 5), [0, 2])
    elif op_type == "Transpose":
        yield Case(op_type, opset, [f(2, 3, 4)])
        yield Case(op_type, opset, [f(2, 3, 4)], {"perm": [1, 2, 0]})
    elif op_type == "Concat":
        yield Case(op_type, opset, [f(2, 3), f(2, 4)], {"axis": 1})
    elif op_type == "Tile":
        yield Case(op_type, opset, [f(2, 3), i64(2, 3)])
    else:
        yield Case(op_type, opset, [f(2, 1, 3), i64(4, 1, 5, 1)])


def blocks(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [f(2, 8, 4, 6)], {"blocksize": 2})
    if op_type == "DepthToSpace" and opset >= 11:
        yield Case(op_type, opset, [f(2, 8, 3, 4)], {"blocksize": 2, "mode": "CRD"})


def making(op_type: str, opset: int) -> Iterator[Case]:
    if op_type == "Cast":
        for to in (6, 7, 9, 10, 11):
            yield Case(op_type, opset, [f(2, 3) * 5], {"to": to})
    elif op_type == "ConstantOfShape":
        value = helper.make_tensor("v", onnx.TensorProto.INT64, [1], [7])
        yield Case(op_type, opset, [i64(2, 3)])
        yield Case(op_type, opset, [i64(2, 3)], {"value": value})
    elif op_type == "EyeLike":
        yield Case(op_type, opset, [f(3, 4)], {"k": 1})
        yield Case(op_type, opset, [f(3, 4)], {"dtype": 7})
    elif op_type == "Range":
        yield Case(op_type, opset, [np.int64(10), np.int64(1), np.int64(-3)])
        yield Case(op_type, opset, [np.float32(0), np.float32(2), np.float32(0.3)])
    elif op_type == "CumSum":
        for exclusive, reverse in itertools.product((0, 1), (0, 1)):
            attributes = {"exclusive": exclusive, "reverse": reverse}
            yield Case(op_type, opset, [f(4, 5), np.int64(1)], attributes)
    elif op_type == "Trilu":
        yield Case(op_type, opset, [f(4, 5)])
        yield Case(op_type, opset, [f(4, 5), np.int64(-1)], {"upper": 0})
    elif op_type == "Where":
        yield Case(op_type, opset, [f(2, 3) > 0, f(3), f(2, 1)])
    else:
        inputs = [f(2, 3, 4), f(2, 4, 5)]
        yield Case(op_type, opset, inputs, {"equation": "bij, bjk -> bik"})


Maker = Callable[[str, int], Iterator[Case]]
MAKERS: dict[Maker, list[str]] = {
    unary: UNARY,
    positive: ["Acosh", "Log", "Sqrt"],
    atanh: ["Atanh"],
    binary: BINARY,
    variadic: VARIADIC,
    logic: ["And", "Not", "Or", "Xor"],
    mod: ["Mod"],
    pow_: ["Pow"],
    clip: ["Clip"],
    by_axis: ["Softmax", "LogSoftmax", "Hardmax", "Flatten", "ArgMax", "ArgMin"],
    reduction: REDUCTIONS,
    conv: ["Conv"],
    conv_transpose: ["ConvTranspose"],
    gemm: ["Gemm"],
    matmul: ["MatMul"],
    normalization: [
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "RMSNormalization",
    ],
    slice_: ["Slice"],
    pad: ["Pad"],
    top_k: ["TopK"],
    split: ["Split"],
    gathering: ["Gather", "GatherElements", "GatherND"],
    scattering: ["ScatterElements", "ScatterND"],
    layout: ["Concat", "Expand", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"],
    blocks: ["DepthToSpace", "SpaceToDepth"],
    making: ["Cast", "ConstantOfShape", "CumSum", "Einsum", "EyeLike", "Range", "Trilu", "Where"],
}
