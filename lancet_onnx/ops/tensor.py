# SPDX-License-Identifier: Apache-2.0
"""Shapes, layouts, padding, casts and constants."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import (
    host_int,
    host_ints,
    meet,
    positive_axes,
    refuse_bomb,
)
from lancet_onnx.ops.registry import op


def _reshape(data: torch.Tensor, shape: torch.Tensor, allowzero: int) -> torch.Tensor:
    sizes = host_ints(shape, "the shape of Reshape")
    if not allowzero:
        sizes = [data.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    if -1 in sizes and 0 in sizes:
        if allowzero:
            raise UnsupportedError(f"Reshape to {sizes}: the size of -1 cannot be known")
        known = math.prod(size for size in sizes if size > 0)
        rest = data.numel() // known if known else 0
        sizes = [rest if size == -1 else size for size in sizes]
    return data.reshape(sizes)


@op("Reshape", 5, 13)
def reshape_5(data: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Reshape (5, 13): a size of 0 copies the input's."""
    return _reshape(data, shape, 0)


@op("Reshape", 14, 19, 21, 23, 24, 25)
def reshape(data: torch.Tensor, shape: torch.Tensor, *, allowzero: int = 0) -> torch.Tensor:
    """Reshape (14, 19, 21, 23, 24, 25): with allowzero a size of 0 is meant as such."""
    return _reshape(data, shape, allowzero)


@op("Flatten", 1, 9, 11, 13, 21, 23, 24, 25)
def flatten(input: torch.Tensor, *, axis: int = 1) -> torch.Tensor:
    """Flatten (1, 9, 11, 13, 21, 23, 24, 25)."""
    at = axis + input.ndim if axis < 0 else axis
    return input.reshape(math.prod(input.shape[:at]), math.prod(input.shape[at:]))


def _squeeze(data: torch.Tensor, axes: list[int] | None) -> torch.Tensor:
    if axes is None:
        return data.reshape([size for size in data.shape if size != 1])
    dims = positive_axes(axes, data.ndim)
    if any(data.shape[axis] != 1 for axis in dims):
        raise UnsupportedError(f"Squeeze of axes {axes} of a tensor of shape {list(data.shape)}")
    return data.reshape([size for i, size in enumerate(data.shape) if i not in dims])


@op("Squeeze", 1, 11)
def squeeze_1(data: torch.Tensor, *, axes: list[int] | None = None) -> torch.Tensor:
    """Squeeze (1, 11): axes are an attribute."""
    return _squeeze(data, axes)


