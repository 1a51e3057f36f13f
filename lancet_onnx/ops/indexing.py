# SPDX-License-Identifier: Apache-2.0
"""Slicing, splitting, gathering and scattering."""

from __future__ import annotations

import math

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_ints, meet, positive_axis
from lancet_onnx.ops.registry import op

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def _slice_axis(data: torch.Tensor, at: int, start: int, end: int, step: int) -> torch.Tensor:
    size = data.shape[at]
    first = start + size if start < 0 else start
    last = end + size if end < 0 else end
    if step == 0:
        raise UnsupportedError("Slice with a step of 0 is not known")
    if step > 0:
        chosen = range(_clamp(first, 0, size), _clamp(last, 0, size), step)
    else:
        chosen = range(_clamp(first, 0, size - 1), _clamp(last, -1, size - 1), step)
    if len(chosen) == 0:
        return data.narrow(at, 0, 0)
    low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
    where = [slice(None)] * data.ndim
    where[at] = slice(low, high + 1, abs(step))
    result = data[tuple(where)]
    return result if step > 0 else torch.flip(result, [at])


def _slice(
    data: torch.Tensor,
    starts: list[int],
    ends: list[int],
    axes: list[int] | None,
    steps: list[int] | None,
) -> torch.Tensor:
    chosen = list(range(len(starts))) if axes is None else axes
    strides = [1] * len(starts) if steps is None else steps
    result = data
    for axis, start, end, step in zip(chosen, starts, ends, strides, strict=True):
        result = _slice_axis(result, positive_axis(axis, data.ndim), start, end, step)
    return result


@op("Slice", 1)
def slice_1(
    data: torch.Tensor, *, axes: list[int] | None = None, ends: list[int], starts: list[int]
) -> torch.Tensor:
    """Slice (1): bounds are attributes."""
    return _slice(data, starts, ends, axes, None)


@op("Slice", 10, 11, 13)
def slice_(
    data: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    axes: torch.Tensor | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    """Slice (10, 11, 13)."""
    return _slice(
        data,
        host_ints(starts, "the starts of Slice"),
        host_ints(ends, "the ends of Slice"),
        None if axes is None else host_ints(axes, "the axes of Slice"),
        None if steps is None else host_ints(steps, "the steps of Slice"),
    )


def _even(size: int, parts: int) -> list[int]:
    if size % parts:
        raise UnsupportedError(f"Split of {size} into {parts} equal parts before opset 18")
    return [size // parts] * parts


@op("Split", 2, 11, counts_outputs=True)
def split_2(
    input: torch.Tensor,
    *,
    axis: int = 0,
    split: list[int] | None = None,
    n_outputs: int,
) -> tuple[torch.Tensor, ...]:
    """Split (2, 11): sizes are an attribute."""
    at = positive_axis(axis, input.ndim)
    return torch.split(input, split or _even(input.shape[at], n_outputs), at)


@op("Split", 13, counts_outputs=True)
def split_13(
    input: torch.Tensor,
    split: torch.Tensor | None = None,
    *,
    axis: int = 0,
    n_outputs: int,
) -> tuple[torch.Tensor, ...]:
    """Split (13): sizes are an input."""
    at = positive_axis(axis, input.ndim)
    if split is not None:
        return torch.split(input, host_ints(split, "the sizes of Split"), at)
    return torch.split(input, _even(input.shape[at], n_outputs), at)


@op("Split", 18)
def split_18(
    input: torch.Tensor,
    split: torch.Tensor | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
) -> tuple[torch.Tensor, ...]:
    """Split (18): with num_outputs the last part may be smaller, even empty."""
    at = positive_axis(axis, input.ndim)
    if split is not None:
        return torch.split(input, host_ints(split, "the sizes of Split"), at)
    if num_outputs is None:
        raise UnsupportedError("Split with neither sizes nor num_outputs")
    size = input.shape[at]
    part = -(-size // num_outputs)
    sizes = [_clamp(size - part * i, 0, part) for i in range(num_outputs)]
    return torch.split(input, sizes, at)


def _wrapped(indices: torch.Tensor, size: int) -> torch.Tensor:
    """Return indices counted from the front, as torch wants them."""
    whole = indices.to(torch.int64)
    return torch.where(whole < 0, whole + size, whole)


@op("Gather", 1, 11, 13)
def gather(data: torch.Tensor, indices: torch.Tensor, *, axis: int = 0) -> torch.Tensor:
    """Gather (1, 11, 13)."""
    source, places = meet(data, indices)
    at = positive_axis(axis, data.ndim)
    flat = _wrapped(places, data.shape[at]).reshape(-1)
    result = torch.index_select(source, at, flat)
    return result.reshape((*data.shape[:at], *indices.shape, *data.shape[at + 1 :]))


@op("GatherElements", 11, 13)
def gather_elements(data: torch.Tensor, indices: torch.Tensor, *, axis: int = 0) -> torch.Tensor:
    """GatherElements (11, 13)."""
    source, places = meet(data, indices)
    at = positive_axis(axis, data.ndim)
    return torch.gather(source, at, _wrapped(places, data.shape[at]))


@op("GatherND", 11, 12, 13)
def gather_nd(data: torch.Tensor, indices: torch.Tensor, *, batch_dims: int = 0) -> torch.Tensor:
    """GatherND (11, 12, 13)."""
    source, places = meet(data, indices)
    parts = list(places.unbind(-1))
    rank = indices.ndim - 1
    leading = [
        torch.arange(data.shape[i], device=source.device).reshape(
            [-1 if j == i else 1 for j in range(rank)]
        )
        for i in range(batch_dims)
    ]
    tails = [_wrapped(part, data.shape[batch_dims + i]) for i, part in enumerate(parts)]
    return source[tuple(leading + tails)]


def _check_reduction(reduction: str, known: tuple[str, ...]) -> None:
    if reduction not in known:
        raise UnsupportedError(f"scattering with reduction={reduction!r} is not known here")


@op("ScatterND", 11, 13, 16, 18)
def scatter_nd(
    data: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, *, reduction: str = "none"
) -> torch.Tensor:
    """ScatterND (11, 13, 16, 18)."""
    _check_reduction(reduction, ("none", *_REDUCTIONS))
    target, places, values = meet(data, indices, updates)
    depth = indices.shape[-1]
    shape = data.shape[:depth]
    flat = torch.zeros_like(places[..., 0], dtype=torch.int64)
    for i in range(depth):
        flat = flat * shape[i] + _wrapped(places[..., i], shape[i])
    rest = math.prod(data.shape[depth:])
    rows = target.reshape(math.prod(shape), rest)
    where = flat.reshape(-1, 1).expand(flat.numel(), rest)
    values = values.reshape(flat.numel(), rest)
    if reduction == "none":
        result = torch.scatter(rows, 0, where, values)
    else:
        result = torch.scatter_reduce(rows, 0, where, values, _REDUCTIONS[reduction])
    return result.reshape(data.shape)


@op("ScatterElements", 11, 13, 16, 18)
def scatter_elements(
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    *,
    axis: int = 0,
    reduction: str = "none",
) -> torch.Tensor:
    """ScatterElements (11, 13, 16, 18)."""
    _check_reduction(reduction, ("none", *_REDUCTIONS))
    target, places, values = meet(data, indices, updates)
    at = positive_axis(axis, data.ndim)
    where = _wrapped(places, data.shape[at])
    if reduction == "none":
        return torch.scatter(target, at, where, values)
    return torch.scatter_reduce(target, at, where, values, _REDUCTIONS[reduction])
