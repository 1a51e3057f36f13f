# SPDX-License-Identifier: Apache-2.0
"""Resize and its forerunner Upsample: along one axis after the other, as weighted neighbours.

Positions and weights are worked out on the host, in float32 as onnxruntime does, so that ties
between two neighbours fall to the same side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_floats, host_ints, positive_axes, require_float
from lancet_onnx.ops.registry import op

Array = np.ndarray[Any, np.dtype[Any]]

_COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)


@dataclass(frozen=True, slots=True)
class _How:
    """The attributes that say how values are found between the elements."""

    mode: str
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


_WHOLE = (0.0, 1.0)
"""The region of interest that is all of an axis."""


def _in_region(size: int, out: int, region: tuple[float, float]) -> Array:
    """Return where the output's elements lie in the input for tf_crop_and_resize."""
    start, end = (np.float32(bound) for bound in region)
    last = np.float32(size - 1)
    if out == 1:
        return np.full(1, np.float32(0.5) * (start + end) * last, np.float32)
    step = (end - start) * last / np.float32(out - 1)
    return start * last + np.arange(out, dtype=np.float32) * step


def _positions(
    size: int, out: int, scale: float, coordinates: str, region: tuple[float, float]
) -> Array:
    """Return where the output's elements lie in the input."""
    if coordinates == "tf_crop_and_resize":
        return _in_region(size, out, region)
    at = np.arange(out, dtype=np.float32)
    ratio = np.float32(scale)
    half, one = np.float32(0.5), np.float32(1)
    if coordinates == "asymmetric":
        return at / ratio
    if coordinates == "tf_half_pixel_for_nn":
        return (at + half) / ratio
    if coordinates == "align_corners":
        if abs(scale * size - out) > 1e-3:
            raise UnsupportedError("Resize with align_corners and a fractional output size")
        return at * np.float32(size - 1) / np.float32(out - 1) if out > 1 else at * 0
    if coordinates == "pytorch_half_pixel" and out == 1:
        return at * 0
    offset = np.float32(0)
    if coordinates == "half_pixel_symmetric":
        adjustment = np.float32(out) / (ratio * np.float32(size))
        offset = np.float32(size) / np.float32(2) * (one - adjustment)
    return offset + (at + half) / ratio - half


def _round(where: Array, nearest: str) -> Array:
    if nearest == "round_prefer_floor":
        return np.ceil(where - np.float32(0.5))
    if nearest == "round_prefer_ceil":
        return np.floor(where + np.float32(0.5))
    if nearest == "floor":
        return np.floor(where)
    if nearest == "ceil":
        return np.ceil(where)
    raise UnsupportedError(f"Resize with nearest_mode={nearest!r} is not known")


def _cubic(ratio: Array, a: float) -> Array:
    far, near, after = ratio + 1, 1 - ratio, 2 - ratio
    return np.stack(
        [
            ((a * far - 5 * a) * far + 8 * a) * far - 4 * a,
            ((a + 2) * ratio - (a + 3)) * ratio * ratio + 1,
            ((a + 2) * near - (a + 3)) * near * near + 1,
            ((a * after - 5 * a) * after + 8 * a) * after - 4 * a,
        ]
    )


def _smooth(data: torch.Tensor, axis: int, where: Array, scale: float, how: _How) -> torch.Tensor:
    """Shrink along an axis with the filter as wide as the step between the outputs."""
    size = data.shape[axis]
    reach = math.ceil((1 if how.mode == "linear" else 2) / scale)
    low = np.floor(where).astype(np.int64).reshape(-1, 1)
    neighbours = low + np.arange(-reach, reach + 2)
    far = np.abs(neighbours - where.reshape(-1, 1).astype(np.float64)) * scale
    if how.mode == "linear":
        weights = np.clip(1 - far, 0, None)
    else:
        a = how.cubic_a
        near = ((a + 2) * far - (a + 3)) * far * far + 1
        weights = np.where(far <= 1, near, ((a * far - 5 * a) * far + 8 * a) * far - 4 * a)
        weights = np.where(far < 2, weights, 0.0)
    if how.exclude_outside:
        weights = np.where((neighbours < 0) | (neighbours >= size), 0.0, weights)
    weights = weights / weights.sum(1, keepdims=True)
    rows = np.zeros((len(where), size))
    np.add.at(
        rows, (np.arange(len(where)).reshape(-1, 1), np.clip(neighbours, 0, size - 1)), weights
    )
    matrix = torch.from_numpy(rows).to(data.device, data.dtype)
    return (data.movedim(axis, -1) @ matrix.transpose(0, 1)).movedim(-1, axis)


