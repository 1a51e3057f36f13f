# SPDX-License-Identifier: Apache-2.0
"""Quantised operators that gradients pass through: integers carried as whole floats.

An 8- or 16-bit integer that is computed from a float stays a float tensor of whole numbers, so the
rounding has a straight-through gradient; integers of the file may be true integer tensors. Sums
of products are exact, as onnxruntime's int32 ones are.
"""

from __future__ import annotations

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import dtype_of, host_ints, meet, positive_axis
from lancet_onnx.ops.nn import conv
from lancet_onnx.ops.registry import op

_FLOAT32 = 1
_QUANTISED = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32)
_EXACT_IN_FLOAT32 = 2**24


_NIBBLES = {"torch.int4": (-8, 7), "torch.uint4": (0, 15)}
"""Names that torch has, without arithmetic; weights of these types are carried as floats."""


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    if str(dtype) in _NIBBLES:
        return _NIBBLES[str(dtype)]
    if dtype not in _QUANTISED:
        raise UnsupportedError(f"quantisation to {dtype} is not computed")
    info = torch.iinfo(dtype)
    return info.min, info.max


def _rounded(x: torch.Tensor, low: int, high: int, zero: torch.Tensor) -> torch.Tensor:
    """Round half to even, add zero and clamp; only what is clamped after rounding has no gradient.

    The largest weight of a tensor often lies a hair beyond the range, and is still one to edit, so
    the bounds themselves have a gradient, which torch.clamp does not give them.
    """
    rounded = torch.round(x).detach()
    bounded = torch.clamp(rounded + zero, low, high)
    whole = x + (rounded - x.detach())  # exact, for the difference is
    return torch.where(bounded == rounded + zero, whole + zero, bounded)


