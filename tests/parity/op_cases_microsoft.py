# SPDX-License-Identifier: Apache-2.0
"""One-node models of the operators of com.microsoft that compute with floats."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import RNG, Case, Maker, f

DOMAIN = "com.microsoft"


def case(op_type: str, inputs: list[Any], outputs: int = 1, **attributes: Any) -> Case:
    return Case(op_type, 1, inputs, attributes, outputs, DOMAIN)


def fused_conv(op_type: str, opset: int) -> Iterator[Case]:
    x, w, b = f(2, 3, 6, 5), f(4, 3, 3, 3), f(4)
    ways: list[dict[str, Any]] = [
        {},
        {"activation": "Clip", "activation_params": [-0.5, 1.5]},
        {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
        {"activation": "LeakyRelu", "activation_params": [0.2]},
        *({"activation": name} for name in ("HardSwish", "Relu", "Sigmoid", "Tanh")),
    ]
    for way in ways:
        yield case(op_type, [x, w, b], **way)
        yield case(op_type, [x, w], pads=[1, 0, 1, 2], strides=[2, 1], **way)
        yield case(op_type, [x, w, b, f(2, 4, 4, 3)], **way)
        yield case(op_type, [x, w, None, f(2, 4, 4, 3)], **way)
    yield case(op_type, [f(2, 4, 5, 5), f(4, 1, 3, 3), f(4)], group=4, auto_pad="SAME_UPPER")


def fused_gemm(op_type: str, opset: int) -> Iterator[Case]:
    numbers = {"activation_alpha": 0.3, "activation_beta": 0.7, "activation_gamma": 1.3}
    names = """Elu HardSigmoid LeakyRelu Relu ScaledTanh Selu Sigmoid Softplus Softsign Tanh
    ThresholdedRelu"""
    for name in names.split():
        yield case(op_type, [f(3, 4), f(4, 5), f(5)], activation=name, **numbers)
        inputs = [f(4, 3), f(5, 4), f(3, 5)]
        rest = {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}
        yield case(op_type, inputs, activation=name, **rest, **numbers)
    yield case(op_type, [f(3, 4), f(4, 5)], activation="Relu")


def fused_matmul(op_type: str, opset: int) -> Iterator[Case]:
    yield case(op_type, [f(2, 3, 4), f(4, 5)], alpha=0.3)
    yield case(op_type, [f(2, 4, 3), f(2, 5, 4)], transA=1, transB=1)
    yield case(op_type, [f(3, 4), f(2, 5, 4)], transB=1, alpha=2.0)
    if op_type == "FusedMatMul":
        yield case(op_type, [f(3, 2, 4), f(2, 4, 5)], transBatchA=1)
        yield case(op_type, [f(2, 3, 4), f(4, 2, 5)], transBatchB=1)
        yield case(op_type, [f(3, 6, 2, 4), f(4, 6, 2, 5)], transBatchA=1, transBatchB=1)
        yield case(
            op_type, [f(4, 2, 3), f(5, 2, 4)], transA=1, transBatchA=1, transB=1, transBatchB=1
        )


def gelus(op_type: str, opset: int) -> Iterator[Case]:
    data = f(2, 3, 8) * 3
    if op_type != "BiasGelu":
        yield case(op_type, [data])
    if op_type in ("BiasGelu", "FastGelu"):
        yield case(op_type, [data, f(8)])
    if op_type == "QuickGelu":
        yield case(op_type, [data], alpha=0.6)


def norms(op_type: str, opset: int) -> Iterator[Case]:
    """These are saved in the default domain, where onnx knows no such version."""
    for axis in (-1, 1):
        count = 3 if op_type == "LayerNormalization" else 2
        weights = [f(*((8,) if axis < 0 else (3, 8))) for _ in range(count - 1)]
        attributes = {"axis": axis, "epsilon": 1e-3}
        yield Case(op_type, 13, [f(2, 3, 8), *weights], attributes, 1)
        if count == 3:
            yield Case(op_type, 13, [f(2, 3, 8), weights[0]], attributes, 1)
    yield Case(op_type, 13, [f(2, 3, 8), *weights], {"axis": 1}, count)


def skip_norms(op_type: str, opset: int) -> Iterator[Case]:
    simple = op_type.startswith("SkipSimplified")
    for shape in ((2, 3, 8), (1, 3, 8), (3, 8)):
        data = [f(2, 3, 8), f(*shape), f(8)]
        yield case(op_type, data)
        yield case(op_type, [*data, f(8)], epsilon=1e-3)
        if not simple:
            yield case(op_type, [*data, f(8), f(8)], epsilon=1e-3)
            yield case(op_type, [*data, None, f(8)])
            yield case(op_type, [*data, f(8), f(8)], 4)
    half = [x.astype(np.float16) for x in (f(2, 3, 8), f(2, 3, 8), f(8))]
    yield case(op_type, half)


def embed(op_type: str, opset: int) -> Iterator[Case]:
    ids = RNG.integers(0, 9, (2, 5), np.int32)
    segments, mask = ids % 2, np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], np.int32)
    words, positions, kinds = f(9, 8), f(7, 8), f(2, 8)
    norm = [f(8), f(8)]
    both = [ids, segments, words, positions, kinds, *norm]
    yield case(op_type, both, 2)
    yield case(op_type, [*both, mask], 2)
    yield case(op_type, [*both, mask], 3, epsilon=1e-3)
    yield case(op_type, [ids, None, words, positions, None, *norm], 2)
    yield case(op_type, [*both, None, RNG.integers(0, 7, (2, 5), np.int32)], 2)
    yield case(op_type, [*both, mask, RNG.integers(0, 7, (1, 5), np.int32)], 2, mask_index_type=1)


def older(op_type: str, opset: int) -> Iterator[Case]:
    if op_type == "ExpandDims":
        for axis in (0, 1, 2, -1):
            yield case(op_type, [f(3, 4), np.int32(axis)])
    elif op_type == "Trilu":
        for upper in (0, 1):
            yield case(op_type, [f(2, 4, 5)], upper=upper)
            yield case(op_type, [f(4, 5), np.int64(-1)], upper=upper)
    else:
        modes, paddings = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
        for mode, padding, corners in itertools.product(modes, paddings, (0, 1)):
            attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
            yield case(op_type, [f(1, 2, 4, 5), f(1, 3, 3, 2)], **attributes)


MAKERS: dict[Maker, list[str]] = {
    fused_conv: ["FusedConv"],
    fused_gemm: ["FusedGemm"],
    fused_matmul: ["FusedMatMul", "TransposeMatMul"],
    gelus: ["BiasGelu", "FastGelu", "Gelu", "QuickGelu"],
    norms: ["LayerNormalization", "SimplifiedLayerNormalization"],
    skip_norms: ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"],
    embed: ["EmbedLayerNormalization"],
    older: ["ExpandDims", "GridSample", "Trilu"],
}
