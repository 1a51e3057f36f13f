# SPDX-License-Identifier: Apache-2.0
"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import meet
from lancet_onnx.ops.registry import op

_CONV: dict[int, Callable[..., torch.Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
_CONV_TRANSPOSE: dict[int, Callable[..., torch.Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def same_pads(
    auto_pad: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Return begins and ends for SAME_UPPER, SAME_LOWER or VALID."""
    begins, ends = [], []
    for size, length, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = (-(-size // stride) - 1) * stride + (length - 1) * dilation + 1 - size
        total = 0 if auto_pad == "VALID" else max(total, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if auto_pad == "SAME_UPPER" else large)
        ends.append(large if auto_pad == "SAME_UPPER" else small)
    return begins + ends


def check_auto_pad(auto_pad: str) -> None:
    """Refuse an auto_pad that the specification does not know."""
    if auto_pad not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise UnsupportedError(f"auto_pad={auto_pad!r} is not known")


def torch_pads(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return pads in the order that torch wants, last axis first; negative ones crop."""
    pairs = list(zip(begins, ends, strict=True))
    return [amount for pair in reversed(pairs) for amount in pair]


def _kernel(W: torch.Tensor, kernel_shape: list[int] | None, op_type: str) -> list[int]:
    kernel = list(W.shape[2:])
    if kernel_shape and list(kernel_shape) != kernel:
        raise UnsupportedError(f"{op_type}: kernel_shape {kernel_shape} but weights {kernel}")
    if len(kernel) not in _CONV:
        raise UnsupportedError(f"{op_type} over {len(kernel)} spatial axes is not computed")
    return kernel


@op("Conv", 1, 11, 22)
def conv(
    X: torch.Tensor,
    W: torch.Tensor,
    B: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """Conv (1, 11, 22) over one to three spatial axes."""
    check_auto_pad(auto_pad)
    kernel = _kernel(W, kernel_shape, "Conv")
    n = len(kernel)
    steps, gaps = strides or [1] * n, dilations or [1] * n
    amounts = pads or [0] * (2 * n)
    if auto_pad != "NOTSET":
        amounts = same_pads(auto_pad, X.shape[2:], kernel, steps, gaps)
    begins, ends = amounts[:n], amounts[n:]
    if begins != ends or min(begins) < 0:
        X = functional.pad(X, torch_pads(begins, ends))
        begins = [0] * n
    return _CONV[n](X, W, B, steps, begins, gaps, group)


def _transpose_pads(
    totals: Sequence[int], auto_pad: str, *, ambiguous_when_odd: bool
) -> tuple[list[int], list[int]]:
    """Return begins and ends; an output beyond what the inputs reach is filled up at the end."""
    if ambiguous_when_odd and any(total > 0 and total % 2 for total in totals):
        raise UnsupportedError(
            "ConvTranspose before opset 11 with an odd padding to share out: its specification "
            "and onnxruntime disagree on the side"
        )
    halves = [max(total, 0) // 2 for total in totals]
    rest = [max(total, 0) - half for total, half in zip(totals, halves, strict=True)]
    begins, ends = (halves, rest) if auto_pad == "SAME_UPPER" else (rest, halves)
    return begins, [end + min(total, 0) for end, total in zip(ends, totals, strict=True)]


@op("ConvTranspose", 11, 22)
def conv_transpose(
    X: torch.Tensor,
    W: torch.Tensor,
    B: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    output_padding: list[int] | None = None,
    output_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
    ambiguous_when_odd: bool = False,
) -> torch.Tensor:
    """ConvTranspose (11, 22); as version 1 it refuses an odd automatic padding, ambiguous there."""
    check_auto_pad(auto_pad)
    kernel = _kernel(W, kernel_shape, "ConvTranspose")
    n = len(kernel)
    steps, gaps = strides or [1] * n, dilations or [1] * n
    extra = output_padding or [0] * n
    sizes = list(X.shape[2:])
    whole = [(sizes[i] - 1) * steps[i] + extra[i] + (kernel[i] - 1) * gaps[i] + 1 for i in range(n)]
    amounts = pads or [0] * (2 * n)
    begins, ends = amounts[:n], amounts[n:]
    if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        target = (
            output_shape[-n:]
            if output_shape
            else [size * step for size, step in zip(sizes, steps, strict=True)]
        )
        totals = [length - wanted for length, wanted in zip(whole, target, strict=True)]
        room = steps if output_shape else [1] * n
        if any(-total >= free for total, free in zip(totals, room, strict=True)):
            raise UnsupportedError(f"ConvTranspose to {target}, of which it reaches only {whole}")
        begins, ends = _transpose_pads(totals, auto_pad, ambiguous_when_odd=ambiguous_when_odd)
    elif auto_pad == "VALID":
        begins, ends = [0] * n, [0] * n
    function = _CONV_TRANSPOSE[n]
    small = all(e < max(s, g) for e, s, g in zip(extra, steps, gaps, strict=True))
    if begins == ends and min(begins) >= 0 and small:
        return function(X, W, B, steps, begins, extra, group, gaps)
    result = function(X, W, None, steps, [0] * n, [0] * n, group, gaps)
    tails = [amount - end for amount, end in zip(extra, ends, strict=True)]
    result = functional.pad(result, torch_pads([-begin for begin in begins], tails))
    return result if B is None else result + B.reshape(-1, *([1] * n))


op("ConvTranspose", 1)(partial(conv_transpose, ambiguous_when_odd=True))


@op("Gemm", 7, 9, 11, 13)
def gemm(
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> torch.Tensor:
    """Gemm (7, 9, 11, 13)."""
    if not A.is_floating_point() and not (alpha == 1.0 and beta == 1.0):
        raise UnsupportedError("Gemm of integers with alpha or beta other than 1 is not computed")
    left, right = meet(A.T if transA else A, B.T if transB else B)
    product = left @ right
    if alpha != 1.0:
        product = product * alpha
    if C is None:
        return product
    total, shift = meet(product, C if beta == 1.0 else C * beta)
    return total + shift


@op("MatMul", 1, 9, 13)
def matmul(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """MatMul (1, 9, 13)."""
    left, right = meet(A, B)
    return torch.matmul(left, right)
