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
)


@dataclass(frozen=True, slots=True)
class _How:
    """The attributes that say how values are found between the elements."""

    mode: str
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False


def _positions(size: int, out: int, scale: float, coordinates: str) -> Array:
    """Return where the output's elements lie in the input."""
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


def _along(data: torch.Tensor, axis: int, out: int, scale: float, how: _How) -> torch.Tensor:
    size = data.shape[axis]
    where = _positions(size, out, scale, how.coordinates)
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
    X: torch.Tensor, scales: list[float], sizes: list[int] | None, how: _How
) -> torch.Tensor:
    """Resize every axis by its scale, to its size where that is given."""
    if how.mode not in ("nearest", "linear", "cubic"):
        raise UnsupportedError(f"Resize with mode={how.mode!r} is not known")
    if how.coordinates not in _COORDINATES:
        raise UnsupportedError(f"Resize with coordinates {how.coordinates!r} is not computed")
    if how.mode != "nearest":
        require_float(X, f"Resize with mode={how.mode!r}")
    half = X.dtype in (torch.float16, torch.bfloat16) and how.mode != "nearest"
    result = X.to(torch.float32) if half else X
    for axis, scale in enumerate(scales):
        size = X.shape[axis]
        out = int(np.float32(scale) * np.float32(size)) if sizes is None else sizes[axis]
        if out == size and scale == 1.0:
            continue
        if size == 0 or out == 0:
            raise UnsupportedError("Resize from or to nothing is not computed")
        result = _along(result, axis, out, scale, how)
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
    """Resize (11, 13): tf_crop_and_resize, which alone needs a roi, is refused."""
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
    """Resize (18, 19): antialiased shrinking and tf_crop_and_resize are refused."""
    if coordinate_transformation_mode == "tf_crop_and_resize":
        raise UnsupportedError(
            "Resize with coordinate_transformation_mode=tf_crop_and_resize (roi of shape "
            f"{None if roi is None else list(roi.shape)}, outside {extrapolation_value})"
        )
    chosen = list(range(X.ndim)) if axes is None else positive_axes(axes, X.ndim)
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
    if antialias and min(factors) < 1 and mode != "nearest":
        raise UnsupportedError("Resize to a smaller size with antialias=1 is not computed")
    how = _How(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(exclude_outside),
    )
    return _resize(X, factors, lengths, how)
