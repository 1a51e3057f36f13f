# SPDX-License-Identifier: Apache-2.0
"""Hand-made classifiers around operators that exporters write rarely, but may."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from corpus.sketch import Sketch
from corpus.store import ROWS, Made

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def unusual_pooling(path: Path) -> Made:
    """Pooling and layout operators that exporters rarely write."""
    g = Sketch(18, 11)
    x = g("Conv", "x", g.weight(8, 3, 3, 3), pads=[1, 1, 1, 1])
    top, where = g("MaxPool", x, n=2, kernel_shape=[2, 2], strides=[2, 2])
    back = g("MaxUnpool", top, where, kernel_shape=[2, 2], strides=[2, 2])
    x = g("Add", back, g("MeanVarianceNormalization", x, axes=[2, 3]))
    y = g("LpPool", x, kernel_shape=[2, 2], strides=[2, 2], p=2)
    z = g("DepthToSpace", g("SpaceToDepth", x, blocksize=4), blocksize=2, mode="CRD")
    parts = [
        g("GlobalMaxPool", x), g("GlobalLpPool", y, p=3), g("GlobalAveragePool", z),
        g("ReduceLogSumExp", y, g.const([2, 3])), g("ReduceL1", y, g.const([2, 3])),
        g("ReduceSumSquare", y, g.const([2, 3])), g("ReduceProd", g("Sigmoid", y), g.const([3])),
    ]  # fmt: skip
    columns = g("Reshape", x, g.const([0, 32, 64]))
    folded = g("Col2Im", columns, g.const([16, 16]), g.const([2, 2]), strides=[2, 2])
    parts.append(g("GlobalMaxPool", folded))
    flat = g("Concat", *(g("Flatten", p) for p in parts), axis=1)
    return g.save(path, {"x": (3, 16, 16)}, g("Gemm", flat, g.weight(144, 5)))


def grid(path: Path) -> Made:
    """A spatial transformer: localisation, AffineGrid, GridSample, then a classifier."""
    g = Sketch(20, 12)
    small = g("AveragePool", "x", kernel_shape=[4, 4], strides=[4, 4])
    theta = g("Gemm", g("Flatten", small), g.weight(48, 6), g.const([1, 0, 0, 0, 1, 0], np.float32))
    grid = g("AffineGrid", g("Reshape", theta, g.const([-1, 2, 3])), g.const([ROWS, 3, 12, 12]))
    x = g("GridSample", "x", grid, mode="linear", padding_mode="border")
    x = g("Gelu", g("Conv", x, g.weight(8, 3, 3, 3)), approximate="tanh")
    x = g("GroupNormalization", x, g.positive(2), g.weight(2), num_groups=2)
    return g.save(
        path,
        {"x": (3, 16, 16)},
        g("Gemm", g("Flatten", g("GlobalMaxPool", x)), g.weight(8, 5)),
        batch=ROWS,
    )


def audio(path: Path) -> Made:
    """Raw audio in: window, STFT, mel filter bank, logarithm, 1-D convolution: all in the graph."""
    g = Sketch(17, 13)
    window = g("HannWindow", g.const(64), periodic=1)
    spectrum = g("STFT", g("Unsqueeze", "x", g.const([2])), g.const(32), window, onesided=1)
    power = g("ReduceSumSquare", spectrum, axes=[3], keepdims=0)
    bank = g(
        "MelWeightMatrix", g.const(10), g.const(64), g.const(8000),
        g.const(50, np.float32), g.const(3800, np.float32),
    )  # fmt: skip
    mel = g("Log", g("Add", g("MatMul", power, bank), g.const(0.01, np.float32)))
    x = g("Conv", g("Transpose", mel, perm=[0, 2, 1]), g.weight(8, 10, 3), g.weight(8))
    x = g("ReduceMean", g("HardSwish", x), axes=[2], keepdims=0)
    return g.save(path, {"x": (320,)}, g("Gemm", x, g.weight(8, 4), g.weight(4)))


def indexing(path: Path) -> Made:
    """Embedding bags, gathers, scatters, one-hot, cumulative sums, sorting and comparing."""
    g = Sketch(18, 14)
    ids = g(
        "Cast",
        g("Clip", g("Round", g("Abs", "x")), g.const(0, np.float32), g.const(9, np.float32)),
        to=INT64,
    )
    e = g("Gather", g.weight(10, 6), ids, axis=0)
    hot = g("OneHot", ids, g.const(10), g.const([0, 1], np.float32), axis=-1)
    e = g("Add", e, g("MatMul", hot, g.weight(10, 6)))
    s = g("CumSum", e, g.const(1), exclusive=1)
    mask = g("Less", ids, g.const(2))
    s = g("Where", g("Unsqueeze", mask, g.const([2])), s, e)
    top, where = g("TopK", g("ReduceSum", s, g.const([2]), keepdims=0), g.const([3]), n=2, axis=1)
    picked = g("GatherElements", "x", where, axis=1)
    base = g("MatMul", g("Flatten", s), g.weight(48, 12))
    base = g("ScatterElements", base, g("Mod", where, g.const(12)), top, axis=1, reduction="add")
    base = g("ScatterND", base, g.const([[0]]), g.weight(1, 12), reduction="add")
    corner = g("GatherND", base, g.const([[0], [1], [2], [3]]), batch_dims=1)
    base = g("Add", base, g("Reshape", corner, g.const([ROWS, 1])))
    tri = g("Trilu", g.weight(12, 12), upper=1)
    y = g("Einsum", base, tri, equation="bi,ij->bj")
    y = g("Concat", y, picked, axis=1)
    y = g("Mul", y, g("Sign", g("Sin", y)))
    y = g(
        "Where",
        g("Or", g("IsNaN", y), g("Not", g("GreaterOrEqual", y, g.const(-50, np.float32)))),
        g.const(0, np.float32),
        y,
    )
    return g.save(path, {"x": (8,)}, g("MatMul", y, g.weight(15, 4)), batch=ROWS, mixes=True)


def sequences(path: Path) -> Made:
    """SplitToSequence, SequenceAt, SequenceInsert, ConcatFromSequence between weights."""
    g = Sketch(17, 15)
    parts = g("SplitToSequence", g("MatMul", "x", g.weight(12, 12)), g.const(4), axis=1)
    first = g("SequenceAt", parts, g.const(0))
    more = g("SequenceInsert", parts, g("Tanh", first))
    joined = g("ConcatFromSequence", more, axis=1)
    n = g("Cast", g("SequenceLength", more), to=FLOAT)
    return g.save(path, {"x": (12,)}, g("MatMul", g("Div", joined, n), g.weight(16, 4)))


def optional_maths(path: Path) -> Made:
    """Elementwise functions nobody exports but the table has: Erf to Atanh, Celu, Shrink ..."""
    g = Sketch(18, 16)
    x = g("MatMul", "x", g.weight(12, 12))
    unit = g("Mul", g("Tanh", x), g.const(0.9, np.float32))
    parts = [
        g(op, unit) for op in ("Acos", "Asin", "Atanh", "Atan", "Erf", "Cosh", "Sinh", "Cos", "Tan")
    ]
    parts += [g("Asinh", x), g("Acosh", g("Add", g("Exp", x), g.const(1.1, np.float32)))]
    parts += [
        g("Celu", x, alpha=1.5),
        g("Shrink", x, lambd=0.3, bias=0.1),
        g("ThresholdedRelu", x, alpha=0.2),
    ]
    parts += [
        g("Mish", x),
        g("Reciprocal", g("Add", g("Abs", x), g.const(1, np.float32))),
        g("Floor", x),
        g("Ceil", x),
    ]
    parts += [
        g("Pow", g("Sqrt", g("Softplus", x)), g.const(1.5, np.float32)),
        g("Mean", x, unit),
        g("Min", x, unit),
    ]
    parts += [g("Hardmax", x, axis=1), g("Identity", x)]
    y = g("Concat", *parts, axis=1)
    return g.save(path, {"x": (12,)}, g("Gemm", y, g.weight(12 * len(parts), 4), g.weight(4)))


def resizing(opset: int, path: Path) -> Made:
    """Resize as OpenCV, PyTorch and TensorFlow mean it, and a crop."""
    g = Sketch(opset, 17)
    x = g("Conv", "x", g.weight(6, 3, 3, 3))
    none = g.const([], np.float32)
    sizes = g.const([ROWS, 6, 20, 9])
    scales = g.const([1, 1, 1.5, 0.75], np.float32)
    kinds = [
        ("half_pixel", "cubic", none, sizes), ("align_corners", "linear", none, sizes),
        ("pytorch_half_pixel", "linear", scales, None), ("asymmetric", "nearest", scales, None),
    ]  # fmt: skip
    parts = []
    for transform, mode, scale, size in kinds:
        extra = [scale] if size is None else [scale, size]
        y = g("Resize", x, none, *extra, mode=mode, coordinate_transformation_mode=transform)
        parts.append(g("Flatten", g("GlobalMaxPool", y)))
    y = g("Concat", *parts, axis=1)
    return g.save(path, {"x": (3, 16, 14)}, g("Gemm", y, g.weight(24, 5), g.weight(5)), batch=ROWS)


def new_operators(path: Path) -> Made:
    """Opset 24 as a graph writes it itself: Attention, RMSNormalization, RotaryEmbedding, Swish."""
    g = Sketch(24, 18)
    x = g("RMSNormalization", "x", g.positive(16), axis=-1)
    q, k, v = (g("MatMul", x, g.weight(16, 16)) for _ in range(3))
    angle = g.rng.uniform(0, 3, (6, 2)).astype(np.float32)
    cos, sin = g.const(np.cos(angle), np.float32), g.const(np.sin(angle), np.float32)
    split = [
        g("Transpose", g("Reshape", t, g.const([0, 6, 4, 4])), perm=[0, 2, 1, 3]) for t in (q, k, v)
    ]
    q, k = (
        g(
            "RotaryEmbedding",
            t,
            g("Unsqueeze", cos, g.const([0])),
            g("Unsqueeze", sin, g.const([0])),
        )
        for t in split[:2]
    )
    y = g("Attention", q, k, split[2], is_causal=1, scale=0.5)
    y = g("Reshape", g("Transpose", y, perm=[0, 2, 1, 3]), g.const([0, 6, 16]))
    y = g("Swish", g("Add", y, "x"), alpha=1.2)
    y = g("LayerNormalization", y, g.positive(16), g.weight(16))
    return g.save(
        path,
        {"x": (6, 16)},
        g("MatMul", g("ReduceMean", y, g.const([1]), keepdims=0), g.weight(16, 4)),
        batch=1,
    )


def volume(path: Path) -> Made:
    """1-D and 3-D convolutions, transposed too, with dilations and output padding."""
    g = Sketch(13, 19)
    x = g("Conv", "x", g.weight(4, 2, 2, 3, 3), dilations=[1, 2, 1], pads=[0, 1, 1, 1, 1, 1])
    x = g(
        "ConvTranspose",
        x,
        g.weight(4, 3, 2, 2, 2),
        g.weight(3),
        strides=[1, 2, 2],
        output_padding=[0, 1, 0],
    )
    x = g("InstanceNormalization", x, g.positive(3), g.weight(3))
    x = g(
        "AveragePool",
        x,
        kernel_shape=[2, 3, 3],
        strides=[1, 2, 2],
        count_include_pad=1,
        pads=[0, 1, 1, 0, 1, 1],
        ceil_mode=1,
    )
    y = g("Reshape", x, g.const([0, 3, -1]))
    y = g("ConvTranspose", y, g.weight(3, 2, 3), strides=[2], group=1, auto_pad="SAME_UPPER")
    y = g("ReduceMean", g("Conv", y, g.weight(6, 2, 5), dilations=[3]), axes=[2], keepdims=0)
    return g.save(path, {"x": (2, 4, 8, 8)}, g("Gemm", y, g.weight(6, 4, gain=20), g.weight(4)))


def classical(path: Path) -> Made:
    """ai.onnx.ml as scikit-learn's converter writes it: scaled, a linear classifier, labels."""
    g = Sketch(17, 20)
    g.domains = {"ai.onnx.ml": 3}
    ml = "ai.onnx.ml"
    offset, scale = g.rng.normal(size=6), g.rng.uniform(0.5, 1.5, 6)
    x = g("Scaler", "x", domain=ml, offset=offset.tolist(), scale=scale.tolist())
    x = g("Tanh", g("Add", g("MatMul", x, g.weight(6, 6)), g.weight(6)))
    labels = g.const([10, 20, 30])
    _, scores = g(
        "LinearClassifier", x, n=2, domain=ml, multi_class=1, post_transform="LOGISTIC",
        classlabels_ints=[0, 1, 2], coefficients=g.rng.normal(size=18).tolist(),
        intercepts=g.rng.normal(size=3).tolist(),
    )  # fmt: skip
    scores = g("Normalizer", scores, domain=ml, norm="L1")
    best = g("ArgMax", scores, axis=1, keepdims=0)
    label = g("ArrayFeatureExtractor", labels, best, domain=ml)
    label = g("Reshape", label, g.const([-1]))
    return g.save(path, {"x": (6,)}, {label: INT64, scores: FLOAT})


def backwards(path: Path) -> Made:
    """A sequence read from its end, as TensorFlow does: ReverseSequence, masks with And."""
    g = Sketch(17, 21)
    lengths = g("Expand", g.const([5]), g("Slice", g("Shape", "x"), g.const([0]), g.const([1])))
    y = g("ReverseSequence", "x", lengths, batch_axis=0, time_axis=1)
    y = g("MatMul", g("Mul", y, g.weight(7, 1)), g.weight(6, 6))
    low, high = g.const(-0.8, np.float32), g.const(0.8, np.float32)
    inside = g("And", g("Greater", y, low), g("Less", y, high))
    y = g("ReduceMax", g("Where", inside, y, g("Tanh", y)), axes=[1], keepdims=0)
    return g.save(path, {"x": (7, 6)}, g("Gemm", y, g.weight(6, 4), g.weight(4)))
