# SPDX-License-Identifier: Apache-2.0
"""Sampling images between their elements: grids, regions, deformed windows."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_ints, meet, require_float
from lancet_onnx.ops.registry import op

_MODES = {
    "bilinear": "bilinear",
    "linear": "bilinear",
    "nearest": "nearest",
    "bicubic": "bicubic",
    "cubic": "bicubic",
}


@op("GridSample", 16, 20, 22)
def grid_sample(
    X: torch.Tensor,
    grid: torch.Tensor,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> torch.Tensor:
    """GridSample (16, 20, 22): images and volumes; volumes not with cubic interpolation."""
    require_float(X, "GridSample")
    if mode not in _MODES or padding_mode not in ("zeros", "border", "reflection"):
        raise UnsupportedError(f"GridSample with mode={mode!r} and padding_mode={padding_mode!r}")
    if X.ndim not in (4, 5) or (X.ndim == 5 and _MODES[mode] == "bicubic"):
        raise UnsupportedError(f"GridSample of a rank {X.ndim} tensor with mode={mode!r}")
    image, where = meet(X, grid.to(X.dtype))
    return functional.grid_sample(image, where, _MODES[mode], padding_mode, bool(align_corners))


@op("AffineGrid", 20)
def affine_grid(theta: torch.Tensor, size: torch.Tensor, *, align_corners: int = 0) -> torch.Tensor:
    """AffineGrid (20): for images and volumes."""
    lengths = host_ints(size, "the size of AffineGrid")[2:]
    rank = len(lengths)
    if theta.shape[1:] != (rank, rank + 1) or rank not in (2, 3):
        raise UnsupportedError(f"AffineGrid of size {lengths} with theta {list(theta.shape)}")
    if align_corners and min(lengths) < 2:
        raise UnsupportedError("AffineGrid with align_corners along an axis of one element")
    rows = []
    for i, length in enumerate(lengths):
        steps = torch.arange(length, dtype=torch.float64)
        places = steps * 2 / (length - 1) - 1 if align_corners else (steps * 2 + 1) / length - 1
        rows.append(places.reshape([-1 if j == i else 1 for j in range(rank)]).expand(lengths))
    points = torch.stack([*reversed(rows), torch.ones(lengths, dtype=torch.float64)], -1)
    flat = points.reshape(-1, rank + 1).to(theta.device, theta.dtype)
    result = flat @ theta.transpose(-1, -2)
    return result.reshape(theta.shape[0], *lengths, rank)


def _edge(places: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """Return the two neighbours along an axis and the share of the second, with what is inside."""
    inside = (places >= -1.0) & (places <= size)
    near = torch.clamp(places, 0.0, size - 1.0)
    low = torch.floor(near).detach()
    share = near - low
    first = low.to(torch.int64)
    return first, torch.clamp(first + 1, max=size - 1), share, inside


def _points(
    start: torch.Tensor, step: torch.Tensor, bins: int, counts: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sampling points (regions, bins, most) along an axis and which of them count."""
    number = torch.arange(most, device=start.device)
    at = torch.arange(bins, device=start.device, dtype=start.dtype).reshape(-1, 1)
    within = (number + 0.5) / counts.reshape(-1, 1, 1)
    places = start.reshape(-1, 1, 1) + (at + within) * step.reshape(-1, 1, 1)
    return places, (number < counts.reshape(-1, 1, 1)).expand(places.shape)


