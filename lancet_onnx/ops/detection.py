# SPDX-License-Identifier: Apache-2.0
"""Operators that count and choose on the host: boxes, n-grams. No gradient passes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_floats, host_int
from lancet_onnx.ops.registry import op

Array = np.ndarray[Any, np.dtype[Any]]


def _corners(boxes: Array, *, centred: bool) -> Array:
    """Return (..., y1, x1, y2, x2) with the lower corner first."""
    if centred:
        x, y, width, height = (boxes[..., i] for i in range(4))
        half_width, half_height = width / np.float32(2), height / np.float32(2)
        low, high = (y - half_height, x - half_width), (y + half_height, x + half_width)
    else:
        low = np.minimum(boxes[..., 0], boxes[..., 2]), np.minimum(boxes[..., 1], boxes[..., 3])
        high = np.maximum(boxes[..., 0], boxes[..., 2]), np.maximum(boxes[..., 1], boxes[..., 3])
    return np.stack([*low, *high], -1)


def _overlaps(box: Array, others: Array, threshold: np.float32) -> Array:
    """Return which of the other boxes overlap a box by more than the threshold."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.where((sides > 0).all(-1), sides.prod(-1), np.float32(0))
    area = (box[2:] - box[:2]).prod()
    areas = (others[:, 2:] - others[:, :2]).prod(-1)
    union = area + areas - common
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = common / union
    result: Array = (common > 0) & (area > 0) & (areas > 0) & (union > 0) & (shares > threshold)
    return result


def _kept(boxes: Array, scores: Array, most: int, overlap: np.float32) -> list[int]:
    """Return which boxes stay, best first; of equal scores the earlier box is better."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        if len(kept) == most:
            break
        if not kept or not _overlaps(boxes[i], boxes[kept], overlap).any():
            kept.append(i)
    return kept


@op("NonMaxSuppression", 10, 11, host=(3, 4))
def non_max_suppression(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    max_output_boxes_per_class: torch.Tensor | None = None,
    iou_threshold: torch.Tensor | None = None,
    score_threshold: torch.Tensor | None = None,
    *,
    center_point_box: int = 0,
) -> torch.Tensor:
    """NonMaxSuppression (10, 11): boxes and scores are read back to the host."""
    most = 0
    if max_output_boxes_per_class is not None:
        most = host_int(max_output_boxes_per_class, "the most boxes of NonMaxSuppression")
    overlap = np.float32(0)
    if iou_threshold is not None:
        overlap = np.float32(host_floats(iou_threshold, "the overlap of NonMaxSuppression")[0])
    corners = _corners(boxes.detach().cpu().numpy(), centred=bool(center_point_box))
    marks = scores.detach().cpu().numpy()
    fit = np.ones(marks.shape, np.bool_)
    if score_threshold is not None:
        fit = marks > np.float32(host_floats(score_threshold, "the score of NonMaxSuppression")[0])
    rows = []
    for batch, kind in np.ndindex(marks.shape[0], marks.shape[1]) if most > 0 else ():
        candidates = np.flatnonzero(fit[batch, kind])
        row = marks[batch, kind, candidates]
        chosen = _kept(corners[batch][candidates], row, most, overlap)
        rows += [(batch, kind, int(candidates[i])) for i in chosen]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)


def _ngrams(pool: list[int], starts: list[int]) -> dict[tuple[int, ...], int]:
    """Return the place of each n-gram in the pool, which holds them by growing length."""
    places: dict[tuple[int, ...], int] = {}
    ends = [*starts[1:], len(pool)]
    number = 0
    for n, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
        for at in range(start, end, n):
            places.setdefault(tuple(pool[at : at + n]), number)
            number += 1
    return places


@op("TfIdfVectorizer", 9)
def tf_idf_vectorizer(
    X: torch.Tensor,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: list[int],
    ngram_indexes: list[int],
    pool_int64s: list[int] | None = None,
    pool_strings: list[str] | None = None,
    weights: list[float] | None = None,
) -> torch.Tensor:
    """TfIdfVectorizer (9): of integers; strings are refused."""
    if pool_int64s is None:
        raise UnsupportedError(
            f"TfIdfVectorizer of strings ({len(pool_strings or ())} in its pool)"
        )
    if mode not in ("TF", "IDF", "TFIDF"):
        raise UnsupportedError(f"TfIdfVectorizer with mode={mode!r} is not known")
    places = _ngrams(pool_int64s, ngram_counts)
    width = max(ngram_indexes) + 1
    words = X.detach().cpu().to(torch.int64).reshape(-1, X.shape[-1]).numpy()
    counts = np.zeros((len(words), width), np.float32)
    factors = np.ones(width, np.float32)
    for place, weight in zip(ngram_indexes, weights or (), strict=False):
        factors[place] = weight
    for row, line in enumerate(words):
        for n in range(min_gram_length, max_gram_length + 1):
            for gap in range(1, 2 if n == 1 else max_skip_count + 2):
                for start in range(len(line) - (n - 1) * gap):
                    gram = tuple(line[start : start + (n - 1) * gap + 1 : gap].tolist())
                    if gram in places:
                        counts[row, ngram_indexes[places[gram]]] += 1
    if mode == "IDF":
        counts = (counts > 0).astype(np.float32)
    result = counts if mode == "TF" else counts * factors
    return torch.from_numpy(result.reshape(*X.shape[:-1], width))
