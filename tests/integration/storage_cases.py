# SPDX-License-Identifier: Apache-2.0
"""A small model for every way in which a file may keep a weight, for test_storage.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import torch
from builders import (
    DOUBLE_STORAGE,
    FLOAT_STORAGE,
    INTEGER_STORAGE,
    dense,
    info,
    model_bytes,
    sparse_model,
    tensor,
)
from onnx import TensorProto, helper, numpy_helper

CPU = torch.device("cpu")
make = helper.make_node
ROWS, IN, OUT = 5, 4, 3
W_AT = 7
"""The element that is edited where nothing else is said: row 2, column 1 of W (4, 3)."""


@dataclass(frozen=True)
class Case:
    """A model, the constant that is edited, and how far onnxruntime may be from our result.

    Attributes:
        build: gives the file, or writes it (and its data) into a folder and gives the path.
        param: name of the leaf.
        value: what the element becomes.
        at: its flat position.
        tolerance: relative; 0 for bit-equal.
        dtype: of the input x.
        fixed: whether the stored element keeps its width.
    """

    build: Callable[[Path, np.random.Generator], bytes | Path]
    param: str = "w"
    value: float = 2.25
    at: int = W_AT
    tolerance: float = 1e-5
    dtype: type = np.float32
    fixed: bool = True


def normal(rng: np.random.Generator, *shape: int, dtype: type = np.float32) -> np.ndarray:
    return rng.normal(size=shape).astype(dtype)


def whole(rng: np.random.Generator, dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    low, high = (0, 256) if limits.min == 0 else (-128, 128)
    return rng.integers(low, high, shape).astype(dtype)


def network(
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[bytes] = (),
    *,
    x: int = TensorProto.FLOAT,
    y: int = TensorProto.FLOAT,
    opset: int = 17,
) -> bytes:
    inputs, outputs = [info("x", ["N", IN], x)], [info("y", ["N", None], y)]
    return model_bytes(nodes, tensors, inputs, outputs, opset=opset)


def plain(dtype: type, storage: str) -> Callable[[Path, np.random.Generator], bytes]:
    def build(_: Path, rng: np.random.Generator) -> bytes:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        weight = tensor("w", normal(rng, IN, OUT, dtype=dtype), storage)
        return network([make("MatMul", ["x", "w"], ["y"], "n")], [weight], x=kind, y=kind)

    return build


def cast(dtype: type, storage: str) -> Callable[[Path, np.random.Generator], bytes]:
    """The weight is cast to float32 first: onnxruntime multiplies no bfloat16 on a CPU."""

    def build(_: Path, rng: np.random.Generator) -> bytes:
        weight = tensor("w", normal(rng, IN, OUT, dtype=dtype), storage)
        nodes = [
            make("Cast", ["w"], ["wide"], "c", to=TensorProto.FLOAT),
            make("MatMul", ["x", "wide"], ["y"], "n"),
        ]
        return network(nodes, [weight])

    return build


def constant(kind: str) -> Callable[[Path, np.random.Generator], bytes]:
    def build(_: Path, rng: np.random.Generator) -> bytes:
        weight = tensor("v", normal(rng, IN, OUT))
        value: object = {
            "value": numpy_helper.from_array(normal(rng, OUT), "inner"),
            "value_float": 1.5,
            "value_floats": normal(rng, OUT).tolist(),
        }[kind]
        nodes = [
            make("Constant", [], ["w"], "c", **{kind: value}),
            make("MatMul", ["x", "v"], ["h"], "n"),
            make("Mul", ["h", "w"], ["y"], "m"),
        ]
        return network(nodes, [weight])

    return build


def sparse_constant(_: Path, rng: np.random.Generator) -> bytes:
    proto = onnx.ModelProto.FromString(sparse_model([1, 4, W_AT], (IN, OUT)))
    sparse = proto.graph.sparse_initializer[0]
    node = make("Constant", [], ["w"], "c", sparse_value=sparse)
    return network([node, make("MatMul", ["x", "w"], ["y"], "n")])


def external(files: int) -> Callable[[Path, np.random.Generator], Path]:
    def build(folder: Path, rng: np.random.Generator) -> Path:
        proto = onnx.ModelProto.FromString(dense(normal(rng, IN, OUT), normal(rng, OUT)))
        onnx.save(
            proto,
            folder / "external.onnx",
            save_as_external_data=True,
            all_tensors_to_one_file=files == 1,
            location="weights.bin" if files == 1 else None,
            size_threshold=0,
        )
        return folder / "external.onnx"

    return build


def sparse(*, coordinates: bool) -> Callable[[Path, np.random.Generator], bytes]:
    return lambda _, rng: sparse_model([1, 4, W_AT, 9], (IN, OUT), coordinates=coordinates)


def tied(_: Path, rng: np.random.Generator) -> bytes:
    nodes = [
        make("MatMul", ["x", "w"], ["h"], "n1"),
        make("Relu", ["h"], ["r"], "n2"),
        make("MatMul", ["r", "w"], ["y"], "n3"),
    ]
    return network(nodes, [tensor("w", normal(rng, IN, IN))])


def transposed(_: Path, rng: np.random.Generator) -> bytes:
    nodes = [
        make("Transpose", ["w"], ["t"], "t", perm=[1, 0]),
        make("MatMul", ["x", "w"], ["h"], "n1"),
        make("Tanh", ["h"], ["r"], "n2"),
        make("MatMul", ["r", "t"], ["y"], "n3"),
    ]
    return network(nodes, [tensor("w", normal(rng, IN, OUT))])


def weight_norm(_: Path, rng: np.random.Generator) -> bytes:
    nodes = [
        make("ReduceL2", ["v"], ["norm"], "n1", axes=[0], keepdims=1),
        make("Mul", ["v", "g"], ["scaled"], "n2"),
        make("Div", ["scaled", "norm"], ["w"], "n3"),
        make("MatMul", ["x", "w"], ["y"], "n4"),
    ]
    return network(nodes, [tensor("v", normal(rng, IN, OUT)), tensor("g", normal(rng, 1, OUT))])


def branch(_: Path, rng: np.random.Generator) -> bytes:
    """Both branches keep a weight of the same name; x is what takes the first one."""

    def body(name: str) -> onnx.GraphProto:
        weight = numpy_helper.from_array(normal(rng, IN, OUT), "w")
        node = make("MatMul", ["x", "w"], [f"{name}_y"], f"{name}_n")
        return helper.make_graph([node], name, [], [info(f"{name}_y", ["N", OUT])], [weight])

    nodes = [
        make("ReduceMax", ["x"], ["top"], "n1", keepdims=0),
        make("Less", ["top", "limit"], ["c"], "n2"),
        make("If", ["c"], ["y"], "n3", then_branch=body("a"), else_branch=body("b")),
    ]
    return network(nodes, [tensor("limit", np.array(100, np.float32))])


def loop(_: Path, rng: np.random.Generator) -> bytes:
    """Three turns through a body that keeps a weight."""
    body = helper.make_graph(
        [
            make("Identity", ["going"], ["go_on"], "i"),
            make("MatMul", ["state", "w"], ["h"], "m"),
            make("Tanh", ["h"], ["next"], "t"),
        ],
        "body",
        [
            info("turn", [], TensorProto.INT64),
            info("going", [], TensorProto.BOOL),
            info("state", ["N", IN]),
        ],
        [info("go_on", [], TensorProto.BOOL), info("next", ["N", IN])],
        [numpy_helper.from_array(normal(rng, IN, IN), "w")],
    )
    node = make("Loop", ["turns", "", "x"], ["y"], "loop", body=body)
    return network([node], [tensor("turns", np.array(3))])


def coded_in_branch(dtype: type, undo: str) -> Callable[[Path, np.random.Generator], bytes]:
    """A weight in int32_data, seven messages deep: an edit changes all their lengths."""

    def build(_: Path, rng: np.random.Generator) -> bytes:
        values = normal(rng, IN, OUT) * (50 if dtype == np.int8 else 1)
        weight = TensorProto.FromString(tensor("w", values.astype(dtype), "packed"))

        def body(name: str) -> onnx.GraphProto:
            nodes = [
                make("Constant", [], [f"{name}_w"], f"{name}_c", value=weight),
                make(undo, [f"{name}_w", *extra], [f"{name}_d"], f"{name}_u", **attributes),
                make("MatMul", ["x", f"{name}_d"], [f"{name}_y"], f"{name}_n"),
            ]
            return helper.make_graph(nodes, name, [], [info(f"{name}_y", ["N", OUT])])

        extra, attributes = ([], {"to": 1}) if undo == "Cast" else (["scale"], {})
        nodes = [
            make("ReduceMax", ["x"], ["top"], "n1", keepdims=0),
            make("Less", ["top", "limit"], ["c"], "n2"),
            make("If", ["c"], ["y"], "n3", then_branch=body("a"), else_branch=body("b")),
        ]
        scalars = {"limit": 100, "scale": 0.01}
        return network(nodes, [tensor(n, np.array(v, np.float32)) for n, v in scalars.items()])

    return build


def convolution(storage: str) -> Callable[[Path, np.random.Generator], bytes]:
    """QDQ as quantisation tools write it: x, the weight and the bias dequantised before Conv."""

    def build(_: Path, rng: np.random.Generator) -> bytes:
        scales = rng.uniform(0.005, 0.02, OUT).astype(np.float32)
        nodes = [
            make("Reshape", ["x", "shape"], ["image"], "r"),
            make("DequantizeLinear", ["w", "scales", "zeros"], ["d"], "dq", axis=0),
            make("DequantizeLinear", ["b", "bias_scales"], ["bias"], "dqb", axis=0),
            make("Conv", ["image", "d", "bias"], ["h"], "conv"),
            make("Flatten", ["h"], ["y"], "f"),
        ]
        tensors = [
            tensor("shape", np.array([-1, 1, 2, 2])),
            tensor("w", whole(rng, np.int8, OUT, 1, 2, 2), storage),
            tensor("scales", scales),
            tensor("zeros", np.zeros(OUT, np.int8)),
            tensor("b", rng.integers(-500, 500, OUT).astype(np.int32), storage),
            tensor("bias_scales", scales * np.float32(0.1)),
        ]
        return network(nodes, tensors)

    return build


def function(_: Path, rng: np.random.Generator, *, by_attribute: bool = False) -> bytes:
    """A function with a weight in its body, called twice, or given it by each call."""
    weights = [numpy_helper.from_array(normal(rng, IN, IN), "inner") for _ in range(2)]
    held = make("Constant", [], ["w"], "c", value=weights[0])
    if by_attribute:
        held.attribute[0].CopyFrom(
            onnx.AttributeProto(name="value", type=TensorProto.UINT8, ref_attr_name="weight")
        )
        held.attribute[0].type = onnx.AttributeProto.TENSOR
    body = [held, make("MatMul", ["a", "w"], ["h"], "m"), make("Tanh", ["h"], ["b"], "t")]
    imports = [helper.make_opsetid("", 17)]
    attributes = ["weight"] if by_attribute else []
    twice = helper.make_function("local", "Twice", ["a"], ["b"], body, imports, attributes)
    given = [{"weight": weight} if by_attribute else {} for weight in weights]
    nodes = [
        make("Twice", ["x"], ["z"], "first", domain="local", **given[0]),
        make("Twice", ["z"], ["y"], "second", domain="local", **given[1]),
    ]
    proto = onnx.ModelProto.FromString(
        model_bytes(nodes, [], [info("x", ["N", IN])], [info("y", ["N", IN])], domains=["local"])
    )
    proto.functions.append(twice)
    return proto.SerializeToString()


def given_weight(folder: Path, rng: np.random.Generator) -> bytes:
    return function(folder, rng, by_attribute=True)


def dequantised(
    dtype: type, storage: str, zero: int = 0, *, per_channel: bool = False, opset: int = 17
) -> Callable[[Path, np.random.Generator], bytes]:
    def build(_: Path, rng: np.random.Generator) -> bytes:
        count = (OUT,) if per_channel else ()
        scale = rng.uniform(0.005, 0.02, count).astype(np.float32)
        nodes = [
            make("DequantizeLinear", ["w", "scale", "zero"], ["d"], "dq", axis=1),
            make("MatMul", ["x", "d"], ["y"], "n"),
        ]
        tensors = [
            tensor("w", whole(rng, dtype, IN, OUT), storage),
            tensor("scale", scale),
            tensor("zero", np.full(count, zero, dtype)),
        ]
        return network(nodes, tensors, opset=opset)

    return build


def qlinear(weight_type: type) -> Callable[[Path, np.random.Generator], bytes]:
    def build(_: Path, rng: np.random.Generator) -> bytes:
        inputs = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
        scalars: dict[str, object] = {
            "xs": np.float32(0.02),
            "xz": np.uint8(120),
            "ws": np.float32(0.01),
            "wz": weight_type(3),
            "ys": np.float32(0.05),
            "yz": np.uint8(128),
        }
        tensors = [tensor(n, np.array(v)) for n, v in scalars.items()]
        tensors.append(tensor("w", whole(rng, weight_type, IN, OUT)))
        kind = TensorProto.UINT8
        return network([make("QLinearMatMul", inputs, ["y"], "n")], tensors, x=kind, y=kind)

    return build


def integer_product(_: Path, rng: np.random.Generator) -> bytes:
    tensors = [tensor("w", whole(rng, np.int8, IN, OUT)), tensor("xz", np.array(7, np.uint8))]
    node = make("MatMulInteger", ["x", "w", "xz"], ["y"], "n")
    return network([node], tensors, x=TensorProto.UINT8, y=TensorProto.INT32)


def bias(storage: str) -> Callable[[Path, np.random.Generator], bytes]:
    def build(_: Path, rng: np.random.Generator) -> bytes:
        nodes = [
            make("DequantizeLinear", ["b", "scale"], ["d"], "dq"),
            make("MatMul", ["x", "v"], ["h"], "n"),
            make("Add", ["h", "d"], ["y"], "a"),
        ]
        tensors = [
            tensor("b", rng.integers(-70_000, 70_000, OUT).astype(np.int32), storage),
            tensor("scale", np.array(1e-4, np.float32)),
            tensor("v", normal(rng, IN, OUT)),
        ]
        return network(nodes, tensors)

    return build


HALF = 3e-2
CASES = {
    **{f"float32 {s}": Case(plain(np.float32, s)) for s in FLOAT_STORAGE},
    **{
        f"double {s}": Case(plain(np.float64, s), tolerance=1e-9, dtype=np.float64)
        for s in DOUBLE_STORAGE
    },
    **{
        f"float16 {s}": Case(
            plain(np.float16, s), tolerance=HALF, dtype=np.float16, fixed=s == "raw"
        )
        for s in INTEGER_STORAGE
    },
    **{
        f"bfloat16 {s}": Case(cast(ml_dtypes.bfloat16, s), tolerance=HALF, fixed=s == "raw")
        for s in INTEGER_STORAGE
    },
    "Constant value": Case(constant("value"), at=1),
    "Constant value_float": Case(constant("value_float"), at=0),
    "Constant value_floats": Case(constant("value_floats"), at=2),
    "external data in one file": Case(external(1)),
    "external data in two files": Case(external(2)),
    "sparse flat": Case(sparse(coordinates=False)),
    "sparse COO": Case(sparse(coordinates=True)),
    "Constant sparse_value": Case(sparse_constant),
    "tied": Case(tied),
    "tied transposed": Case(transposed),
    "weight norm direction": Case(weight_norm, "v"),
    "weight norm length": Case(weight_norm, "g", at=1),
    "branch": Case(branch, "n3.then_branch/w"),
    "branch, Constant, coded float16": Case(
        coded_in_branch(np.float16, "Cast"), "a_w", value=0.0, fixed=False
    ),
    "loop": Case(loop),
    "function called twice": Case(function, "Twice/w"),
    "function given its weight": Case(given_weight, "second/w"),
    **{
        f"int8 {s}": Case(dequantised(np.int8, s), value=v, fixed=s == "raw")
        for s, v in zip(INTEGER_STORAGE, (-77, -77, 100, 3), strict=True)
    },
    **{
        f"uint8 with zero point {s}": Case(dequantised(np.uint8, s, 128), value=v, fixed=s == "raw")
        for s, v in zip(INTEGER_STORAGE, (254, 200, 1, 5), strict=True)
    },
    "int8 per channel": Case(dequantised(np.int8, "raw", per_channel=True), value=-77),
    "int8 per channel packed": Case(
        dequantised(np.int8, "packed", per_channel=True), value=-77, fixed=False
    ),
    "int8 Conv weight": Case(convolution("raw"), value=-77),
    "int8 Conv weight packed": Case(convolution("packed"), value=-77, fixed=False),
    "int32 Conv bias packed": Case(convolution("packed"), "b", value=-77, at=1, fixed=False),
    "int16": Case(dequantised(np.int16, "raw", opset=21), value=-7000),
    "int16 packed": Case(dequantised(np.int16, "packed", opset=21), value=-7000, fixed=False),
    "uint16": Case(dequantised(np.uint16, "raw", 300, opset=21), value=40_000),
    "QLinearMatMul int8": Case(qlinear(np.int8), value=99, tolerance=0, dtype=np.uint8),
    "QLinearMatMul uint8": Case(qlinear(np.uint8), value=199, tolerance=0, dtype=np.uint8),
    "MatMulInteger": Case(integer_product, value=-99, tolerance=0, dtype=np.uint8),
    "int32 bias": Case(bias("raw"), "b", value=-50_001, at=1),
    "int32 bias packed": Case(bias("packed"), "b", value=-50_001, at=1, fixed=False),
}
