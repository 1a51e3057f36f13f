# SPDX-License-Identifier: Apache-2.0
"""One-node models of the operators of ai.onnx.ml that prepare features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import numpy_helper
from op_cases import Case, Maker, f, f32, i64

DOMAIN = "ai.onnx.ml"


def imputer(op_type: str, opset: int) -> Iterator[Case]:
    data = f(5, 3)
    data[1, 2], data[3, 0], data[4, 1] = np.nan, np.nan, 0
    for values in ([0.5], [1.0, 2.0, 3.0]):
        attributes: dict[str, Any] = {"imputed_value_floats": values}
        yield Case(op_type, opset, [data], attributes, domain=DOMAIN)
        missing = {**attributes, "replaced_value_float": float("nan")}
        yield Case(op_type, opset, [data], missing, domain=DOMAIN)
    whole = np.array([[1, -1, 3], [-1, 0, 2]], np.int64)
    attributes = {"imputed_value_int64s": [7, 8, 9], "replaced_value_int64": -1}
    yield Case(op_type, opset, [whole], attributes, domain=DOMAIN)


def label_encoder(op_type: str, opset: int) -> Iterator[Case]:
    floats: list[float] = [0.5, 2.0, -1.25]
    whole = [3, 1, 2]
    numbers, counts = f32(2, 0.5, 7, -1.25), np.stack([i64(1, 2, 9), i64(3, 3, 1)])
    for data, keys in ((numbers, {"keys_floats": floats}), (counts, {"keys_int64s": whole})):
        rest: tuple[dict[str, Any], ...] = (
            {"values_floats": [10.5, 20.0, 30.0]},
            {"values_floats": [10.5, 20.0, 30.0], "default_float": 4.5},
            {"values_int64s": [10, 20, 30], "default_int64": 7},
        )
        for values in rest:
            yield Case(op_type, opset, [data], {**keys, **values}, domain=DOMAIN)
    if opset >= 4:
        known = f32(np.nan, 2, 7)
        attributes = {"keys_floats": [2.0, float("nan")], "values_floats": [1.0, 5.0]}
        yield Case(op_type, opset, [known], attributes, domain=DOMAIN)
        tensors = {
            "keys_tensor": numpy_helper.from_array(i64(3, 1, 2)),
            "values_tensor": numpy_helper.from_array(f32(0.5, 1.5, 2.5)),
            "default_tensor": numpy_helper.from_array(f32(-9.5)),
        }
        yield Case(op_type, opset, [counts], tensors, domain=DOMAIN)


def feature_vectorizer(op_type: str, opset: int) -> Iterator[Case]:
    for inputs in ([f(4, 3)], [f(4, 3), f(4, 1), f(4, 2)]):
        widths = {"inputdimensions": [x.shape[1] for x in inputs]}
        yield Case(op_type, opset, inputs, widths, domain=DOMAIN)
    whole = np.array([[1, 2], [3, 4]], np.int64)
    yield Case(op_type, opset, [whole], {"inputdimensions": [2]}, domain=DOMAIN)


def one_hot_encoder(op_type: str, opset: int) -> Iterator[Case]:
    attributes = {"cats_int64s": [3, 1, 7]}
    yield Case(op_type, opset, [i64(1, 7, 2, 3)], attributes, domain=DOMAIN)
    yield Case(op_type, opset, [i64(1, 7, 2, 3).reshape(2, 2)], attributes, domain=DOMAIN)
    yield Case(op_type, opset, [f32(1, 7, 2.5, 3.9)], attributes, domain=DOMAIN)


MAKERS: dict[Maker, list[str]] = {
    imputer: ["Imputer"],
    label_encoder: ["LabelEncoder"],
    feature_vectorizer: ["FeatureVectorizer"],
    one_hot_encoder: ["OneHotEncoder"],
}
