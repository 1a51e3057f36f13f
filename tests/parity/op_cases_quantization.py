# SPDX-License-Identifier: Apache-2.0
"""One-node models of the quantised operators of ONNX."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import RNG, Case, Maker, f, f32

Array = np.ndarray[Any, np.dtype[Any]]


def whole(dtype: Any, *shape: int) -> Array:
    """Return integers over the whole range of a type."""
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)


def zero_point(dtype: Any) -> Array:
    return np.array(np.iinfo(dtype).min + 121, dtype)


def quantize(op_type: str, opset: int) -> Iterator[Case]:
    types = (np.int8, np.uint8, np.int16, np.uint16) if opset >= 21 else (np.int8, np.uint8)
    data = f(2, 3, 4) * 40
    data[0, 0] = [0.5, 1.5, -0.5, 2.5]  # halves go to the even side
    yield Case(op_type, opset, [data, np.float32(1)])
    for dtype in types:
        yield Case(op_type, opset, [data, np.float32(1), zero_point(dtype)])
        yield Case(op_type, opset, [data, np.float32(0.037), zero_point(dtype)])
        if opset >= 13:
            zeros = np.stack([zero_point(dtype)] * 4)
            yield Case(op_type, opset, [data, f32(0.1, 0.7, 1, 3), zeros], {"axis": -1})
        if opset >= 21:
            scales = np.abs(f(2, 2, 4)) + np.float32(0.1)
            zeros = whole(dtype, 2, 2, 4)
            yield Case(op_type, opset, [data, scales, zeros], {"block_size": 2})
    if opset >= 19:
        half = data.astype(np.float16)
        yield Case(op_type, opset, [half, np.float16(0.37), zero_point(np.uint8)])
    if opset >= 21:
        yield Case(op_type, opset, [data, np.float32(0.3)], {"output_dtype": 3})


def dequantize(op_type: str, opset: int) -> Iterator[Case]:
    types = (np.int8, np.uint8, np.int16, np.uint16) if opset >= 21 else (np.int8, np.uint8)
    yield Case(op_type, opset, [whole(np.int32, 2, 3), np.float32(1e-6)])
    for dtype in types:
        data = whole(dtype, 2, 3, 4)
        yield Case(op_type, opset, [data, np.float32(0.037)])
        yield Case(op_type, opset, [data, np.float32(0.037), zero_point(dtype)])
        if opset >= 13:
            zeros = whole(dtype, 3)
            yield Case(op_type, opset, [data, f32(0.1, 0.7, 1), zeros], {"axis": 1})
        if opset >= 19:
            yield Case(op_type, opset, [data, np.float16(0.0037), zero_point(dtype)])
        if opset >= 21:
            scales = np.abs(f(2, 2, 4)) + np.float32(0.1)
            yield Case(op_type, opset, [data, scales, whole(dtype, 2, 2, 4)], {"block_size": 2})


def dynamic(op_type: str, opset: int) -> Iterator[Case]:
    for data in (f(3, 5), np.abs(f(3, 5)) + 1, -np.abs(f(7)), np.zeros((2, 2), np.float32)):
        yield Case(op_type, opset, [data], outputs=3)


WAYS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 0, 2, 1], "strides": [2, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
]


def conv_integer(op_type: str, opset: int) -> Iterator[Case]:
    for way in WAYS:
        x, w = whole(np.uint8, 1, 4, 7, 6), whole(np.uint8, 6, 4, 3, 3)
        yield Case(op_type, opset, [x, w, np.uint8(117)], way)
        yield Case(op_type, opset, [x, w, np.uint8(3), np.uint8(201)], way)


def qlinear_conv(op_type: str, opset: int) -> Iterator[Case]:
    kinds = ((np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8))
    for (x_type, w_type), way in itertools.product(kinds, WAYS):
        x, w = whole(x_type, 1, 4, 7, 6), whole(w_type, 6, 4, 3, 3)
        first = [x, np.float32(0.02), zero_point(x_type), w]
        last = [np.float32(0.9), zero_point(x_type)]
        bias = RNG.integers(-90000, 90000, 6, np.int32)
        zero = np.array(0 if w_type == np.int8 else 127, w_type)
        yield Case(op_type, opset, [*first, np.float32(0.011), zero, *last], way)
        yield Case(op_type, opset, [*first, np.float32(0.011), zero, *last, bias], way)
        scales, zeros = np.abs(f(6)) / 50, np.full(6, zero, w_type)
        yield Case(op_type, opset, [*first, scales, zeros, *last, bias], way)
    deep = [
        whole(np.uint8, 2, 64, 5, 5),
        np.float32(0.02),
        np.uint8(3),
        whole(np.int8, 8, 64, 3, 3),
    ]
    rest = [np.float32(0.011), np.int8(0), np.float32(3.1), np.uint8(100)]
    yield Case(op_type, opset, [*deep, *rest])
    by_group = [
        whole(np.uint8, 2, 6, 5, 5),
        np.float32(0.02),
        np.uint8(3),
        whole(np.int8, 6, 1, 3, 3),
    ]
    yield Case(op_type, opset, [*by_group, *rest], {"group": 6, "pads": [1, 1, 1, 1]})


def matmul_integer(op_type: str, opset: int) -> Iterator[Case]:
    a, b = whole(np.uint8, 2, 5, 40), whole(np.int8, 40, 6)
    yield Case(op_type, opset, [a, b])
    yield Case(op_type, opset, [a, b, np.uint8(100)])
    yield Case(op_type, opset, [a, b, np.uint8(100), np.int8(-3)])
    yield Case(op_type, opset, [a, b, np.uint8(100), whole(np.int8, 6)])
    yield Case(op_type, opset, [whole(np.uint8, 3, 700), whole(np.uint8, 700, 4), np.uint8(255)])


def qlinear_matmul(op_type: str, opset: int) -> Iterator[Case]:
    for a_type, b_type in ((np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)):
        for shape in ((5, 40), (2, 5, 40), (3, 700)):
            a, b = whole(a_type, *shape), whole(b_type, shape[-1], 6)
            left = [a, np.float32(0.02), zero_point(a_type), b]
            last = [np.float32(0.9), zero_point(a_type)]
            yield Case(op_type, opset, [*left, np.float32(0.011), zero_point(b_type), *last])
            scales, zeros = np.abs(f(6)) / 50, np.zeros(6, b_type)
            yield Case(op_type, opset, [*left, scales, zeros, *last])


MAKERS: dict[Maker, list[str]] = {
    quantize: ["QuantizeLinear"],
    dequantize: ["DequantizeLinear"],
    dynamic: ["DynamicQuantizeLinear"],
    conv_integer: ["ConvInteger"],
    qlinear_conv: ["QLinearConv"],
    matmul_integer: ["MatMulInteger"],
    qlinear_matmul: ["QLinearMatMul"],
}
