# SPDX-License-Identifier: Apache-2.0
"""Quantised operators of com.microsoft, which onnxruntime's quantisation tools write.

Each rounds where onnxruntime rounds: some add the zero point before the rounding, some after, and
QLinearAdd multiplies and adds in one rounding. Gradients pass straight through all of it.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import meet
from lancet_onnx.ops.microsoft import MICROSOFT, embed_layer_normalization
from lancet_onnx.ops.pooling import average_pool, max_pool
from lancet_onnx.ops.quantization import (
    centred,
    dequantize_linear,
    dynamic_quantisation,
    integer_type,
    matmul_sums,
    qlinear_conv,
    quantize_linear,
    requantised,
    shifted,
    whole_numbers,
)
from lancet_onnx.ops.registry import op

op("DequantizeLinear", 1, domain=MICROSOFT)(dequantize_linear)
op("QuantizeLinear", 1, domain=MICROSOFT, carried=True)(quantize_linear)


def _one(values: torch.Tensor | None) -> torch.Tensor:
    """Return a single scale or zero point as a float32 scalar; an absent zero point is 0."""
    return torch.zeros(()) if values is None else values.reshape(()).to(torch.float32)


def _real(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None) -> torch.Tensor:
    return dequantize_linear(x, scale.reshape(()), zero_point)


def _stored(
    values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None
) -> torch.Tensor:
    return quantize_linear(values, scale.reshape(()), zero_point)


def _fused(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return a * b + c in float32, rounded once; a holds 8 bits, so float64 loses nothing."""
    x, y, z = meet(a.to(torch.float64), b.to(torch.float64), c.to(torch.float64))
    return (x * y + z).to(torch.float32)


@op("QLinearAdd", 1, domain=MICROSOFT, carried=True)
def qlinear_add(
    A: torch.Tensor,
    A_scale: torch.Tensor,
    A_zero_point: torch.Tensor | None,
    B: torch.Tensor,
    B_scale: torch.Tensor,
    B_zero_point: torch.Tensor | None,
    C_scale: torch.Tensor,
    C_zero_point: torch.Tensor | None = None,
) -> torch.Tensor:
    """QLinearAdd (com.microsoft)."""
    of_a, of_b = _one(A_scale) / _one(C_scale), _one(B_scale) / _one(C_scale)
    zeros = _fused(_one(A_zero_point), of_a, of_b * _one(B_zero_point))
    steps = _fused(A, of_a, _fused(B, of_b, _one(C_zero_point) - zeros))
    return whole_numbers(steps, integer_type(C_zero_point))


@op("QLinearMul", 1, domain=MICROSOFT, carried=True)
def qlinear_mul(
    A: torch.Tensor,
    A_scale: torch.Tensor,
    A_zero_point: torch.Tensor | None,
    B: torch.Tensor,
    B_scale: torch.Tensor,
    B_zero_point: torch.Tensor | None,
    C_scale: torch.Tensor,
    C_zero_point: torch.Tensor | None = None,
) -> torch.Tensor:
    """QLinearMul (com.microsoft)."""
    left, right = meet(centred(A, A_zero_point), centred(B, B_zero_point))
    product, scale, zero = meet(
        left * right, _one(A_scale) * _one(B_scale) / _one(C_scale), _one(C_zero_point)
    )
    return whole_numbers(product * scale + zero, integer_type(C_zero_point))


@op("QLinearSigmoid", 1, domain=MICROSOFT, carried=True)
def qlinear_sigmoid(
    X: torch.Tensor,
    X_scale: torch.Tensor,
    X_zero_point: torch.Tensor | None,
    Y_scale: torch.Tensor,
    Y_zero_point: torch.Tensor | None = None,
) -> torch.Tensor:
    """QLinearSigmoid (com.microsoft)."""
    return _stored(torch.sigmoid(_real(X, X_scale, X_zero_point)), Y_scale, Y_zero_point)


@op("QLinearLeakyRelu", 1, domain=MICROSOFT, carried=True)
def qlinear_leaky_relu(
    X: torch.Tensor,
    X_scale: torch.Tensor,
    X_zero_point: torch.Tensor | None,
    Y_scale: torch.Tensor,
    Y_zero_point: torch.Tensor | None = None,
    *,
    alpha: float = 0.01,
) -> torch.Tensor:
    """QLinearLeakyRelu (com.microsoft)."""
    values = functional.leaky_relu(_real(X, X_scale, X_zero_point), alpha)
    return _stored(values, Y_scale, Y_zero_point)


