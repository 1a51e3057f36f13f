# SPDX-License-Identifier: Apache-2.0
"""One-node models of the dynamically quantised LSTM of com.microsoft."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import Case, Maker

DOMAIN = "com.microsoft"
TIME, INPUTS, HIDDEN = 4, 4, 6


def lstm(op_type: str, opset: int) -> Iterator[Case]:
    # Its own numbers: in one case of a thousand a state lies so near the edge between two steps
    # that the last bit of a tanh decides, and all that follows differs by 1e-4.
    rng = np.random.default_rng(1)

    def f(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    def whole(kind: Any, *shape: int) -> Any:
        return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind, endpoint=True)

    kinds = ((np.int8, 0), (np.uint8, 128))
    for (kind, middle), by_column, batch in itertools.product(kinds, (False, True), (1, 3)):
        for direction in ("forward", "reverse", "bidirectional"):
            ways = 2 if direction == "bidirectional" else 1
            shape = (ways, 4 * HIDDEN) if by_column else (ways,)
            numbers: list[Any] = []
            for _ in range(2):
                numbers += [np.abs(f(*shape)) / 100, np.full(shape, middle, kind)]
            weights = [whole(kind, ways, size, 4 * HIDDEN) for size in (INPUTS, HIDDEN)]
            plain = [f(TIME, batch, INPUTS), *weights]
            bias, states = f(ways, 8 * HIDDEN), [f(ways, batch, HIDDEN) for _ in range(2)]
            given: list[tuple[list[Any], dict[str, Any]]] = [
                ([None, None, None, None, None], {}),
                ([bias, None, *states, None], {}),
                ([bias, None, *states, f(ways, 3 * HIDDEN)], {"clip": 0.5}),
                ([bias, None, None, None, None], {"input_forget": 1}),
            ]
            for rest, attributes in given:
                every = {"hidden_size": HIDDEN, "direction": direction, **attributes}
                yield Case(op_type, 1, [*plain, *rest, *numbers], every, 3, DOMAIN)


MAKERS: dict[Maker, list[str]] = {lstm: ["DynamicQuantizeLSTM"]}
