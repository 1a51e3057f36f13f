# SPDX-License-Identifier: Apache-2.0
"""Operators of ai.onnx.ml that prepare features before a classifier: filling, mapping, joining.

Only numbers are computed with: maps from or to text are refused, and so are trees, whose steps
have no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import meet
from lancet_onnx.ops.registry import op

ML = "ai.onnx.ml"

Numbers = Sequence[float] | NDArray[np.generic]


@op("Imputer", 1, domain=ML)
def imputer(
    X: torch.Tensor,
    *,
    imputed_value_floats: list[float] | None = None,
    imputed_value_int64s: list[int] | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> torch.Tensor:
    """Imputer (1): fills in one value, or one per feature, where X holds the replaced value."""
    floats = X.is_floating_point()
    filling = imputed_value_floats if floats else imputed_value_int64s
    if not filling or len(filling) not in (1, X.shape[-1]):
        raise UnsupportedError(f"Imputer of {list(X.shape)} with the values {filling}")
    missing = torch.eq(X, replaced_value_float if floats else replaced_value_int64)
    if floats and replaced_value_float != replaced_value_float:
        missing = torch.isnan(X)
    values = torch.tensor(filling, dtype=X.dtype, device=X.device)
    return torch.where(missing, values, X)


def _numbers(kind: str, tensor: NDArray[np.generic] | None, *given: Numbers | None) -> torch.Tensor:
    """Return the keys or values of a map, whichever attribute gave them."""
    found = [values for values in (tensor, *given) if values is not None and len(values)]
    if len(found) != 1:
        raise UnsupportedError(f"LabelEncoder with {len(found)} lists of numbers as its {kind}")
    values = np.asarray(found[0])
    if values.dtype.kind not in "if":
        raise UnsupportedError(f"LabelEncoder with {kind} of {values.dtype}")
    if values is not tensor and values.dtype.kind == "f":
        values = values.astype(np.float32)
    return torch.from_numpy(values.copy())


@op("LabelEncoder", 4, domain=ML)
def label_encoder(
    X: torch.Tensor,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: NDArray[np.generic] | None = None,
    keys_floats: list[float] | None = None,
    keys_int64s: list[int] | None = None,
    keys_strings: list[str] | None = None,
    keys_tensor: NDArray[np.generic] | None = None,
    values_floats: list[float] | None = None,
    values_int64s: list[int] | None = None,
    values_strings: list[str] | None = None,
    values_tensor: NDArray[np.generic] | None = None,
) -> torch.Tensor:
    """LabelEncoder (4) from numbers to numbers; NaN is a key like any other."""
    if keys_strings or values_strings:
        raise UnsupportedError(f"LabelEncoder of text (default {default_string!r})")
    keys = _numbers("keys", keys_tensor, keys_floats, keys_int64s)
    values = _numbers("values", values_tensor, values_floats, values_int64s)
    number = default_float if values.is_floating_point() else default_int64
    if default_tensor is not None:
        number = np.asarray(default_tensor).reshape(-1)[0].item()
    data, keys, values = meet(X.unsqueeze(-1), keys, values)
    same = data == keys
    if X.is_floating_point() and keys.is_floating_point():
        same = same | (torch.isnan(data) & torch.isnan(keys))
    found = values[torch.argmax(same.to(torch.uint8), -1)]
    default = torch.tensor(number, dtype=values.dtype, device=values.device)
    return torch.where(same.any(-1), found, default)


@op("LabelEncoder", 2, domain=ML)
def label_encoder_2(
    X: torch.Tensor,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    keys_floats: list[float] | None = None,
    keys_int64s: list[int] | None = None,
    keys_strings: list[str] | None = None,
    values_floats: list[float] | None = None,
    values_int64s: list[int] | None = None,
    values_strings: list[str] | None = None,
) -> torch.Tensor:
    """LabelEncoder (2) from numbers to numbers."""
    return label_encoder(
        X,
        default_float=default_float,
        default_int64=default_int64,
        default_string=default_string,
        keys_floats=keys_floats,
        keys_int64s=keys_int64s,
        keys_strings=keys_strings,
        values_floats=values_floats,
        values_int64s=values_int64s,
        values_strings=values_strings,
    )


@op("FeatureVectorizer", 1, domain=ML)
def feature_vectorizer(
    *X: torch.Tensor,
    inputdimensions: list[int] | None = None,
) -> torch.Tensor:
    """FeatureVectorizer (1): rows of features side by side, as float32."""
    widths = [data.shape[1] if data.ndim == 2 else -1 for data in X]
    if -1 in widths or (inputdimensions and list(inputdimensions) != widths):
        raise UnsupportedError(
            f"FeatureVectorizer of {[list(data.shape) for data in X]} as {inputdimensions}"
        )
    return torch.cat(meet(*(data.to(torch.float32) for data in X)), 1)


@op("OneHotEncoder", 1, domain=ML)
def one_hot_encoder(
    X: torch.Tensor,
    *,
    cats_int64s: list[int] | None = None,
    cats_strings: list[str] | None = None,
    zeros: int = 1,
) -> torch.Tensor:
    """OneHotEncoder (1) of numbers: an unknown category gives zeros."""
    if not cats_int64s or cats_strings:
        raise UnsupportedError("OneHotEncoder of text is not computed")
    if not zeros:
        raise UnsupportedError("OneHotEncoder that fails on unknown categories (zeros=0)")
    categories = torch.tensor(cats_int64s, dtype=torch.int64, device=X.device)
    return (X.to(torch.int64).unsqueeze(-1) == categories).to(torch.float32)