@op("QLinearSoftmax", 1, domain=MICROSOFT, carried=True)
def qlinear_softmax(
    X: torch.Tensor,
    X_scale: torch.Tensor,
    x_zero_point: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
    *,
    axis: int = -1,
    opset: int,
) -> torch.Tensor:
    """QLinearSoftmax (com.microsoft); onnxruntime takes 1 / y_scale as a whole number."""
    values = _real(X, X_scale, x_zero_point)
    if opset < 13:
        at = axis % X.ndim
        soft = torch.softmax(values.reshape(*X.shape[:at], -1), -1).reshape(X.shape)
    else:
        soft = torch.softmax(values, axis)
    soft, counts = meet(soft, torch.floor(1 / _one(y_scale)))
    return shifted(soft * counts, y_zero_point.reshape(()), integer_type(y_zero_point))


def _channels_first(x: torch.Tensor, channels_last: int) -> torch.Tensor:
    return torch.movedim(x, -1, 1) if channels_last else x


def _channels_back(x: torch.Tensor, channels_last: int) -> torch.Tensor:
    return torch.movedim(x, 1, -1) if channels_last else x


@op("QLinearGlobalAveragePool", 1, domain=MICROSOFT, carried=True)
def qlinear_global_average_pool(
    X: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
    *,
    channels_last: int = 0,
) -> torch.Tensor:
    """QLinearGlobalAveragePool (com.microsoft)."""
    data = _channels_first(centred(X, x_zero_point.reshape(())), channels_last)
    axes = list(range(2, data.ndim))
    count = data[0, 0].numel()
    sums = data.to(torch.float64).sum(axes, keepdim=True)
    scale = _one(x_scale) / (_one(y_scale) * count)
    return _channels_back(requantised(sums, scale, y_zero_point), channels_last)