def _along(
    data: torch.Tensor,
    axis: int,
    out: int,
    scale: float,
    how: _How,
    region: tuple[float, float] = _WHOLE,
) -> torch.Tensor:
    size = data.shape[axis]
    where = _positions(size, out, scale, how.coordinates, region)
    if how.antialias and scale < 1 and how.mode != "nearest":
        return _smooth(data, axis, where, scale, how)
    if how.mode == "nearest":
        near = np.float32(1e-4)
        if how.coordinates == "half_pixel_symmetric" and not np.array_equal(
            _round(where - near, how.nearest), _round(where + near, how.nearest)
        ):
            raise UnsupportedError("Resize with half_pixel_symmetric and a tie of two neighbours")
        places = np.clip(_round(where, how.nearest), 0, size - 1).astype(np.int64)
        return torch.index_select(data, axis, torch.from_numpy(places).to(data.device))
    low = np.floor(where)
    ratio = (where - low).astype(np.float64)
    if how.mode == "linear":
        first, weights = 0, np.stack([1 - ratio, ratio])
    else:
        first, weights = -1, _cubic(ratio, how.cubic_a)
    neighbours = low.astype(np.int64) + first + np.arange(len(weights)).reshape(-1, 1)
    if how.exclude_outside and how.mode == "cubic":
        weights = np.where((neighbours < 0) | (neighbours >= size), 0.0, weights)
        weights = weights / weights.sum(0)
    neighbours = np.clip(neighbours, 0, size - 1)
    shape = [-1 if i == axis else 1 for i in range(data.ndim)]
    result: torch.Tensor | None = None
    for places, factors in zip(neighbours, weights, strict=True):
        index = torch.from_numpy(places).to(data.device)
        weight = torch.from_numpy(factors).to(data.device, data.dtype).reshape(shape)
        part = torch.index_select(data, axis, index) * weight
        result = part if result is None else result + part
    if result is None:
        raise UnsupportedError("Resize without neighbours")
    return result


def _resize(
    X: torch.Tensor,
    scales: list[float],
    sizes: list[int] | None,
    how: _How,
    regions: list[tuple[float, float]] | None = None,
    outside: float = 0.0,
) -> torch.Tensor:
    """Resize every axis by its scale, to its size where that is given.

    With `regions` of interest, elements that lie outside the input become `outside`.
    """
    if how.mode not in ("nearest", "linear", "cubic"):
        raise UnsupportedError(f"Resize with mode={how.mode!r} is not known")
    if how.coordinates not in _COORDINATES:
        raise UnsupportedError(f"Resize with coordinates {how.coordinates!r} is not computed")
    if how.mode != "nearest":
        require_float(X, f"Resize with mode={how.mode!r}")
    half = X.dtype in (torch.float16, torch.bfloat16) and how.mode != "nearest"
    result = X.to(torch.float32) if half else X
    inside: torch.Tensor | None = None
    for axis, scale in enumerate(scales):
        region = _WHOLE if regions is None else regions[axis]
        size = X.shape[axis]
        out = int(np.float32(scale) * np.float32(size)) if sizes is None else sizes[axis]
        if out == size and scale == 1.0 and region == _WHOLE:
            continue
        if size == 0 or out == 0:
            raise UnsupportedError("Resize from or to nothing is not computed")
        result = _along(result, axis, out, scale, how, region)
        if regions is not None:
            where = _in_region(size, out, region)
            shape = [-1 if i == axis else 1 for i in range(X.ndim)]
            known = torch.from_numpy((where >= 0) & (where <= size - 1)).reshape(shape)
            inside = known if inside is None else inside & known
    if inside is not None:
        result = torch.where(inside.to(X.device), result, result.new_full((), outside))
    return result.to(X.dtype)


