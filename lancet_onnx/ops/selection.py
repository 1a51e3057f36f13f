# SPDX-License-Identifier: Apache-2.0
"""Choosing elements, where the data may say how many: the sizes are read back when they do."""

from __future__ import annotations

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_floats, host_int, meet, positive_axis, refuse_bomb
from lancet_onnx.ops.indexing import scatter_elements
from lancet_onnx.ops.registry import op


@op("OneHot", 9, 11, 28, host=(1,))
def one_hot(
    indices: torch.Tensor, depth: torch.Tensor, values: torch.Tensor, *, axis: int = -1
) -> torch.Tensor:
    """OneHot (9, 11, 28): values are off and on; an index out of range is off everywhere."""
    sizes = host_floats(depth, "the depth of OneHot")
    if len(sizes) != 1:
        raise UnsupportedError(f"OneHot with depths {sizes}")
    size = int(sizes[0])
    refuse_bomb(size * indices.numel(), "OneHot")
    places, chosen = meet(indices.to(torch.int64), values)
    at = positive_axis(axis, indices.ndim + 1)
    wrapped = torch.where(places < 0, places + size, places).unsqueeze(at)
    row = torch.arange(size, device=places.device)
    hot = wrapped == row.reshape([-1 if i == at else 1 for i in range(indices.ndim + 1)])
    return torch.where(hot, chosen[1], chosen[0])


@op("NonZero", 9, 13)
def non_zero(X: torch.Tensor) -> torch.Tensor:
    """NonZero (9, 13): one row for each axis."""
    data = X if X.ndim else X.reshape(1)
    return torch.nonzero(data != 0).transpose(0, 1)


@op("Compress", 9, 11, 28)
def compress(
    input: torch.Tensor, condition: torch.Tensor, *, axis: int | None = None
) -> torch.Tensor:
    """Compress (9, 11, 28): the condition may be shorter than the axis."""
    data = input.reshape(-1) if axis is None else input
    places = torch.nonzero(condition.reshape(-1)).reshape(-1)
    data, places = meet(data, places)
    return torch.index_select(data, positive_axis(axis or 0, data.ndim), places)


@op("Unique", 11, 28)
def unique(
    X: torch.Tensor, *, axis: int | None = None, sorted: int = 1
) -> tuple[torch.Tensor, ...]:
    """Unique (11, 28): values, first places, inverse places and counts."""
    data = X.reshape(-1) if axis is None else X
    at = positive_axis(axis or 0, data.ndim)
    # torch sorts no bfloat16 rows and few of the wide unsigned types.
    plain = data.to(torch.float32) if data.dtype == torch.bfloat16 else data.detach()
    values, inverse, counts = torch.unique(
        plain, sorted=True, return_inverse=True, return_counts=True, dim=at
    )
    n = values.shape[at]
    places = torch.arange(data.shape[at], device=data.device)
    firsts = torch.full_like(places[:1], data.shape[at]).expand(n)
    firsts = torch.scatter_reduce(firsts, 0, inverse, places, "amin")
    if not sorted:
        order = torch.argsort(firsts)
        inverse = torch.argsort(order)[inverse]
        firsts, counts = firsts[order], counts[order]
    return torch.index_select(data, at, firsts), firsts, inverse, counts


@op("ReverseSequence", 10, 28)
def reverse_sequence(
    input: torch.Tensor,
    sequence_lens: torch.Tensor,
    *,
    batch_axis: int = 1,
    time_axis: int = 0,
) -> torch.Tensor:
    """ReverseSequence (10, 28): what lies behind a sequence's end stays."""
    if {batch_axis, time_axis} != {0, 1}:
        raise UnsupportedError(f"ReverseSequence with axes {batch_axis} and {time_axis}")
    data, lengths = meet(input, sequence_lens.to(torch.int64))
    shape = [-1 if i == batch_axis else 1 for i in range(input.ndim)]
    ends = lengths.reshape(shape)
    steps = torch.arange(input.shape[time_axis], device=data.device)
    steps = steps.reshape([-1 if i == time_axis else 1 for i in range(input.ndim)])
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    return torch.gather(data, time_axis, places.expand(input.shape))


@op("TensorScatter", 24)
def tensor_scatter(
    past_cache: torch.Tensor,
    update: torch.Tensor,
    write_indices: torch.Tensor | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> torch.Tensor:
    """TensorScatter (24): writes each sample's update from its own index on."""
    if mode not in ("linear", "circular"):
        raise UnsupportedError(f"TensorScatter with mode={mode!r} is not known")
    at = positive_axis(axis, past_cache.ndim)
    if at == 0:
        raise UnsupportedError("TensorScatter along the batch axis")
    target, values = meet(past_cache, update)
    steps = torch.arange(update.shape[at], device=target.device)
    places = steps.reshape([-1 if i == at else 1 for i in range(update.ndim)])
    if write_indices is not None:
        starts = write_indices.to(target.device, torch.int64)
        places = places + starts.reshape([-1] + [1] * (update.ndim - 1))
    if mode == "circular":
        places = torch.remainder(places, past_cache.shape[at])
    return torch.scatter(target, at, places.expand(update.shape), values)


@op("Scatter", 9, 11)
def scatter(
    data: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, *, axis: int = 0
) -> torch.Tensor:
    """Scatter (9, 11): the older name of ScatterElements."""
    result = scatter_elements(data, indices, updates, axis=axis)
    if not isinstance(result, torch.Tensor):
        raise UnsupportedError("Scatter with more than one output")
    return result


@op("CumProd", 26)
def cum_prod(
    x: torch.Tensor, axis: torch.Tensor, *, exclusive: int = 0, reverse: int = 0
) -> torch.Tensor:
    """CumProd (26)."""
    at = positive_axis(host_int(axis, "the axis of CumProd"), x.ndim)
    data = torch.flip(x, [at]) if reverse else x
    if exclusive:
        # Ones come in from the front, and the last element drops out.
        pads = [0, 0] * (x.ndim - 1 - at) + [1, 0]
        data = functional.pad(data.narrow(at, 0, max(x.shape[at] - 1, 0)), pads, value=1)
    result = torch.cumprod(data, at, dtype=x.dtype)
    return torch.flip(result, [at]) if reverse else result
