# SPDX-License-Identifier: Apache-2.0
"""One-node models of attention and rotary embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import Case, Maker, f, i64


def attention(op_type: str, opset: int) -> Iterator[Case]:
    plain = [f(2, 4, 5, 8), f(2, 4, 7, 8), f(2, 4, 7, 6)]
    grouped = [f(2, 4, 5, 8), f(2, 2, 7, 8), f(2, 2, 7, 6)]
    flat = [f(2, 5, 32), f(2, 7, 16), f(2, 7, 12)]
    past = [f(2, 4, 3, 8), f(2, 4, 3, 6)]
    packed = {"q_num_heads": 4, "kv_num_heads": 2}
    for causal, extra in itertools.product((0, 1), ({}, {"scale": 0.3}, {"softcap": 1.5})):
        attributes: dict[str, Any] = {"is_causal": causal, **extra}
        yield Case(op_type, opset, plain, attributes)
        yield Case(op_type, opset, grouped, attributes)
        yield Case(op_type, opset, flat, {**attributes, **packed})
        yield Case(op_type, opset, [*plain, None, *past], attributes, 3)
    allowed = f(5, 7) > -0.5
    allowed[:, 0] = True
    masks = [allowed, f(5, 7), f(4, 5, 7), f(2, 4, 5, 7), f(2, 1, 5, 7), f(1, 7).repeat(5, 0)]
    masks += [np.where(allowed, np.float32(0), np.float32(-np.inf))]
    for mask, causal in itertools.product(masks, (0, 1)):
        yield Case(op_type, opset, [*plain, mask], {"is_causal": causal})
        yield Case(op_type, opset, [*flat, mask], {"is_causal": causal, **packed})
    long = f(5, 10) > -0.5
    long[:, 0] = True
    for mask in (long, f(5, 10)):
        yield Case(op_type, opset, [*plain, mask, *past], {"softcap": 2.0}, 3)
    for mode in (0, 1, 2, 3):
        yield Case(op_type, opset, [*plain, f(5, 7)], {"qk_matmul_output_mode": mode}, 4)
        attributes = {"qk_matmul_output_mode": mode, "softcap": 1.5}
        yield Case(op_type, opset, [*plain, f(5, 7)], attributes, 4)
    empty = allowed.copy()
    empty[2] = False
    yield Case(op_type, opset, [*plain, empty])
    yield Case(op_type, opset, [*plain, empty], {"is_causal": 1, "qk_matmul_output_mode": 3}, 4)
    if opset >= 24:
        for lengths in ([7, 5], [6, 7], [3, 7]):
            inputs = [*plain, None, None, None, i64(*lengths)]
            yield Case(op_type, opset, inputs)
            yield Case(op_type, opset, inputs, {"is_causal": 1})
            yield Case(op_type, opset, [*plain, f(5, 7), None, None, i64(*lengths)])


def rotary(op_type: str, opset: int) -> Iterator[Case]:
    table, places = [f(9, 4), f(9, 4)], np.array([[0, 3, 8], [7, 1, 2]], np.int64)
    for interleaved in (0, 1):
        attributes = {"interleaved": interleaved}
        yield Case(op_type, opset, [f(2, 3, 3, 8), *table, places], attributes)
        yield Case(op_type, opset, [f(2, 3, 3, 8), f(2, 3, 4), f(2, 3, 4)], attributes)
        packed = {**attributes, "num_heads": 3}
        yield Case(op_type, opset, [f(2, 3, 24), *table, places], packed)
        partial = {**packed, "rotary_embedding_dim": 8}
        yield Case(op_type, opset, [f(2, 3, 36), *table, places], partial)


MAKERS: dict[Maker, list[str]] = {attention: ["Attention"], rotary: ["RotaryEmbedding"]}