def _upsample(X: torch.Tensor, scales: list[float], mode: str) -> torch.Tensor:
    if min(scales) < 1:
        raise UnsupportedError("Upsample, or Resize 10, to a smaller size is not computed")
    return _resize(X, scales, None, _How(mode, "asymmetric", "floor"))


@op("Upsample", 7)
def upsample_7(X: torch.Tensor, *, mode: str = "nearest", scales: list[float]) -> torch.Tensor:
    """Upsample (7)."""
    return _upsample(X, scales, mode)


@op("Upsample", 9, host=(1,))
def upsample_9(X: torch.Tensor, scales: torch.Tensor, *, mode: str = "nearest") -> torch.Tensor:
    """Upsample (9)."""
    return _upsample(X, host_floats(scales, "the scales of Upsample"), mode)


@op("Resize", 10, host=(1,))
def resize_10(X: torch.Tensor, scales: torch.Tensor, *, mode: str = "nearest") -> torch.Tensor:
    """Resize (10): to larger sizes only, where it is Upsample."""
    return _upsample(X, host_floats(scales, "the scales of Resize"), mode)


@op("Resize", 11, 13, host=(1, 2))
def resize_11(
    X: torch.Tensor,
    roi: torch.Tensor | None = None,
    scales: torch.Tensor | None = None,
    sizes: torch.Tensor | None = None,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> torch.Tensor:
    """Resize (11, 13)."""
    return resize(
        X,
        roi,
        scales,
        sizes,
        coordinate_transformation_mode=coordinate_transformation_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=exclude_outside,
        extrapolation_value=extrapolation_value,
        mode=mode,
        nearest_mode=nearest_mode,
    )


def _fit(
    X: torch.Tensor, axes: list[int], sizes: list[int], policy: str
) -> tuple[list[int], list[float]]:
    """Return sizes and scales; keeping the aspect ratio, the named axes share one scale."""
    if policy == "stretch":
        return sizes, [length / size for length, size in zip(sizes, X.shape, strict=True)]
    ratios = [sizes[axis] / X.shape[axis] for axis in axes]
    if policy not in ("not_larger", "not_smaller"):
        raise UnsupportedError(f"Resize with keep_aspect_ratio_policy={policy!r} is not known")
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    scales = [ratio if axis in axes else 1.0 for axis in range(X.ndim)]
    lengths = [
        math.floor(ratio * size + 0.5) if axis in axes else size
        for axis, size in enumerate(X.shape)
    ]
    return lengths, scales


@op("Resize", 18, 19, host=(1, 2))
def resize(
    X: torch.Tensor,
    roi: torch.Tensor | None = None,
    scales: torch.Tensor | None = None,
    sizes: torch.Tensor | None = None,
    *,
    antialias: int = 0,
    axes: list[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> torch.Tensor:
    """Resize (18, 19): tf_crop_and_resize to given sizes only."""
    chosen = list(range(X.ndim)) if axes is None else positive_axes(axes, X.ndim)
    regions: list[tuple[float, float]] | None = None
    if coordinate_transformation_mode == "tf_crop_and_resize":
        bounds = [] if roi is None else host_floats(roi, "the roi of Resize")
        if len(bounds) != 2 * len(chosen) or sizes is None:
            raise UnsupportedError(
                f"Resize with tf_crop_and_resize, a roi of {len(bounds)} numbers for the axes "
                f"{chosen}, {'no ' if sizes is None else ''}sizes"
            )
        regions = [_WHOLE] * X.ndim
        for i, axis in enumerate(chosen):
            regions[axis] = bounds[i], bounds[len(chosen) + i]
    factors = [1.0] * X.ndim
    lengths: list[int] | None = None
    if scales is not None and scales.numel():
        for axis, scale in zip(chosen, host_floats(scales, "the scales of Resize"), strict=True):
            factors[axis] = scale
    elif sizes is not None:
        lengths = list(X.shape)
        for axis, length in zip(chosen, host_ints(sizes, "the sizes of Resize"), strict=True):
            lengths[axis] = length
        lengths, factors = _fit(X, chosen, lengths, keep_aspect_ratio_policy)
    else:
        raise UnsupportedError("Resize with neither scales nor sizes")
    how = _How(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(exclude_outside),
        bool(antialias),
    )
    return _resize(X, factors, lengths, how, regions, extrapolation_value)