@op("QLinearAveragePool", 1, domain=MICROSOFT, carried=True)
def qlinear_average_pool(
    X: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """QLinearAveragePool (com.microsoft): the zero point is added before the rounding."""
    averages = average_pool(
        _channels_first(_real(X, x_scale, x_zero_point), channels_last),
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    data, scale, zero = meet(averages, _one(y_scale), _one(y_zero_point))
    result = whole_numbers(data / scale + zero, integer_type(y_zero_point))
    return _channels_back(result, channels_last)


@op("NhwcMaxPool", 1, domain=MICROSOFT, carried=True)
def nhwc_max_pool(
    x: torch.Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """NhwcMaxPool (com.microsoft) of 8-bit integers, channels last."""
    result = max_pool(
        _channels_first(centred(x, None), 1),
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    if isinstance(result, tuple):
        raise UnsupportedError("NhwcMaxPool with indices is not computed")
    return _channels_back(result, 1)


@op("QLinearConcat", 1, domain=MICROSOFT, carried=True)
def qlinear_concat(
    Y_scale: torch.Tensor,
    Y_zero_point: torch.Tensor,
    *inputs: torch.Tensor,
    axis: int,
) -> torch.Tensor:
    """QLinearConcat (com.microsoft): inputs are tensors, each with its scale and zero point."""
    triples = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    parts = [_stored(_real(*triple), Y_scale, Y_zero_point) for triple in triples]
    return torch.cat(meet(*parts), axis)


@op("QLinearWhere", 1, domain=MICROSOFT, carried=True)
def qlinear_where(
    condition: torch.Tensor,
    X: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    Y: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
    z_scale: torch.Tensor,
    z_zero_point: torch.Tensor,
) -> torch.Tensor:
    """QLinearWhere (com.microsoft)."""
    left = _stored(_real(X, x_scale, x_zero_point), z_scale, z_zero_point)
    right = _stored(_real(Y, y_scale, y_zero_point), z_scale, z_zero_point)
    chosen, left, right = meet(condition, left, right)
    return torch.where(chosen, left, right)


@op("QLinearConv", 1, domain=MICROSOFT, carried=True)
def qlinear_conv_microsoft(
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
    channels_last: int = 0,
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """QLinearConv (com.microsoft): that of ONNX, channels first or last."""
    result = qlinear_conv(
        _channels_first(x, channels_last),
        x_scale,
        x_zero_point,
        w,
        w_scale,
        w_zero_point,
        y_scale,
        y_zero_point,
        B,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _channels_back(result, channels_last)


@op("QGemm", 1, domain=MICROSOFT, carried=True)
def qgemm(
    A: torch.Tensor,
    a_scale: torch.Tensor,
    a_zero_point: torch.Tensor,
    B: torch.Tensor,
    b_scale: torch.Tensor,
    b_zero_point: torch.Tensor,
    C: torch.Tensor | None = None,
    y_scale: torch.Tensor | None = None,
    y_zero_point: torch.Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> torch.Tensor:
    """QGemm (com.microsoft): 8 bits out, or floats where there is no y_scale."""
    left, right = A.T if transA else A, B.T if transB else B
    sums = matmul_sums(left, right, a_zero_point, b_zero_point)
    if C is not None:
        sums, shift = meet(sums, C.to(torch.float64))
        sums = sums + shift
    by_column = b_scale.reshape(()) if b_scale.numel() == 1 else b_scale
    scale = alpha * _one(a_scale) * by_column
    if y_scale is None:
        single, factor = meet(sums.to(torch.float32), scale)
        return single * factor
    return requantised(sums, scale / _one(y_scale), y_zero_point)


@op("MatMulIntegerToFloat", 1, domain=MICROSOFT)
def matmul_integer_to_float(
    A: torch.Tensor,
    B: torch.Tensor,
    a_scale: torch.Tensor,
    b_scale: torch.Tensor,
    a_zero_point: torch.Tensor | None = None,
    b_zero_point: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """MatMulIntegerToFloat (com.microsoft): an integer product, scaled, and a float bias."""
    sums = matmul_sums(A, B, a_zero_point, b_zero_point)
    one, by_column = meet(a_scale.reshape(()), b_scale)
    if by_column.numel() == 1:
        by_column = by_column.reshape(())
    single, scale = meet(sums.to(a_scale.dtype), one * by_column)
    if bias is None:
        return single * scale
    product, shift = meet(single * scale, bias)
    return product + shift


@op("DynamicQuantizeMatMul", 1, domain=MICROSOFT)
def dynamic_quantize_matmul(
    A: torch.Tensor,
    B: torch.Tensor,
    b_scale: torch.Tensor,
    b_zero_point: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """DynamicQuantizeMatMul (com.microsoft): A quantised as DynamicQuantizeLinear does."""
    scale, zero_point = dynamic_quantisation(A)
    whole = shifted(A / scale, zero_point, torch.uint8)
    return matmul_integer_to_float(whole, B, scale, b_scale, zero_point, b_zero_point, bias)


@op("QEmbedLayerNormalization", 1, domain=MICROSOFT)
def quantized_embed_layer_normalization(
    input_ids: torch.Tensor,
    segment_ids: torch.Tensor | None,
    word_embedding_quant: torch.Tensor,
    position_embedding_quant: torch.Tensor,
    segment_embedding: torch.Tensor | None,
    gamma_quant: torch.Tensor,
    beta_quant: torch.Tensor,
    mask: torch.Tensor | None,
    word_embedding_scale: torch.Tensor,
    position_embedding_scale: torch.Tensor,
    segment_embedding_scale: torch.Tensor | None,
    gamma_scale: torch.Tensor,
    beta_scale: torch.Tensor,
    word_embedding_zero_point: torch.Tensor,
    position_embedding_zero_point: torch.Tensor,
    segment_embedding_zero_point: torch.Tensor | None,
    gamma_zero_point: torch.Tensor,
    beta_zero_point: torch.Tensor,
    *,
    epsilon: float = 1e-12,
) -> tuple[torch.Tensor, ...]:
    """QEmbedLayerNormalization (com.microsoft): embeddings and norm from 8-bit tables."""
    segments = segment_embedding
    if segments is not None and segment_embedding_scale is not None:
        segments = _real(segments, segment_embedding_scale, segment_embedding_zero_point)
    output, lengths, _ = embed_layer_normalization(
        input_ids,
        segment_ids,
        _real(word_embedding_quant, word_embedding_scale, word_embedding_zero_point),
        _real(position_embedding_quant, position_embedding_scale, position_embedding_zero_point),
        segments,
        _real(gamma_quant, gamma_scale, gamma_zero_point),
        _real(beta_quant, beta_scale, beta_zero_point),
        mask,
        epsilon=epsilon,
    )
    return output, lengths