def whole_numbers(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round floats half to even and clamp them to what an integer type holds.

    The result is a float tensor, float64 for int32 and otherwise of x's type, half precision made
    float32. Its gradient is the identity inside the range and zero where x is clamped.
    """
    low, high = _limits(dtype)
    least = torch.float64 if dtype == torch.int32 else torch.float32
    return _rounded(x.to(torch.promote_types(x.dtype, least)), low, high, x.new_zeros(()))


def shifted(
    steps: torch.Tensor, zero_point: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Round multiples of the scale half to even, add the zero point, clamp to dtype's range."""
    if zero_point is None:
        return whole_numbers(steps, dtype)
    low, high = _limits(dtype)
    steps, zero = meet(steps, zero_point)
    # The zero point comes after the rounding: an odd one would turn halves the other way.
    return _rounded(steps, low, high, zero.to(steps.dtype))


def centred(x: torch.Tensor, zero_point: torch.Tensor | None) -> torch.Tensor:
    """Return x less its zero point as floats, exactly: float64 for 32 bits, float32 otherwise."""
    wide = x.dtype in (torch.int32, torch.int64, torch.float64)
    values = x.to(torch.float64 if wide else torch.float32)
    if zero_point is None:
        return values
    values, zero = meet(values, zero_point)
    return values - zero.to(values.dtype)


def integer_type(zero_point: torch.Tensor | None, output_dtype: int = 0) -> torch.dtype:
    """Return the type that a zero point or an output_dtype asks for; uint8 where neither says."""
    if zero_point is not None and not zero_point.is_floating_point():
        return zero_point.dtype
    return dtype_of(output_dtype) if output_dtype else torch.uint8


def spread(values: torch.Tensor, x: torch.Tensor, axis: int, block_size: int) -> torch.Tensor:
    """Shape scales or zero points, per tensor, axis or block, so that they meet x."""
    if values.ndim == 0 or (values.numel() == 1 and not block_size):
        return values.reshape(())
    at = positive_axis(axis, x.ndim)
    if block_size:
        if values.ndim != x.ndim:
            raise UnsupportedError(f"scales of rank {values.ndim} for blocks of rank {x.ndim}")
        repeated = values.repeat_interleave(block_size, at)
        if not x.shape[at] <= repeated.shape[at] < x.shape[at] + block_size:
            raise UnsupportedError(f"{values.shape[at]} blocks of {block_size} for {x.shape[at]}")
        return repeated.narrow(at, 0, x.shape[at])
    if values.ndim != 1 or values.shape[0] != x.shape[at]:
        raise UnsupportedError(
            f"scales of shape {list(values.shape)} along axis {axis} of {list(x.shape)}"
        )
    return values.reshape([-1 if k == at else 1 for k in range(x.ndim)])


@op("DequantizeLinear", 13, 19, 21, 23, 24, 25, 28)
def dequantize_linear(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> torch.Tensor:
    """DequantizeLinear (13, 19, 21, 23, 24, 25, 28), per tensor, axis or block."""
    if not x_scale.is_floating_point():
        raise UnsupportedError(f"DequantizeLinear with a scale of {x_scale.dtype}")
    kind = dtype_of(output_dtype) if output_dtype else x_scale.dtype
    zero = None if x_zero_point is None else spread(x_zero_point, x, axis, block_size)
    values, scale = meet(centred(x, zero), spread(x_scale, x, axis, block_size))
    work = torch.float64 if kind == torch.float64 else torch.float32
    return (values.to(work) * scale.to(work)).to(kind)


@op("DequantizeLinear", 10)
def dequantize_linear_10(
    x: torch.Tensor, x_scale: torch.Tensor, x_zero_point: torch.Tensor | None = None
) -> torch.Tensor:
    """DequantizeLinear (10): one scale."""
    return dequantize_linear(x, x_scale, x_zero_point)


@op("QuantizeLinear", 13, 19, 21, 23, 24, 25, 28, carried=True)
def quantize_linear(
    x: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,  # of 8-bit floats only
) -> torch.Tensor:
    """QuantizeLinear (13, 19, 21, 23, 24, 25, 28) to 8 and 16 bits; it divides in float32."""
    if precision not in (0, _FLOAT32):
        raise UnsupportedError(f"QuantizeLinear with precision={precision} is not computed")
    dtype = integer_type(y_zero_point, output_dtype)
    zero = None if y_zero_point is None else spread(y_zero_point, x, axis, block_size)
    data, scale = meet(x, spread(y_scale, x, axis, block_size))
    work = torch.float64 if data.dtype == torch.float64 else torch.float32
    return shifted(data.to(work) / scale.to(work), zero, dtype)


@op("QuantizeLinear", 10, carried=True)
def quantize_linear_10(
    x: torch.Tensor, y_scale: torch.Tensor, y_zero_point: torch.Tensor | None = None
) -> torch.Tensor:
    """QuantizeLinear (10): one scale."""
    return quantize_linear(x, y_scale, y_zero_point)


def dynamic_quantisation(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale and zero point for uint8 that hold all of x and zero; no gradient."""
    data = x.detach()
    least = torch.clamp(data.amin(), max=0)
    most = torch.clamp(data.amax(), min=0)
    scale = torch.where(most == least, torch.ones_like(most), (most - least) / 255)
    return scale, torch.clamp(torch.round(-least / scale), 0, 255)


@op("DynamicQuantizeLinear", 11, carried=True)
def dynamic_quantize_linear(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """DynamicQuantizeLinear (11): no gradient goes through the scale and the zero point."""
    scale, zero_point = dynamic_quantisation(x)
    return shifted(x / scale, zero_point, torch.uint8), scale, zero_point


def _reach(x: torch.Tensor, zero_point: torch.Tensor | None) -> int:
    """Return the largest distance of an 8-bit x from its zero point."""
    known = zero_point if zero_point is not None else x
    if known.is_floating_point() or known.device.type != "cpu" or known.itemsize > 1:
        return 255
    low, high = _limits(known.dtype)
    zeros = [0] if zero_point is None else host_ints(zero_point, "a zero point")
    return max(high - min(zeros), max(zeros) - low)


def exact_type(
    depth: int,
    a: torch.Tensor,
    a_zero_point: torch.Tensor | None,
    b: torch.Tensor,
    b_zero_point: torch.Tensor | None,
) -> torch.dtype:
    """Return the narrowest float type in which sums of depth products of 8-bit a, b are exact."""
    bound = depth * _reach(a, a_zero_point) * _reach(b, b_zero_point)
    return torch.float32 if bound < _EXACT_IN_FLOAT32 else torch.float64


def _channel_first(values: torch.Tensor, rank: int) -> torch.Tensor:
    """Return one value per output channel (or one for all), shaped for weights or results."""
    return values.reshape(()) if values.numel() == 1 else values.reshape(-1, *([1] * (rank - 1)))


def _conv_sums(
    x: torch.Tensor,
    w: torch.Tensor,
    x_zero_point: torch.Tensor | None,
    w_zero_point: torch.Tensor | None,
    auto_pad: str,
    dilations: list[int] | None,
    group: int,
    kernel_shape: list[int] | None,
    pads: list[int] | None,
    strides: list[int] | None,
) -> torch.Tensor:
    """Return the integer convolution as float64; padding stands for the zero point."""
    w_zero = None if w_zero_point is None else _channel_first(w_zero_point, w.ndim)
    x_zero = None if x_zero_point is None else x_zero_point.reshape(())
    data, weight = meet(centred(x, x_zero), centred(w, w_zero))
    kind = exact_type(w[0].numel(), x, x_zero_point, w, w_zero_point)
    if data.device.type != "cpu":
        kind = torch.float64  # convolutions of a GPU in float32 may be Winograd's, which round
    data, weight = data.to(kind), weight.to(kind)
    sums = conv(
        data,
        weight,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return sums.to(torch.float64)


@op("ConvInteger", 10, carried=True)
def conv_integer(
    x: torch.Tensor,
    w: torch.Tensor,
    x_zero_point: torch.Tensor | None = None,
    w_zero_point: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """ConvInteger (10)."""
    return _conv_sums(
        x,
        w,
        x_zero_point,
        w_zero_point,
        auto_pad,
        dilations,
        group,
        kernel_shape,
        pads,
        strides,
    )


@op("QLinearConv", 10, carried=True)
def qlinear_conv(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    w: torch.Tensor,
    w_scale: torch.Tensor,
    w_zero_point: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
    B: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """QLinearConv (10), rounded as onnxruntime does: one float32 product of sum and scale."""
    sums = _conv_sums(
        x,
        w,
        x_zero_point,
        w_zero_point,
        auto_pad,
        dilations,
        group,
        kernel_shape,
        pads,
        strides,
    )
    if B is not None:
        sums, shift = meet(sums, B.to(torch.float64))
        sums = sums + shift.reshape(-1, *([1] * (x.ndim - 2)))
    scale = x_scale.reshape(()) * w_scale / y_scale.reshape(())
    return requantised(sums, _channel_first(scale, x.ndim - 1), y_zero_point)


def requantised(
    sums: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None
) -> torch.Tensor:
    """Scale exact integer sums in float32, round them and shift them into the output's type."""
    dtype = integer_type(zero_point)
    if zero_point is not None and zero_point.numel() == 1:
        zero_point = zero_point.reshape(())
    single, factor = meet(sums.to(torch.float32), scale.to(torch.float32))
    return shifted(single * factor, zero_point, dtype)


def _per_row(values: torch.Tensor) -> torch.Tensor:
    """Return one value for each row of a left factor, or one for all."""
    if values.numel() == 1:
        return values.reshape(())
    return values.unsqueeze(-1) if values.ndim == 1 else values


def _per_column(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(()) if values.numel() == 1 else values


def matmul_sums(
    a: torch.Tensor,
    b: torch.Tensor,
    a_zero_point: torch.Tensor | None,
    b_zero_point: torch.Tensor | None,
) -> torch.Tensor:
    """Return the exact product of 8-bit matrices, less their zero points, as float64."""
    kind = exact_type(a.shape[-1], a, a_zero_point, b, b_zero_point)
    left = centred(a, None if a_zero_point is None else _per_row(a_zero_point))
    right = centred(b, None if b_zero_point is None else _per_column(b_zero_point))
    left, right = meet(left.to(kind), right.to(kind))
    return torch.matmul(left, right).to(torch.float64)


@op("MatMulInteger", 10, carried=True)
def matmul_integer(
    A: torch.Tensor,
    B: torch.Tensor,
    a_zero_point: torch.Tensor | None = None,
    b_zero_point: torch.Tensor | None = None,
) -> torch.Tensor:
    """MatMulInteger (10)."""
    return matmul_sums(A, B, a_zero_point, b_zero_point)


@op("QLinearMatMul", 10, 21, carried=True)
def qlinear_matmul(
    a: torch.Tensor,
    a_scale: torch.Tensor,
    a_zero_point: torch.Tensor,
    b: torch.Tensor,
    b_scale: torch.Tensor,
    b_zero_point: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
) -> torch.Tensor:
    """QLinearMatMul (10, 21), rounded as onnxruntime does: one float32 product of sum and scale."""
    sums = matmul_sums(a, b, a_zero_point, b_zero_point)
    scales = [t.to(torch.float32) for t in (_per_row(a_scale), _per_column(b_scale))]
    scale = scales[0] * scales[1] / _per_row(y_scale).to(torch.float32)
    return requantised(sums, scale, _per_row(y_zero_point))
