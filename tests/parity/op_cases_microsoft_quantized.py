# SPDX-License-Identifier: Apache-2.0
"""One-node models of the quantised operators of com.microsoft."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import RNG, Case, Maker, f
from op_cases_quantization import dequantize, qlinear_conv, quantize, whole, zero_point

DOMAIN = "com.microsoft"
KINDS = (np.uint8, np.int8)


def case(op_type: str, inputs: list[Any], outputs: int = 1, **attributes: Any) -> Case:
    return Case(op_type, 1, inputs, attributes, outputs, DOMAIN)


def scales(count: int) -> Iterator[list[Any]]:
    """Yield scales that differ, and ones whose quotients make halves."""
    yield [np.float32(x) for x in RNG.uniform(0.005, 0.05, count)]
    yield [np.float32(x) for x in (0.125, 0.125, 0.25)[-count:]]


def moved(maker: Maker) -> Maker:
    """Return the cases of an ONNX operator, 16 bits included, in the other domain."""

    def cases(op_type: str, opset: int) -> Iterator[Case]:
        for one in maker(op_type, 21):
            if one.attributes.keys() <= {"axis"}:
                yield case(op_type, one.inputs, **one.attributes)

    return cases


def binary(op_type: str, opset: int) -> Iterator[Case]:
    shapes = (((4, 5, 6), (4, 5, 6)), ((4, 5, 6), ()), ((), (6,)), ((4, 5, 6), (5, 1)))
    for kind, (a, b) in itertools.product(KINDS, shapes):
        for first, second, last in scales(3):
            zeros = [whole(kind) for _ in range(3)]
            last = last * 50 if op_type == "QLinearMul" else last
            inputs = [whole(kind, *a), first, zeros[0], whole(kind, *b), second, zeros[1], last]
            yield case(op_type, [*inputs, zeros[2]])


def drawn(rng: np.random.Generator, kind: Any, *shape: int) -> Any:
    """Return integers that are the same in every run.

    In one of some 100 000 numbers the last bit of a sigmoid or of an exponential decides between
    two steps; which numbers do is not to depend on the order of the tests.
    """
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, kind, endpoint=True)


def unary(op_type: str, opset: int) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        every = np.arange(256).astype(kind).reshape(4, 64)
        for first, last in ((0.031, 0.0147), (0.25, 0.5), (0.2, 1 / 256), (0.05, 0.0043)):
            zeros = [drawn(rng, kind), drawn(rng, kind)]
            inputs = [every, np.float32(first), zeros[0], np.float32(last), zeros[1]]
            yield case(op_type, inputs)
            if op_type == "QLinearLeakyRelu":
                yield case(op_type, inputs, alpha=0.2)


def softmax(op_type: str, opset: int) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        least = np.array(np.iinfo(kind).min, kind)
        for first, last in ((0.1, 1 / 256), (0.02, 0.0037), (0.4, 0.01)):
            for axis, since in ((-1, 13), (1, 13), (1, 12)):
                data = [drawn(rng, kind, 3, 4, 6), np.float32(first), drawn(rng, kind)]
                inputs = [*data, np.float32(last), least]
                yield case(op_type, inputs, axis=axis, opset=since)


def pooling(op_type: str, opset: int) -> Iterator[Case]:
    ways: list[dict[str, Any]] = [
        {},
        {"pads": [1, 1, 1, 1], "count_include_pad": 1},
        {"pads": [1, 0, 1, 1]},
        {"strides": [2, 2], "ceil_mode": 1},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ]
    around = op_type == "QLinearGlobalAveragePool"
    for kind, last in itertools.product(KINDS, (0, 1)):
        data = whole(kind, 2, 8, 8, 3) if last else whole(kind, 2, 3, 8, 8)
        for first, second in scales(2):
            inputs = [data, first, whole(kind), second, whole(kind)]
            for way in [{}] if around else ways:
                kernel = {} if around else {"kernel_shape": [2, 3]}
                yield case(op_type, inputs, channels_last=last, **kernel, **way)


def max_pooling(op_type: str, opset: int) -> Iterator[Case]:
    for kind in KINDS:
        data = whole(kind, 2, 7, 8, 3)
        yield case(op_type, [data], kernel_shape=[2, 3])
        yield case(op_type, [data], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


def concat(op_type: str, opset: int) -> Iterator[Case]:
    for kind in KINDS:
        for first, second, last in scales(3):
            parts = [whole(kind, 2, 3, 8), first, whole(kind), whole(kind, 2, 5, 8), second]
            yield case(op_type, [last, whole(kind), *parts, whole(kind)], axis=1)


def where(op_type: str, opset: int) -> Iterator[Case]:
    for kind in KINDS:
        for first, second, last in scales(3):
            left = [whole(kind, 4, 16), first, whole(kind)]
            right = [whole(kind, 16), second, whole(kind), last, whole(kind)]
            yield case(op_type, [f(4, 16) > 0, *left, *right])


def channels_last(op_type: str, opset: int) -> Iterator[Case]:
    for one in qlinear_conv(op_type, 10):
        first = np.ascontiguousarray(np.moveaxis(one.inputs[0], 1, -1))
        yield case(op_type, [first, *one.inputs[1:]], channels_last=1, **one.attributes)


def gemm(op_type: str, opset: int) -> Iterator[Case]:
    for a_kind, b_kind in ((np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)):
        for depth in (30, 900):
            a, b = whole(a_kind, 9, depth), whole(b_kind, depth, 11)
            left = [a, np.float32(0.02), zero_point(a_kind), b]
            bias = RNG.integers(-20000, 20000, 11, np.int32)
            out = [np.float32(0.9), zero_point(a_kind)]
            one, zero = np.float32(0.013), zero_point(b_kind)
            yield case(op_type, [*left, one, zero, bias, *out])
            yield case(op_type, [*left, one, zero, bias])
            yield case(op_type, [*left, one, zero, None, *out], alpha=0.7)
            many, zeros = np.abs(f(11)) / 50, np.full(11, zero, b_kind)
            yield case(op_type, [*left, many, zeros, bias, *out], alpha=0.7)
            turned = [a.T.copy(), *left[1:3], b.T.copy(), one, zero, bias, *out]
            yield case(op_type, turned, transA=1, transB=1)


def to_float(op_type: str, opset: int) -> Iterator[Case]:
    for kind in KINDS:
        b = whole(kind, 30, 6)
        many, zeros = np.abs(f(6)) / 50, whole(kind, 6)
        for scale, zero in ((np.float32(0.01), whole(kind)), (many, zeros)):
            if op_type == "DynamicQuantizeMatMul":
                yield case(op_type, [f(2, 5, 30), b, scale, zero])
                yield case(op_type, [f(5, 30), b, scale, None, f(6)])
            else:
                a = [whole(np.uint8, 2, 5, 30), b, np.float32(0.02), scale]
                yield case(op_type, [*a, np.uint8(117), zero])
                yield case(op_type, [*a, None, None, f(6)])
                yield case(op_type, [*a, np.uint8(117), zero, f(6)])


def embed(op_type: str, opset: int) -> Iterator[Case]:
    ids = RNG.integers(0, 9, (2, 5), np.int32)
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], np.int32)
    for kind in KINDS:
        tables = [whole(kind, 9, 8), whole(kind, 7, 8)]
        norm = [whole(kind, 8), whole(kind, 8)]
        one = [np.float32(x) for x in RNG.uniform(0.005, 0.05, 5)]
        zeros = [whole(kind) for _ in range(5)]
        both = [ids, ids % 2, *tables, whole(kind, 2, 8), *norm]
        yield case(op_type, [*both, None, *one, *zeros], 2)
        yield case(op_type, [*both, mask, *one, *zeros], 2, epsilon=1e-3)
        alone = [ids, None, *tables, None, *norm, mask, *one[:2], None, *one[3:]]
        yield case(op_type, [*alone, *zeros[:2], None, *zeros[3:]], 2)


MAKERS: dict[Maker, list[str]] = {
    moved(quantize): ["QuantizeLinear"],
    moved(dequantize): ["DequantizeLinear"],
    binary: ["QLinearAdd", "QLinearMul"],
    unary: ["QLinearLeakyRelu", "QLinearSigmoid"],
    softmax: ["QLinearSoftmax"],
    pooling: ["QLinearAveragePool", "QLinearGlobalAveragePool"],
    max_pooling: ["NhwcMaxPool"],
    concat: ["QLinearConcat"],
    where: ["QLinearWhere"],
    channels_last: ["QLinearConv"],
    gemm: ["QGemm"],
    to_float: ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"],
    embed: ["QEmbedLayerNormalization"],
}
