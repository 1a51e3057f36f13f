# SPDX-License-Identifier: Apache-2.0
"""What the operator modules share: host values, devices, axes and element types."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.rules import BOMB

DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    16: torch.bfloat16,
}
"""Element type numbers of the ONNX format that are computed with."""

_WIDE = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


def dtype_of(number: int) -> torch.dtype:
    """Return the torch type for an ONNX element type, refusing strings, 8-bit floats and such."""
    if number not in DTYPES:
        raise UnsupportedError(f"element type {number} of the ONNX format is not computed with")
    return DTYPES[number]


LARGEST_MADE = 1 << 28
"""Elements that an operator may make of a few numbers: a few bytes must not take all memory."""


def refuse_bomb(count: float, what: str) -> None:
    """Refuse to make more elements out of nothing than any honest model needs."""
    if count > LARGEST_MADE:
        raise UnsupportedError(
            f"{what} would make {count:.3g} elements of nothing, more than the {LARGEST_MADE:,} "
            "that are made; such a model takes all memory",
            BOMB,
        )


def _require_host(values: torch.Tensor, what: str) -> None:
    if values.device.type != "cpu":
        raise UnsupportedError(
            f"{what} is computed on {values.device}; it must be known before the run"
        )


def host_ints(values: torch.Tensor, what: str) -> list[int]:
    """Read shapes, axes and the like, which live on the host, as a flat list."""
    _require_host(values, what)
    return [int(value) for value in values.reshape(-1).tolist()]


def host_int(values: torch.Tensor, what: str) -> int:
    """Read a single integer that lives on the host."""
    numbers = host_ints(values, what)
    if len(numbers) != 1:
        raise UnsupportedError(f"{what} must be a single number, not {len(numbers)}")
    return numbers[0]


def host_floats(values: torch.Tensor, what: str) -> list[float]:
    """Read scales and ranges, which live on the host, as a flat list."""
    _require_host(values, what)
    return [float(value) for value in values.detach().reshape(-1).tolist()]


def meet(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Move host tensors to the device of the others, so that nothing waits for a device."""
    device = next((t.device for t in tensors if t.device.type != "cpu"), None)
    if device is None:
        return tensors
    return tuple(t.to(device) for t in tensors)


def positive_axis(axis: int, rank: int) -> int:
    """Return `axis` counted from the front."""
    if not -rank <= axis < max(rank, 1):
        raise UnsupportedError(f"axis {axis} is outside a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def positive_axes(axes: Sequence[int], rank: int) -> list[int]:
    """Return `axes` counted from the front."""
    return [positive_axis(axis, rank) for axis in axes]


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """Turn an unsigned type that torch hardly computes with into a signed one that is wider.

    uint64 becomes int64: sums, differences and products keep their low 64 bits.
    """
    wide = _WIDE.get(tensor.dtype)
    return tensor if wide is None else tensor.to(wide)


def is_wide_unsigned(tensor: torch.Tensor) -> bool:
    """Return whether `widen` would change the tensor."""
    return tensor.dtype in _WIDE


def require_float(tensor: torch.Tensor, what: str) -> None:
    """Refuse integers where the result would depend on how an implementation rounds."""
    if not tensor.is_floating_point():
        raise UnsupportedError(f"{what} of {tensor.dtype} is not computed")
