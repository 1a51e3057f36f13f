# SPDX-License-Identifier: Apache-2.0
"""The linear operators of ai.onnx.ml, as converters of scikit-learn write them.

Their coefficients are attributes, so they carry gradients to what comes before and cannot be
edited themselves.
"""

from __future__ import annotations

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import meet
from lancet_onnx.ops.registry import op

_DOMAIN = "ai.onnx.ml"


def _row(numbers: list[float] | None, like: torch.Tensor, neutral: float) -> torch.Tensor:
    values = numbers or [neutral]
    if len(values) not in (1, like.shape[-1]):
        raise UnsupportedError(f"{len(values)} numbers for {like.shape[-1]} features")
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def _floats(X: torch.Tensor) -> torch.Tensor:
    """Return X in float32, the only type that these operators give."""
    return X.to(torch.float32)


@op("Binarizer", 1, domain=_DOMAIN)
def binarizer(X: torch.Tensor, *, threshold: float = 0.0) -> torch.Tensor:
    """Binarizer (1, ai.onnx.ml): one above the threshold, zero elsewhere."""
    return torch.gt(X, threshold).to(X.dtype)


@op("ArrayFeatureExtractor", 1, domain=_DOMAIN)
def array_feature_extractor(X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """ArrayFeatureExtractor (1, ai.onnx.ml): elements of the last axis; rank 1 becomes a row."""
    data, places = meet(X, Y.to(torch.int64).reshape(-1))
    result = torch.index_select(data, data.ndim - 1, places)
    return result.unsqueeze(0) if X.ndim == 1 else result


@op("Scaler", 1, domain=_DOMAIN)
def scaler(
    X: torch.Tensor, *, offset: list[float] | None = None, scale: list[float] | None = None
) -> torch.Tensor:
    """Scaler (1, ai.onnx.ml)."""
    data = _floats(X)
    return (data - _row(offset, data, 0.0)) * _row(scale, data, 1.0)


@op("Normalizer", 1, domain=_DOMAIN)
def normalizer(X: torch.Tensor, *, norm: str = "MAX") -> torch.Tensor:
    """Normalizer (1, ai.onnx.ml): a norm of zero leaves the row as it is."""
    data = _floats(X)
    if norm == "MAX":
        size = torch.amax(data, -1, keepdim=True)
    elif norm in ("L1", "L2"):
        size = torch.linalg.vector_norm(data, int(norm[1]), -1, keepdim=True)
    else:
        raise UnsupportedError(f"Normalizer with norm={norm!r} is not known")
    return data / torch.where(size == 0, torch.ones_like(size), size)


def _transformed(scores: torch.Tensor, post_transform: str) -> torch.Tensor:
    if post_transform == "NONE":
        return scores
    if post_transform == "SOFTMAX":
        return torch.softmax(scores, -1)
    if post_transform == "LOGISTIC":
        return torch.sigmoid(scores)
    raise UnsupportedError(f"post_transform={post_transform!r} is not computed")


def _linear(
    X: torch.Tensor, coefficients: list[float], intercepts: list[float] | None, rows: int
) -> torch.Tensor:
    data = _floats(X)
    if rows * data.shape[-1] != len(coefficients) or (intercepts and len(intercepts) != rows):
        raise UnsupportedError(f"{len(coefficients)} coefficients for {rows} linear outputs")
    weight = torch.tensor(coefficients, dtype=data.dtype, device=data.device).reshape(rows, -1)
    result = data @ weight.transpose(0, 1)
    if not intercepts:
        return result
    return result + torch.tensor(intercepts, dtype=data.dtype, device=data.device)


@op("LinearClassifier", 1, domain=_DOMAIN)
def linear_classifier(
    X: torch.Tensor,
    *,
    classlabels_ints: list[int] | None = None,
    classlabels_strings: list[str] | None = None,
    coefficients: list[float],
    intercepts: list[float] | None = None,
    multi_class: int = 0,  # which onnxruntime does not heed either
    post_transform: str = "NONE",
) -> tuple[torch.Tensor, torch.Tensor]:
    """LinearClassifier (1, ai.onnx.ml): integer labels and one score for each of them."""
    if not classlabels_ints or classlabels_strings:
        raise UnsupportedError("LinearClassifier with labels that are no integers")
    scores = _linear(X, coefficients, intercepts, len(classlabels_ints))
    labels = torch.tensor(classlabels_ints, device=scores.device)
    return labels[torch.argmax(scores, -1)], _transformed(scores, post_transform)


@op("LinearRegressor", 1, domain=_DOMAIN)
def linear_regressor(
    X: torch.Tensor,
    *,
    coefficients: list[float] | None = None,
    intercepts: list[float] | None = None,
    post_transform: str = "NONE",
    targets: int = 1,
) -> torch.Tensor:
    """LinearRegressor (1, ai.onnx.ml)."""
    return _transformed(_linear(X, coefficients or [], intercepts, targets), post_transform)