@op("Squeeze", 13, 21, 23, 24, 25)
def squeeze(data: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    """Squeeze (13, 21, 23, 24, 25): axes are an input."""
    return _squeeze(data, None if axes is None else host_ints(axes, "the axes of Squeeze"))


def _unsqueeze(data: torch.Tensor, axes: list[int]) -> torch.Tensor:
    rank = data.ndim + len(axes)
    added = positive_axes(axes, rank)
    if len(set(added)) != len(axes):
        raise ValueError(f"the axes {axes} name one twice")
    sizes = iter(data.shape)
    return data.reshape([1 if i in added else next(sizes) for i in range(rank)])


@op("Unsqueeze", 1, 11)
def unsqueeze_1(data: torch.Tensor, *, axes: list[int]) -> torch.Tensor:
    """Unsqueeze (1, 11): axes are an attribute."""
    return _unsqueeze(data, axes)


@op("Unsqueeze", 13, 21, 23, 24, 25)
def unsqueeze(data: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    """Unsqueeze (13, 21, 23, 24, 25): axes are an input."""
    return _unsqueeze(data, host_ints(axes, "the axes of Unsqueeze"))


@op("Transpose", 1, 13, 21, 23, 24, 25)
def transpose(data: torch.Tensor, *, perm: list[int] | None = None) -> torch.Tensor:
    """Transpose (1, 13, 21, 23, 24, 25)."""
    return data.permute(list(reversed(range(data.ndim))) if perm is None else perm)


@op("Concat", 4, 11, 13)
def concat(*inputs: torch.Tensor, axis: int) -> torch.Tensor:
    """Concat (4, 11, 13)."""
    return torch.cat(meet(*inputs), axis)


@op("Expand", 8, 13)
def expand(input: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Expand (8, 13): both ways, so a size of 1 keeps the input's."""
    wanted = host_ints(shape, "the shape of Expand")
    return input.expand(np.broadcast_shapes(tuple(input.shape), tuple(wanted)))


@op("Tile", 6, 13)
def tile(input: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    """Tile (6, 13)."""
    times = host_ints(repeats, "the repeats of Tile")
    refuse_bomb(math.prod(times) * input.numel(), "Tile")
    return input.repeat(times)


def _pad_by_index(
    data: torch.Tensor, begins: list[int], ends: list[int], mode: str
) -> torch.Tensor:
    result = data
    for axis, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin == end == 0:
            continue
        size = data.shape[axis]
        if begin < 0 or end < 0 or size == 0:
            raise UnsupportedError(f"Pad with mode={mode!r} and pads {begin}, {end} of {size}")
        if mode == "reflect" and max(begin, end) >= size:
            raise UnsupportedError(f"Pad reflecting {max(begin, end)} of only {size} elements")
        places = np.arange(size)
        if mode == "reflect":
            places = np.pad(places, (begin, end), mode="reflect")
        elif mode == "edge":
            places = np.pad(places, (begin, end), mode="edge")
        else:
            places = np.pad(places, (begin, end), mode="wrap")
        result = torch.index_select(result, axis, torch.from_numpy(places).to(data.device))
    return result


def _pad(
    data: torch.Tensor,
    pads: list[int],
    axes: list[int],
    mode: str,
    value: torch.Tensor | None,
    modes: tuple[str, ...],
) -> torch.Tensor:
    if mode not in modes:
        raise UnsupportedError(f"Pad with mode={mode!r} is not known at this version")
    begins, ends = [0] * data.ndim, [0] * data.ndim
    for i, axis in enumerate(positive_axes(axes, data.ndim)):
        begins[axis], ends[axis] = pads[i], pads[len(axes) + i]
    if not any((*begins, *ends)):
        return data
    if mode != "constant":
        return _pad_by_index(data, begins, ends, mode)
    amounts = [n for i in reversed(range(data.ndim)) for n in (begins[i], ends[i])]
    result = functional.pad(data, amounts)
    if value is None:
        return result
    inside = torch.ones(data.shape, dtype=torch.bool, device=data.device)
    mask = functional.pad(inside, amounts, value=False)
    return torch.where(mask, result, value.reshape(()).to(data.device, data.dtype))


_MODES = ("constant", "reflect", "edge")


@op("Pad", 2)
def pad_2(
    data: torch.Tensor, *, mode: str = "constant", pads: list[int], value: float = 0.0
) -> torch.Tensor:
    """Pad (2): pads and value are attributes; negative pads crop."""
    fill = torch.tensor(value, dtype=data.dtype)
    return _pad(data, pads, list(range(data.ndim)), mode, fill if value else None, _MODES)


@op("Pad", 11, 13)
def pad_11(
    data: torch.Tensor,
    pads: torch.Tensor,
    constant_value: torch.Tensor | None = None,
    *,
    mode: str = "constant",
) -> torch.Tensor:
    """Pad (11, 13): pads and value are inputs; negative pads crop."""
    amounts = host_ints(pads, "the pads of Pad")
    return _pad(data, amounts, list(range(data.ndim)), mode, constant_value, _MODES)


def _pad_axes(data: torch.Tensor, axes: torch.Tensor | None) -> list[int]:
    return list(range(data.ndim)) if axes is None else host_ints(axes, "the axes of Pad")


@op("Pad", 18)
def pad_18(
    data: torch.Tensor,
    pads: torch.Tensor,
    constant_value: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
    *,
    mode: str = "constant",
) -> torch.Tensor:
    """Pad (18): may name its axes."""
    amounts = host_ints(pads, "the pads of Pad")
    return _pad(data, amounts, _pad_axes(data, axes), mode, constant_value, _MODES)


@op("Pad", 19, 21, 23, 24, 25)
def pad(
    data: torch.Tensor,
    pads: torch.Tensor,
    constant_value: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
    *,
    mode: str = "constant",
) -> torch.Tensor:
    """Pad (19, 21, 23, 24, 25): knows the mode `wrap`."""
    amounts = host_ints(pads, "the pads of Pad")
    known = (*_MODES, "wrap")
    return _pad(data, amounts, _pad_axes(data, axes), mode, constant_value, known)


@op("DepthToSpace", 1)
def depth_to_space_1(input: torch.Tensor, *, blocksize: int) -> torch.Tensor:
    """DepthToSpace (1)."""
    return depth_to_space(input, blocksize=blocksize)


@op("DepthToSpace", 11, 13, 28)
def depth_to_space(
    input: torch.Tensor,
    *,
    blocksize: int,
    mode: str = "DCR",
) -> torch.Tensor:
    """DepthToSpace (11, 13, 28)."""
    n, c, h, w = input.shape
    depth = c // blocksize**2
    if mode == "DCR":
        blocks = input.reshape(n, blocksize, blocksize, depth, h, w).permute(0, 3, 4, 1, 5, 2)
    elif mode == "CRD":
        blocks = input.reshape(n, depth, blocksize, blocksize, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        raise UnsupportedError(f"DepthToSpace with mode={mode!r} is not known")
    return blocks.reshape(n, depth, h * blocksize, w * blocksize)


@op("SpaceToDepth", 1, 13)
def space_to_depth_1(input: torch.Tensor, *, blocksize: int) -> torch.Tensor:
    """SpaceToDepth (1, 13)."""
    return space_to_depth(input, blocksize=blocksize)


@op("SpaceToDepth", 28)
def space_to_depth(
    input: torch.Tensor,
    *,
    blocksize: int,
    mode: str = "DCR",
) -> torch.Tensor:
    """SpaceToDepth (28)."""
    n, c, h, w = input.shape
    rows, columns = h // blocksize, w // blocksize
    blocks = input.reshape(n, c, rows, blocksize, columns, blocksize)
    if mode == "DCR":
        blocks = blocks.permute(0, 3, 5, 1, 2, 4)
    elif mode == "CRD":
        blocks = blocks.permute(0, 1, 3, 5, 2, 4)
    else:
        raise UnsupportedError(f"SpaceToDepth with mode={mode!r} is not known")
    return blocks.reshape(n, c * blocksize**2, rows, columns)


@op("Trilu", 14)
def trilu(
    input: torch.Tensor,
    k: torch.Tensor | None = None,
    *,
    upper: int = 1,
) -> torch.Tensor:
    """Trilu (14)."""
    diagonal = 0 if k is None else host_int(k, "the diagonal of Trilu")
    return torch.triu(input, diagonal) if upper else torch.tril(input, diagonal)


@op("Identity", 1, 13, 14, 16, 19, 21, 23, 24, 25)
def identity(input: torch.Tensor) -> torch.Tensor:
    """Identity (1, 13, 14, 16, 19, 21, 23, 24, 25): the very same tensor."""
    return input


@op("Shape", 1, 13)
def shape_1(data: torch.Tensor) -> torch.Tensor:
    """Shape (1, 13): on the host."""
    return torch.tensor(list(data.shape), dtype=torch.int64)


@op("Shape", 15, 19, 21, 23, 24, 25)
def shape_(data: torch.Tensor, *, end: int | None = None, start: int = 0) -> torch.Tensor:
    """Shape (15, 19, 21, 23, 24, 25): on the host; start and end behave as in a slice."""
    return torch.tensor(list(data.shape)[start:end], dtype=torch.int64)


@op("Size", 1, 13, 19, 21, 23, 24, 25)
def size(data: torch.Tensor) -> torch.Tensor:
    """Size (1, 13, 19, 21, 23, 24, 25): on the host."""
    return torch.tensor(math.prod(data.shape), dtype=torch.int64)