@op("RoiAlign", 16, 22)
def roi_align(
    X: torch.Tensor,
    rois: torch.Tensor,
    batch_indices: torch.Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> torch.Tensor:
    """RoiAlign (16, 22): sampling_ratio=0 reads the sizes of the regions back."""
    if mode not in ("avg", "max"):
        raise UnsupportedError(f"RoiAlign with mode={mode!r} is not known")
    if coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise UnsupportedError(f"RoiAlign with coordinates {coordinate_transformation_mode!r}")
    image, boxes, samples = meet(X, rois.to(X.dtype), batch_indices.to(torch.int64))
    half = coordinate_transformation_mode == "half_pixel"
    left, top, right, bottom = (boxes * spatial_scale - (0.5 if half else 0.0)).unbind(1)
    ways = []
    for start, end, bins in ((top, bottom, output_height), (left, right, output_width)):
        length = end - start if half else torch.clamp(end - start, min=1.0)
        counts = torch.full_like(start, sampling_ratio)
        if sampling_ratio <= 0:
            counts = torch.ceil(length / bins).detach()
        most = sampling_ratio if sampling_ratio > 0 else int(counts.max()) if len(counts) else 0
        ways.append(_points(start, length / bins, bins, torch.clamp(counts, min=1), max(most, 1)))
        if sampling_ratio <= 0:
            places, valid = ways[-1]
            ways[-1] = places, valid & (counts > 0).reshape(-1, 1, 1)
    (rows, rows_count), (columns, columns_count) = ways
    y0, y1, dy, y_inside = _edge(rows, X.shape[2])
    x0, x1, dx, x_inside = _edge(columns, X.shape[3])
    across, down = (slice(None), None, None), (slice(None), slice(None), slice(None), None, None)
    valid = rows_count[down] & columns_count[across]
    inside = (y_inside[down] & x_inside[across] & valid).to(image.dtype)
    which = samples.reshape(-1, 1, 1, 1, 1)
    parts = [
        image[which, :, y[down], x[across]] * (wy[down] * wx[across] * inside).unsqueeze(-1)
        for y, wy in ((y0, 1 - dy), (y1, dy))
        for x, wx in ((x0, 1 - dx), (x1, dx))
    ]
    if mode == "avg":
        total = (parts[0] + parts[1] + parts[2] + parts[3]).sum((2, 4))
        counts = torch.clamp(valid.to(image.dtype).sum((2, 4)), min=1)
        result = total / counts.unsqueeze(-1)
    else:
        # The largest weighted neighbour, as the reference and onnxruntime have it.
        largest = torch.stack(parts).amax(0)
        shown = torch.where(valid.unsqueeze(-1), largest, largest.new_full((), -math.inf))
        result = shown.amax((2, 4))
        result = torch.where(torch.isneginf(result), torch.zeros_like(result), result)
    return result.permute(0, 3, 1, 2)


@op("RoiAlign", 10)
def roi_align_10(
    X: torch.Tensor,
    rois: torch.Tensor,
    batch_indices: torch.Tensor,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> torch.Tensor:
    """RoiAlign (10): coordinates without the half pixel."""
    return roi_align(
        X,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


def _bilinear(image: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return (batch, channels, points) of an image that is zero outside, at (batch, points)."""
    height, width = image.shape[2:]
    flat = image.flatten(2)
    low_y, low_x = torch.floor(y).detach(), torch.floor(x).detach()
    total: torch.Tensor | None = None
    for row, wy in ((low_y, 1 - (y - low_y)), (low_y + 1, y - low_y)):
        for column, wx in ((low_x, 1 - (x - low_x)), (low_x + 1, x - low_x)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = torch.clamp(row, 0, height - 1) * width + torch.clamp(column, 0, width - 1)
            index = place.to(torch.int64).unsqueeze(1).expand(-1, image.shape[1], -1)
            part = torch.gather(flat, 2, index) * (wy * wx * inside).unsqueeze(1)
            total = part if total is None else total + part
    return flat[:, :, :0] if total is None else total


@op("DeformConv", 19, 22)
def deform_conv(
    X: torch.Tensor,
    W: torch.Tensor,
    offset: torch.Tensor,
    B: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    *,
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    offset_group: int = 1,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """DeformConv (19, 22): over images; what lies outside is zero."""
    if X.ndim != 4:
        raise UnsupportedError(f"DeformConv of a rank {X.ndim} tensor is not computed")
    kernel = list(W.shape[2:]) if kernel_shape is None else kernel_shape
    steps, gaps, edges = strides or [1, 1], dilations or [1, 1], pads or [0, 0, 0, 0]
    samples, channels, height, width = X.shape
    rows, columns = offset.shape[2:]
    taps = kernel[0] * kernel[1]
    shifts = offset.reshape(samples, offset_group, *kernel, 2, rows, columns)
    line: list[torch.Tensor] = []
    for i, length in enumerate((rows, columns)):
        start = torch.arange(length, device=X.device, dtype=X.dtype) * steps[i] - edges[i]
        tap = torch.arange(kernel[i], device=X.device, dtype=X.dtype) * gaps[i]
        start = start.reshape([-1, 1] if i == 0 else [1, -1])
        tap = tap.reshape([-1, 1, 1, 1] if i == 0 else [1, -1, 1, 1])
        places = start + tap + shifts[:, :, :, :, i]
        line.append(places.reshape(samples * offset_group, -1))
    image = X.reshape(samples * offset_group, channels // offset_group, height, width)
    taken = _bilinear(image, line[0], line[1])
    taken = taken.reshape(samples, offset_group, -1, taps, rows, columns)
    if mask is not None:
        taken = taken * mask.reshape(samples, offset_group, 1, taps, rows, columns)
    data = taken.reshape(samples, group, channels // group * taps, rows * columns)
    weight = W.reshape(group, W.shape[0] // group, -1)
    result = (weight @ data).reshape(samples, -1, rows, columns)
    return result if B is None else result + B.reshape(-1, 1, 1)
