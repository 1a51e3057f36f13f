# SPDX-License-Identifier: Apache-2.0
"""One-node models of operators that choose elements, of bits, boxes and n-grams."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from op_cases import RNG, Case, Maker, f, f32, i64


def one_hot(op_type: str, opset: int) -> Iterator[Case]:
    indices = i64(0, 3, -4, 7, -5, 2).reshape(2, 3)
    for axis in (-1, 0, 1):
        yield Case(op_type, opset, [indices, np.int64(4), f32(-1, 2)], {"axis": axis})
    yield Case(op_type, opset, [indices.astype(np.float32), np.float32(4), i64(0, 5)])
    yield Case(op_type, opset, [indices, i64(4), f32(0, 1)])


def by_condition(op_type: str, opset: int) -> Iterator[Case]:
    condition = np.array([False, True, True])
    for axis in (0, 1, 2, *((-1,) if opset >= 11 else ())):
        yield Case(op_type, opset, [f(3, 4, 5), condition], {"axis": axis})
    yield Case(op_type, opset, [f(3, 4), np.array([True, False] * 4)])
    yield Case(op_type, opset, [f(3, 4), np.zeros(3, np.bool_)], {"axis": 1})


def non_zero(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [np.round(f(3, 4, 5))])
    yield Case(op_type, opset, [f(3, 4) > 0])
    yield Case(op_type, opset, [i64(0, 5, 0)])
    yield Case(op_type, opset, [np.float32(2)])
    yield Case(op_type, opset, [np.zeros((2, 2), np.float32)])


def unique(op_type: str, opset: int) -> Iterator[Case]:
    for ordered in (0, 1):
        yield Case(op_type, opset, [np.round(f(4, 6))], {"sorted": ordered}, 4)
        yield Case(op_type, opset, [RNG.integers(-3, 3, 20)], {"sorted": ordered}, 4)
        for axis in (0, 1, -1):
            rows = RNG.integers(0, 2, (5, 3, 2)).astype(np.float32)
            yield Case(op_type, opset, [rows], {"sorted": ordered, "axis": axis}, 4)


def reverse_sequence(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [f(4, 3, 2), i64(1, 4, 2)])
    yield Case(op_type, opset, [f(3, 4), i64(4, 2, 1)], {"batch_axis": 0, "time_axis": 1})


def tensor_scatter(op_type: str, opset: int) -> Iterator[Case]:
    cache, update = f(2, 3, 6, 4), f(2, 3, 2, 4)
    yield Case(op_type, opset, [cache, update])
    yield Case(op_type, opset, [cache, update, i64(4, 1)])
    yield Case(op_type, opset, [cache, update, i64(5, 1)], {"mode": "circular"})
    yield Case(op_type, opset, [f(2, 6, 4), f(2, 2, 4), i64(4, 1)], {"axis": 1})


def scatter(op_type: str, opset: int) -> Iterator[Case]:
    if opset < 11:
        indices = i64(0, 1, 2, 3).reshape(2, 2)
        yield Case(op_type, opset, [f(4, 5), indices, f(2, 2)])
        yield Case(op_type, opset, [f(4, 5), indices, f(2, 2)], {"axis": 1})


def boxes(op_type: str, opset: int) -> Iterator[Case]:
    corners, scores = f(2, 30, 4), np.round(f(2, 3, 30), 1)
    limits = [i64(8), f32(0.3)]
    for centred in (0, 1):
        attributes = {"center_point_box": centred}
        shapes = np.abs(corners) if centred else corners
        yield Case(op_type, opset, [shapes, scores, *limits], attributes)
        yield Case(op_type, opset, [shapes, scores, *limits, f32(0.4)], attributes)
        yield Case(op_type, opset, [shapes, scores, i64(30)], attributes)
    yield Case(op_type, opset, [corners, scores])


def ngrams(op_type: str, opset: int) -> Iterator[Case]:
    pool = [2, 3, 5, 4, 5, 6, 7, 8, 6, 7]
    words = np.array([1, 1, 3, 3, 3, 7, 8, 6, 7, 5, 6, 8], np.int64)
    for mode, skip, (least, most), rows in itertools.product(
        ("TF", "IDF", "TFIDF"), (0, 1, 5), ((1, 1), (2, 2), (1, 2)), (0, 2)
    ):
        attributes = {
            "mode": mode,
            "min_gram_length": least,
            "max_gram_length": most,
            "max_skip_count": skip,
            "ngram_counts": [0, 4],
            "ngram_indexes": [0, 1, 2, 3, 5, 6, 4],
            "pool_int64s": pool,
            "weights": [0.5, 2.0, 1.0, 3.0, 0.25, 4.0, 1.5],
        }
        yield Case(op_type, opset, [words.reshape(rows, -1) if rows else words], attributes)


def bit_shift(op_type: str, opset: int) -> Iterator[Case]:
    for dtype, direction in itertools.product(
        (np.uint8, np.uint16, np.uint32, np.uint64), ("LEFT", "RIGHT")
    ):
        top = np.iinfo(dtype).max
        data = np.array([1, 5, top, top // 3], dtype)
        shifts = np.array([0, 1, 3, 7], dtype)
        yield Case(op_type, opset, [data, shifts], {"direction": direction})


def bitwise(op_type: str, opset: int) -> Iterator[Case]:
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        info = np.iinfo(dtype)
        data = [RNG.integers(info.min, info.max, s, dtype, endpoint=True) for s in ((3, 4), (4,))]
        yield Case(op_type, opset, data[: 1 if op_type == "BitwiseNot" else 2])


MAKERS: dict[Maker, list[str]] = {
    one_hot: ["OneHot"],
    by_condition: ["Compress"],
    non_zero: ["NonZero"],
    unique: ["Unique"],
    reverse_sequence: ["ReverseSequence"],
    tensor_scatter: ["TensorScatter"],
    scatter: ["Scatter"],
    boxes: ["NonMaxSuppression"],
    ngrams: ["TfIdfVectorizer"],
    bit_shift: ["BitShift"],
    bitwise: ["BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"],
}
