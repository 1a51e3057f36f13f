# SPDX-License-Identifier: Apache-2.0
"""Operators on the bits of integers, computed in int64 where torch has no kernel for the type."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import dtype_of, meet
from lancet_onnx.ops.registry import op


def _integers(op_type: str, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the tensors as int64 on one device, with the same low 64 bits."""
    for tensor in tensors:
        if tensor.is_floating_point():
            raise UnsupportedError(f"{op_type} of integers that are carried as {tensor.dtype}")
    return tuple(tensor.to(torch.int64) for tensor in meet(*tensors))


@op("BitShift", 11, 28)
def bit_shift(X: torch.Tensor, Y: torch.Tensor, *, direction: str) -> torch.Tensor:
    """BitShift (11, 28): shifting by the width or more leaves nothing but the sign."""
    bits, by = _integers("BitShift", X, Y)
    width = torch.iinfo(X.dtype).bits
    fits = (by >= 0) & (by < width)
    zero = torch.zeros_like(bits)
    by = torch.where(fits, by, torch.full_like(by, width - 1 if X.dtype.is_signed else 0))
    if direction == "LEFT":
        return torch.where(fits, bits << by, zero).to(X.dtype)
    if direction != "RIGHT":
        raise UnsupportedError(f"BitShift with direction={direction!r} is not known")
    if X.dtype.is_signed:
        return (bits >> by).to(X.dtype)
    if X.dtype == torch.uint64:
        # The sign bit of the int64 is the highest of the number: it must not be copied.
        once = (bits >> 1) & torch.iinfo(torch.int64).max
        bits = torch.where(by > 0, once >> torch.clamp(by - 1, min=0), bits)
    else:
        bits = bits >> by
    return torch.where(fits, bits, zero).to(X.dtype)


def _bitwise(
    op_type: str,
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    A: torch.Tensor,
    B: torch.Tensor,
) -> torch.Tensor:
    left, right = _integers(op_type, A, B)
    return function(left, right).to(A.dtype)


@op("BitwiseAnd", 18)
def bitwise_and(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """BitwiseAnd (18)."""
    return _bitwise("BitwiseAnd", torch.bitwise_and, A, B)


@op("BitwiseOr", 18)
def bitwise_or(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """BitwiseOr (18)."""
    return _bitwise("BitwiseOr", torch.bitwise_or, A, B)


@op("BitwiseXor", 18)
def bitwise_xor(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """BitwiseXor (18)."""
    return _bitwise("BitwiseXor", torch.bitwise_xor, A, B)


@op("BitwiseNot", 18)
def bitwise_not(X: torch.Tensor) -> torch.Tensor:
    """BitwiseNot (18)."""
    (bits,) = _integers("BitwiseNot", X)
    return torch.bitwise_not(bits).to(X.dtype)


@op("BitCast", 26)
def bit_cast(input: torch.Tensor, *, to: int) -> torch.Tensor:
    """BitCast (26) between types of one size; no gradient passes."""
    kind = dtype_of(to)
    if kind.itemsize != input.dtype.itemsize:
        raise UnsupportedError(f"BitCast of {input.dtype} to {kind}, which has another size")
    return input.detach().view(kind)
