# SPDX-License-Identifier: Apache-2.0
"""Pooling over windows and over whole images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import require_float
from lancet_onnx.ops.nn import check_auto_pad, same_pads, torch_pads
from lancet_onnx.ops.registry import op

_MAX: dict[int, Callable[..., Any]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_AVERAGE: dict[int, Callable[..., torch.Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}
_CONV: dict[int, Callable[..., torch.Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}


@dataclass(frozen=True, slots=True)
class _Windows:
    """Where the windows lie: pads of the specification, and padding that makes the last fit."""

    sizes: list[int]
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]
    outputs: list[int]

    @property
    def reach(self) -> list[int]:
        """How much the end of each axis must be padded, or cropped, for exactly the outputs."""
        return [
            (self.outputs[i] - 1) * self.strides[i]
            + (self.kernel[i] - 1) * self.dilations[i]
            + 1
            - self.sizes[i]
            - self.begins[i]
            for i in range(len(self.sizes))
        ]

    @property
    def symmetric(self) -> bool:
        """Whether torch finds the same windows when told the begins alone."""
        return all(
            begin == end and 0 <= begin <= length // 2 and reach <= end
            for begin, end, length, reach in zip(
                self.begins, self.ends, self.kernel, self.reach, strict=True
            )
        )

    def padded(self, X: torch.Tensor, value: float) -> torch.Tensor:
        """Return X as far as the windows reach."""
        return functional.pad(X, torch_pads(self.begins, self.reach), value=value)

    def counts(self, like: torch.Tensor, *, include_pad: bool) -> torch.Tensor:
        """Return for each window how many of its elements count."""
        total = like.new_ones(())
        n = len(self.sizes)
        for i in range(n):
            low = 0 if include_pad else self.begins[i]
            high = self.begins[i] + self.sizes[i] + (self.ends[i] if include_pad else 0)
            numbers = [
                sum(
                    low <= at * self.strides[i] + k * self.dilations[i] < high
                    for k in range(self.kernel[i])
                )
                for at in range(self.outputs[i])
            ]
            row = torch.tensor(numbers, dtype=like.dtype, device=like.device)
            total = total * row.reshape([-1 if j == i else 1 for j in range(n)])
        return total


def _windows(
    X: torch.Tensor,
    *,
    auto_pad: str,
    ceil_mode: int,
    dilations: list[int] | None,
    kernel_shape: list[int],
    pads: list[int] | None,
    strides: list[int] | None,
) -> _Windows:
    check_auto_pad(auto_pad)
    n = len(kernel_shape)
    if n not in _MAX or X.ndim != n + 2:
        raise UnsupportedError(f"pooling with kernel {kernel_shape} of a rank {X.ndim} tensor")
    sizes = list(X.shape[2:])
    steps, gaps = strides or [1] * n, dilations or [1] * n
    amounts = pads or [0] * (2 * n)
    if auto_pad != "NOTSET":
        amounts = same_pads(auto_pad, sizes, kernel_shape, steps, gaps)
    if min(amounts) < 0 or any(amounts[i] >= kernel_shape[i % n] for i in range(2 * n)):
        raise UnsupportedError(f"pooling of {kernel_shape} windows with pads {amounts}")
    outputs = []
    for i in range(n):
        free = sizes[i] + amounts[i] + amounts[n + i] - (kernel_shape[i] - 1) * gaps[i] - 1
        count = free // steps[i] + 1
        if ceil_mode and auto_pad == "NOTSET":
            count = -(-free // steps[i]) + 1
            if (count - 1) * steps[i] >= sizes[i] + amounts[i]:
                count -= 1
        elif ceil_mode and auto_pad == "VALID" and free % steps[i]:
            raise UnsupportedError(
                "pooling with auto_pad=VALID and ceil_mode=1: its specification and onnxruntime "
                "disagree on the size"
            )
        if count < 1:
            raise UnsupportedError(f"pooling window {kernel_shape} larger than its input {sizes}")
        outputs.append(count)
    return _Windows(sizes, kernel_shape, steps, gaps, amounts[:n], amounts[n:], outputs)


@op("MaxPool", 1, 8, 10, 11, 12, 22, counts_outputs=True)
def max_pool(
    X: torch.Tensor,
    *,
    kernel_shape: list[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    storage_order: int = 0,
    strides: list[int] | None = None,
    n_outputs: int = 1,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """MaxPool (1, 8, 10, 11, 12, 22): Indices count through the whole input."""
    at = _windows(
        X,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    data = X if X.is_floating_point() else X.to(torch.float32)
    function = _MAX[len(at.sizes)]
    if n_outputs > 1:
        values, places = function(
            at.padded(data, -math.inf), at.kernel, at.strides, 0, at.dilations, return_indices=True
        )
        return values.to(X.dtype), _unpadded(places, X, at, by_columns=bool(storage_order))
    if at.symmetric:
        result: torch.Tensor = function(data, at.kernel, at.strides, at.begins, at.dilations)
    else:
        result = function(at.padded(data, -math.inf), at.kernel, at.strides, 0, at.dilations)
    return result.to(X.dtype)


def _unpadded(
    places: torch.Tensor, X: torch.Tensor, at: _Windows, *, by_columns: bool
) -> torch.Tensor:
    """Return indices into all of X from those into each padded image."""
    n = len(at.sizes)
    whole = [at.begins[i] + at.sizes[i] + at.reach[i] for i in range(n)]
    parts: list[torch.Tensor] = []
    rest = places
    for i in reversed(range(n)):
        parts.insert(0, torch.remainder(rest, whole[i]) - at.begins[i])
        rest = torch.div(rest, whole[i], rounding_mode="floor")
    images = torch.arange(math.prod(X.shape[:2]), device=places.device)
    result = images.reshape(*X.shape[:2], *[1] * n)
    for i in reversed(range(n)) if by_columns else range(n):
        result = result * at.sizes[i] + parts[i]
    return result


def _average(data: torch.Tensor, at: _Windows) -> torch.Tensor:
    """Return the mean of every window, padding included, of data that is already padded."""
    n = len(at.sizes)
    if max(at.dilations) == 1:
        return _AVERAGE[n](data, at.kernel, at.strides)
    ones = data.new_full((1, 1, *at.kernel), 1 / math.prod(at.kernel))
    single = data.reshape(-1, 1, *data.shape[2:])
    result = _CONV[n](single, ones, None, at.strides, 0, at.dilations)
    return result.reshape(*data.shape[:2], *result.shape[2:])


@op("AveragePool", 7, 10, 11, 19, 22)
def average_pool(
    X: torch.Tensor,
    *,
    kernel_shape: list[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """AveragePool (7, 10, 11, 19, 22): no window starts in the padding at the end."""
    at = _windows(
        X,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    if at.symmetric and max(at.dilations) == 1:
        function = _AVERAGE[len(at.sizes)]
        return function(X, at.kernel, at.strides, at.begins, False, bool(count_include_pad))
    counts = at.counts(X, include_pad=bool(count_include_pad))
    return _average(at.padded(X, 0.0), at) * (math.prod(at.kernel) / counts)


def _root(sums: torch.Tensor, p: float) -> torch.Tensor:
    """Return the p-th root, with a gradient of zero where the sum is zero."""
    positive = sums > 0
    safe = torch.where(positive, sums, torch.ones_like(sums))
    return torch.where(positive, safe ** (1.0 / p), torch.zeros_like(sums))


@op("LpPool", 2, 11, 18, 22)
def lp_pool(
    X: torch.Tensor,
    *,
    kernel_shape: list[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    p: int = 2,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """LpPool (2, 11, 18, 22)."""
    at = _windows(
        X,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    means = _average(at.padded(torch.abs(X) ** p, 0.0), at)
    return _root(means * math.prod(at.kernel), p)


def _spatial(X: torch.Tensor) -> list[int]:
    if X.ndim < 3:
        raise UnsupportedError(f"global pooling of a rank {X.ndim} tensor is not computed")
    return list(range(2, X.ndim))


@op("GlobalAveragePool", 1, 22)
def global_average_pool(X: torch.Tensor) -> torch.Tensor:
    """GlobalAveragePool (1, 22)."""
    return torch.mean(X, _spatial(X), keepdim=True)


@op("GlobalMaxPool", 1, 22)
def global_max_pool(X: torch.Tensor) -> torch.Tensor:
    """GlobalMaxPool (1, 22)."""
    return torch.amax(X, _spatial(X), keepdim=True)


@op("GlobalLpPool", 2, 22)
def global_lp_pool(X: torch.Tensor, *, p: int = 2) -> torch.Tensor:
    """GlobalLpPool (2, 22)."""
    require_float(X, "GlobalLpPool")
    return _root(torch.sum(torch.abs(X) ** p, _spatial(X), keepdim=True), p)
