# SPDX-License-Identifier: Apache-2.0
"""Putting windows and crops back into images."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_ints, meet, positive_axes
from lancet_onnx.ops.nn import torch_pads
from lancet_onnx.ops.registry import op


@op("Col2Im", 18)
def col2im(
    input: torch.Tensor,
    image_shape: torch.Tensor,
    block_shape: torch.Tensor,
    *,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """Col2Im (18): (batch, channels * block, blocks) to images of any rank."""
    sizes = host_ints(image_shape, "the image of Col2Im")
    block = host_ints(block_shape, "the block of Col2Im")
    n = len(sizes)
    steps, gaps, edges = strides or [1] * n, dilations or [1] * n, pads or [0] * (2 * n)
    whole = [sizes[i] + edges[i] + edges[n + i] for i in range(n)]
    counts = [(whole[i] - (block[i] - 1) * gaps[i] - 1) // steps[i] + 1 for i in range(n)]
    if input.ndim != 3 or input.shape[2] != math.prod(counts):
        raise UnsupportedError(f"Col2Im of {list(input.shape)} to {sizes} in blocks {counts}")
    places = torch.zeros([1] * (2 * n), dtype=torch.int64)
    for i in range(n):
        tap = (torch.arange(block[i]) * gaps[i]).reshape(
            [-1 if j == i else 1 for j in range(2 * n)]
        )
        start = (torch.arange(counts[i]) * steps[i]).reshape(
            [-1 if j == n + i else 1 for j in range(2 * n)]
        )
        places = places * whole[i] + tap + start
    flat = places.reshape(-1).to(input.device)
    channels = input.shape[1] // math.prod(block)
    data = input.reshape(input.shape[0], channels, -1)
    empty = data.new_zeros((input.shape[0], channels, math.prod(whole)))
    image = torch.index_add(empty, 2, flat, data).reshape(*empty.shape[:2], *whole)
    return functional.pad(image, torch_pads([-e for e in edges[:n]], [-e for e in edges[n:]]))


@op("CenterCropPad", 18)
def center_crop_pad(
    input_data: torch.Tensor, shape: torch.Tensor, *, axes: list[int] | None = None
) -> torch.Tensor:
    """CenterCropPad (18): of an odd rest the larger half is at the end."""
    rank = input_data.ndim
    chosen = list(range(rank)) if axes is None else positive_axes(axes, rank)
    pads = [0] * (2 * rank)
    for axis, length in zip(chosen, host_ints(shape, "the shape of CenterCropPad"), strict=True):
        rest = length - input_data.shape[axis]
        first = rest // 2 if rest > 0 else -(-rest // 2)
        pads[axis], pads[rank + axis] = first, rest - first
    return functional.pad(input_data, torch_pads(pads[:rank], pads[rank:]))


@op("MaxUnpool", 9, 11, 22)
def max_unpool(
    X: torch.Tensor,
    I: torch.Tensor,  # noqa: E741 - the name of the specification
    output_shape: torch.Tensor | None = None,
    *,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """MaxUnpool (9, 11, 22): indices count through the whole output."""
    n = len(kernel_shape)
    steps, edges = strides or [1] * n, pads or [0] * (2 * n)
    sizes = [
        (X.shape[2 + i] - 1) * steps[i] - edges[i] - edges[n + i] + kernel_shape[i]
        for i in range(n)
    ]
    shape = [*X.shape[:2], *sizes]
    if output_shape is not None:
        wanted = host_ints(output_shape, "the shape of MaxUnpool")
        if wanted != shape:
            raise UnsupportedError(
                f"MaxUnpool to {wanted}, not {shape}: its specification and onnxruntime disagree "
                "on what the indices count through"
            )
    values, places = meet(X, I.to(torch.int64))
    empty = values.new_zeros(math.prod(shape))
    return torch.scatter(empty, 0, places.reshape(-1), values.reshape(-1)).reshape(shape)
