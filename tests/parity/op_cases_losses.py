# SPDX-License-Identifier: Apache-2.0
"""One-node models of losses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import RNG, Case, Maker, f


def loss(op_type: str, opset: int) -> Iterator[Case]:
    outputs = (1, 2) if op_type == "SoftmaxCrossEntropyLoss" else (1,)
    for reduction, weighted, shape, ignored, count in itertools.product(
        ("none", "sum", "mean"), (False, True), ((), (4,), (2, 3)), (None, 1, -5), outputs
    ):
        classes = RNG.integers(0, 5, (6, *shape))
        attributes: dict[str, Any] = {"reduction": reduction}
        if ignored is not None:
            attributes["ignore_index"] = ignored
            classes[0] = ignored
        weights = [np.abs(f(5))] if weighted else []
        yield Case(op_type, opset, [f(6, 5, *shape), classes, *weights], attributes, count)


MAKERS: dict[Maker, list[str]] = {loss: ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"]}
