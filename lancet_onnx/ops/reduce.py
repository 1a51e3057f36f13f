# SPDX-License-Identifier: Apache-2.0
"""Reductions, the positions of extremes, sorting and running sums."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_int, host_ints, positive_axes, positive_axis, require_float
from lancet_onnx.ops.registry import op

Core = Callable[[torch.Tensor, list[int], bool], torch.Tensor]
"""Reduces a tensor over at least one axis, counted from the front."""


def _sum(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if data.dtype in (torch.uint32, torch.uint64):
        return torch.sum(data.to(torch.int64), axes, keepdim=keep).to(data.dtype)
    return torch.sum(data, axes, keepdim=keep, dtype=data.dtype)


def _mean(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    require_float(data, "ReduceMean")
    return torch.mean(data, axes, keepdim=keep)


def _l1(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return _sum(torch.abs(data), axes, keep)


def _l2(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    require_float(data, "ReduceL2")
    result: torch.Tensor = torch.linalg.vector_norm(data, 2, axes, keepdim=keep)
    return result


def _log_sum(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    require_float(data, "ReduceLogSum")
    return torch.log(_sum(data, axes, keep))


def _log_sum_exp(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    require_float(data, "ReduceLogSumExp")
    return torch.logsumexp(data, axes, keepdim=keep)


def _sum_square(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return _sum(data * data, axes, keep)


def _prod(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    result = data
    for axis in sorted(axes, reverse=True):
        result = torch.prod(result, axis, keepdim=keep, dtype=data.dtype)
    return result


def _lowest(dtype: torch.dtype) -> float | int | bool:
    if dtype == torch.bool:
        return False
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> float | int | bool:
    if dtype == torch.bool:
        return True
    return math.inf if dtype.is_floating_point else torch.iinfo(dtype).max


def _nothing(
    data: torch.Tensor, axes: list[int], keep: bool, value: float | int | bool
) -> torch.Tensor:
    """Return what reducing over an empty axis gives."""
    shape = [1 if i in axes else n for i, n in enumerate(data.shape) if keep or i not in axes]
    return torch.full(shape, value, dtype=data.dtype, device=data.device)


def _max(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if any(data.shape[axis] == 0 for axis in axes):
        return _nothing(data, axes, keep, _lowest(data.dtype))
    return torch.amax(data, axes, keepdim=keep)


def _min(data: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if any(data.shape[axis] == 0 for axis in axes):
        return _nothing(data, axes, keep, _highest(data.dtype))
    return torch.amin(data, axes, keepdim=keep)


def _reduce(core: Core, data: torch.Tensor, axes: list[int], keepdims: int) -> torch.Tensor:
    dims = positive_axes(axes, data.ndim) if data.ndim else []
    if not dims:  # reduce every element by itself
        return core(data.unsqueeze(-1), [data.ndim], False)
    return core(data, dims, bool(keepdims))


def _by_attribute(core: Core) -> Callable[..., torch.Tensor]:
    def reduced(
        data: torch.Tensor, *, axes: list[int] | None = None, keepdims: int = 1
    ) -> torch.Tensor:
        return _reduce(core, data, axes or list(range(data.ndim)), keepdims)

    return reduced


def _by_input(core: Core) -> Callable[..., torch.Tensor]:
    def reduced(
        data: torch.Tensor,
        axes: torch.Tensor | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> torch.Tensor:
        chosen = [] if axes is None else host_ints(axes, "the axes of a reduction")
        if not chosen and not noop_with_empty_axes:
            chosen = list(range(data.ndim))
        return _reduce(core, data, chosen, keepdims)

    return reduced


_REDUCTIONS: tuple[tuple[str, Core, tuple[int, ...], tuple[int, ...]], ...] = (
    ("ReduceL1", _l1, (1, 11, 13), (18,)),
    ("ReduceL2", _l2, (1, 11, 13), (18,)),
    ("ReduceLogSum", _log_sum, (1, 11, 13), (18, 28)),
    ("ReduceLogSumExp", _log_sum_exp, (1, 11, 13), (18, 28)),
    ("ReduceMax", _max, (1, 11, 12, 13), (18, 20)),
    ("ReduceMean", _mean, (1, 11, 13), (18,)),
    ("ReduceMin", _min, (1, 11, 12, 13), (18, 20)),
    ("ReduceProd", _prod, (1, 11, 13), (18,)),
    ("ReduceSum", _sum, (1, 11), (13,)),
    ("ReduceSumSquare", _sum_square, (1, 11, 13), (18,)),
)
"""Name, function, versions with axes as an attribute, versions with axes as an input."""

for _op_type, _core, _attribute_versions, _input_versions in _REDUCTIONS:
    op(_op_type, *_attribute_versions)(_by_attribute(_core))
    op(_op_type, *_input_versions)(_by_input(_core))


def _extreme(
    data: torch.Tensor, axis: int, keepdims: int, select_last_index: int, *, largest: bool
) -> torch.Tensor:
    at = positive_axis(axis, data.ndim)
    function = torch.argmax if largest else torch.argmin
    if not select_last_index:
        return function(data, at, keepdim=bool(keepdims))
    return data.shape[at] - 1 - function(torch.flip(data, [at]), at, keepdim=bool(keepdims))


@op("ArgMax", 1, 11, 12, 13)
def arg_max(
    data: torch.Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> torch.Tensor:
    """ArgMax (1, 11, 12, 13): the first of equals unless told otherwise."""
    return _extreme(data, axis, keepdims, select_last_index, largest=True)


@op("ArgMin", 1, 11, 12, 13)
def arg_min(
    data: torch.Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> torch.Tensor:
    """ArgMin (1, 11, 12, 13): the first of equals unless told otherwise."""
    return _extreme(data, axis, keepdims, select_last_index, largest=False)


def _top_k(
    X: torch.Tensor, count: int, axis: int, largest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    at = positive_axis(axis, X.ndim)
    values, indices = torch.sort(X, dim=at, descending=bool(largest), stable=True)
    return values.narrow(at, 0, count), indices.narrow(at, 0, count)


@op("TopK", 1)
def top_k_1(X: torch.Tensor, *, axis: int = -1, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """TopK (1): k is an attribute."""
    return _top_k(X, k, axis, 1)


@op("TopK", 10, 11, 24)
def top_k(
    X: torch.Tensor,
    K: torch.Tensor,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """TopK (10, 11, 24): of equals the lower index first."""
    if not sorted:
        raise UnsupportedError("TopK with sorted=0 leaves the order open, so it is not computed")
    return _top_k(X, host_int(K, "the K of TopK"), axis, largest)


@op("CumSum", 11, 14)
def cum_sum(
    x: torch.Tensor, axis: torch.Tensor, *, exclusive: int = 0, reverse: int = 0
) -> torch.Tensor:
    """CumSum (11, 14)."""
    at = positive_axis(host_int(axis, "the axis of CumSum"), x.ndim)
    data = torch.flip(x, [at]) if reverse else x
    result = torch.cumsum(data, at, dtype=x.dtype)
    if exclusive:
        size = x.shape[at]
        first = torch.zeros_like(result.narrow(at, 0, min(size, 1)))
        result = torch.cat([first, result.narrow(at, 0, max(size - 1, 0))], at)
    return torch.flip(result, [at]) if reverse else result
