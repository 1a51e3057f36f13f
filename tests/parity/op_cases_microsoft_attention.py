# SPDX-License-Identifier: Apache-2.0
"""One-node models of the attention operators of com.microsoft."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import RNG, Case, Maker, f

DOMAIN = "com.microsoft"
BATCH, LENGTH, HEADS, WIDTH = 2, 4, 2, 8


def case(op_type: str, inputs: list[Any], outputs: int = 1, **attributes: Any) -> Case:
    return Case(op_type, 1, inputs, {"num_heads": HEADS, **attributes}, outputs, DOMAIN)


def masks(length: int = LENGTH) -> list[Any]:
    """Return masks by key and by query."""
    flat = np.array([[1, 1, 1, 0][:length], [1, 1, 0, 0][:length]], np.int32)
    square = np.stack([flat] * LENGTH, 1)
    square[0, 1, 0] = 0
    return [flat, square]


def attention(op_type: str, opset: int) -> Iterator[Case]:
    plain = [f(BATCH, LENGTH, 6), f(6, 3 * WIDTH), f(3 * WIDTH)]
    lengths = [np.array([3, 2], np.int32), np.array([3, 4, 0, 2], np.int32)]
    yield case(op_type, plain, 2)
    for unidirectional in (0, 1):
        rest = {"unidirectional": unidirectional}
        yield case(op_type, plain, **rest)
        yield case(op_type, plain, scale=0.3, **rest)
        for mask in [*masks(), *lengths]:
            yield case(op_type, [*plain, mask], **rest)
            yield case(op_type, [*plain, mask], mask_filter_value=-3.0, **rest)
        bias = f(1, HEADS, LENGTH, LENGTH)
        yield case(op_type, [*plain, masks()[0], None, bias], **rest)
        yield case(op_type, [*plain, None, None, f(BATCH, 1, LENGTH, LENGTH)], **rest)
    other = [plain[0], f(6, 2 * WIDTH + 10), f(2 * WIDTH + 10)]
    yield case(op_type, other, qkv_hidden_sizes=[WIDTH, WIDTH, 10])


def quantized(op_type: str, opset: int) -> Iterator[Case]:
    lengths = np.array([3, 2], np.int32)
    for kind in (np.int8, np.uint8):
        info = np.iinfo(kind)
        x = RNG.integers(0, 255, (BATCH, LENGTH, 6), np.uint8, endpoint=True)
        w = RNG.integers(info.min, info.max, (6, 3 * WIDTH), kind, endpoint=True)
        scales = [np.float32(0.02), np.float32(0.01)]
        zeros = [np.uint8(120), kind(info.max - 127)]
        plain = [x, w, f(3 * WIDTH), *scales]
        for mask in (None, lengths, *masks()):
            for unidirectional in (0, 1):
                yield case(op_type, [*plain, mask, *zeros], unidirectional=unidirectional)
        yield case(op_type, [*plain, None, zeros[0]], 2)
        by_column = [x, w, f(3 * WIDTH), scales[0], np.abs(f(3 * WIDTH)) / 50]
        yield case(op_type, [*by_column, lengths, zeros[0], np.full(3 * WIDTH, zeros[1], kind)])


def multi_head(op_type: str, opset: int) -> Iterator[Case]:
    q, k, v = f(BATCH, LENGTH, WIDTH), f(BATCH, 3, WIDTH), f(BATCH, 3, WIDTH)
    for unidirectional in (0, 1):
        rest = {"unidirectional": unidirectional}
        yield case(op_type, [q, k, v], **rest)
        yield case(op_type, [q, k, f(BATCH, 3, 10)], scale=0.3, **rest)
        yield case(op_type, [q, k, v, f(3 * WIDTH)], **rest)
        yield case(op_type, [q, q, q, f(3 * WIDTH)], **rest)
        for mask in (np.array([2, 3], np.int32), *masks(3)):
            yield case(op_type, [q, k, v, None, mask], **rest)
            yield case(op_type, [q, k, v, f(3 * WIDTH), mask], mask_filter_value=-2.0, **rest)
        yield case(op_type, [q, k, v, None, None, f(1, HEADS, LENGTH, 3)], **rest)
        yield case(op_type, [q, k, v, None, masks(3)[0], f(BATCH, 1, LENGTH, 3)], **rest)
    by_head = [f(BATCH, HEADS, 3, WIDTH // HEADS) for _ in range(2)]
    yield case(op_type, [q, *by_head])
    yield case(op_type, [q, k, v], 3)


MAKERS: dict[Maker, list[str]] = {
    attention: ["Attention"],
    quantized: ["QAttention"],
    multi_head: ["MultiHeadAttention"],
}
