# SPDX-License-Identifier: Apache-2.0
"""One-node models of the linear operators of ai.onnx.ml."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import Case, Maker, f, i64

DOMAIN = "ai.onnx.ml"


def of_features(op_type: str, opset: int) -> Iterator[Case]:
    data = f(5, 4)
    data[2] = 0
    ways: list[dict[str, Any]] = [{}]
    if op_type == "Binarizer":
        ways += [{"threshold": 0.4}]
    elif op_type == "Normalizer":
        ways += [{"norm": norm} for norm in ("MAX", "L1", "L2")]
    else:
        ways = [{"offset": [0.5], "scale": [2.0]}]
        ways += [{"offset": [0.1, 0.2, 0.3, 0.4], "scale": [2.0, 0.5, 3.0, -1.0]}]
    for attributes in ways:
        yield Case(op_type, opset, [data], attributes, domain=DOMAIN)


def extract(op_type: str, opset: int) -> Iterator[Case]:
    yield Case(op_type, opset, [f(3, 4), i64(2, 0, 2)], domain=DOMAIN)
    yield Case(op_type, opset, [i64(5, 6, 7), i64(1, 0)], domain=DOMAIN)


def linear(op_type: str, opset: int) -> Iterator[Case]:
    for rows, way in itertools.product((1, 2, 3), ("NONE", "SOFTMAX", "LOGISTIC")):
        attributes: dict[str, Any] = {
            "coefficients": f(rows * 4).tolist(),
            "intercepts": f(rows).tolist(),
            "post_transform": way,
        }
        if op_type == "LinearRegressor":
            attributes["targets"] = rows
            if way == "NONE":
                yield Case(op_type, opset, [f(5, 4)], attributes, domain=DOMAIN)
        elif rows > 1:
            attributes["classlabels_ints"] = [7, 3, 5][:rows]
            yield Case(op_type, opset, [f(5, 4)], attributes, 2, DOMAIN)
            several = {**attributes, "multi_class": 1}
            yield Case(op_type, opset, [f(5, 4)], several, 2, DOMAIN)
            yield Case(op_type, opset, [np.arange(8).reshape(2, 4)], attributes, 2, DOMAIN)


MAKERS: dict[Maker, list[str]] = {
    of_features: ["Binarizer", "Normalizer", "Scaler"],
    extract: ["ArrayFeatureExtractor"],
    linear: ["LinearClassifier", "LinearRegressor"],
}
