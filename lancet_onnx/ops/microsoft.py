# SPDX-License-Identifier: Apache-2.0
"""Operators of com.microsoft that onnxruntime's graph optimisations write: fused layers and norms.

Only what onnxruntime computes on a CPU is here, for nothing else could be compared. Operators in
its blocked layout (com.microsoft.nchwc) are not: their weights are no longer the model's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_int, meet, positive_axis
from lancet_onnx.ops.nn import conv, gemm
from lancet_onnx.ops.normalization import layer_normalization as layer_normalization_17
from lancet_onnx.ops.registry import op
from lancet_onnx.ops.sampling import grid_sample
from lancet_onnx.ops.tensor import trilu

MICROSOFT = "com.microsoft"

Activation = Callable[..., torch.Tensor]


def _scaled_tanh(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return alpha * torch.tanh(beta * x)


def _hard_sigmoid(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _hard_swish(x: torch.Tensor) -> torch.Tensor:
    return x * _hard_sigmoid(x, 1 / 6, 0.5)


def _selu(x: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    return gamma * functional.elu(x, alpha)


def _thresholded_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


_OF_CONV: dict[str, tuple[Activation, int]] = {
    "Clip": (torch.clamp, 2),
    "HardSigmoid": (_hard_sigmoid, 2),
    "HardSwish": (_hard_swish, 0),
    "LeakyRelu": (functional.leaky_relu, 1),
    "Relu": (functional.relu, 0),
    "Sigmoid": (torch.sigmoid, 0),
    "Tanh": (torch.tanh, 0),
}
"""What onnxruntime fuses into a convolution, and the count of its activation_params."""

_OF_GEMM: dict[str, tuple[Activation, tuple[str, ...]]] = {
    "Elu": (functional.elu, ("alpha",)),
    "HardSigmoid": (_hard_sigmoid, ("alpha", "beta")),
    "LeakyRelu": (functional.leaky_relu, ("alpha",)),
    "Relu": (functional.relu, ()),
    "ScaledTanh": (_scaled_tanh, ("alpha", "beta")),
    "Selu": (_selu, ("alpha", "gamma")),
    "Sigmoid": (torch.sigmoid, ()),
    "Softplus": (functional.softplus, ()),
    "Softsign": (functional.softsign, ()),
    "Tanh": (torch.tanh, ()),
    "ThresholdedRelu": (_thresholded_relu, ("alpha",)),
}
"""What onnxruntime fuses into a Gemm, and the numbers that it then must have."""


@op("FusedConv", 1, domain=MICROSOFT)
def fused_conv(
    X: torch.Tensor,
    W: torch.Tensor,
    B: torch.Tensor | None = None,
    Z: torch.Tensor | None = None,
    *,
    activation: str = "",
    activation_params: list[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> torch.Tensor:
    """FusedConv (com.microsoft): Conv, the residual Z added, then an activation."""
    result = conv(
        X,
        W,
        B,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    if Z is not None:
        result, residual = meet(result, Z)
        result = result + residual
    if not activation:
        return result
    function, count = _OF_CONV.get(activation, (None, 0))
    numbers = list(activation_params or ())[:count]
    if function is None or len(numbers) != count:
        raise UnsupportedError(f"FusedConv with activation {activation!r} {numbers}")
    return function(result, *numbers)


@op("FusedGemm", 1, domain=MICROSOFT)
def fused_gemm(
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> torch.Tensor:
    """FusedGemm (com.microsoft): Gemm, then an activation."""
    result = gemm(A, B, C, alpha=alpha, beta=beta, transA=transA, transB=transB)
    given = {"alpha": activation_alpha, "beta": activation_beta, "gamma": activation_gamma}
    function, names = _OF_GEMM.get(activation, (None, ()))
    numbers = [given[name] for name in names]
    if function is None or None in numbers:
        raise UnsupportedError(
            f"FusedGemm with activation {activation!r} {numbers} is not computed"
        )
    return function(result, *numbers)


def _turned(x: torch.Tensor, trans: int, trans_batch: int) -> torch.Tensor:
    """Return a factor of FusedMatMul with its axes in the usual order."""
    if trans_batch:
        x = torch.movedim(x, 0, -2)
    return x.transpose(-1, -2) if trans and x.ndim > 1 else x


@op("FusedMatMul", 1, domain=MICROSOFT)
def fused_matmul(
    A: torch.Tensor,
    B: torch.Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> torch.Tensor:
    """FusedMatMul (com.microsoft): a scaled product of matrices, either one transposed."""
    left, right = meet(_turned(A, transA, transBatchA), _turned(B, transB, transBatchB))
    return torch.matmul(left, right) * alpha


@op("TransposeMatMul", 1, domain=MICROSOFT)
def transpose_matmul(
    A: torch.Tensor, B: torch.Tensor, *, alpha: float = 1.0, transA: int = 0, transB: int = 0
) -> torch.Tensor:
    """TransposeMatMul (com.microsoft), the older name of FusedMatMul."""
    return fused_matmul(A, B, alpha=alpha, transA=transA, transB=transB)


@op("Gelu", 1, domain=MICROSOFT)
def gelu(X: torch.Tensor) -> torch.Tensor:
    """Gelu (com.microsoft), by the error function."""
    return functional.gelu(X)


@op("BiasGelu", 1, domain=MICROSOFT)
def bias_gelu(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """BiasGelu (com.microsoft): Gelu of a sum."""
    data, bias = meet(A, B)
    return functional.gelu(data + bias)


@op("FastGelu", 1, domain=MICROSOFT)
def fast_gelu(X: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """FastGelu (com.microsoft), by the hyperbolic tangent."""
    if bias is not None:
        X, bias = meet(X, bias)
        X = X + bias
    return functional.gelu(X, approximate="tanh")


@op("QuickGelu", 1, domain=MICROSOFT)
def quick_gelu(X: torch.Tensor, *, alpha: float = 1.702) -> torch.Tensor:
    """QuickGelu (com.microsoft): X times the sigmoid of alpha X."""
    return X * torch.sigmoid(alpha * X)


def _wide(data: torch.Tensor) -> torch.Tensor:
    """Return half precision in float32, in which onnxruntime takes its statistics."""
    return data.to(torch.promote_types(data.dtype, torch.float32))


def _root_mean_square(
    data: torch.Tensor, scale: torch.Tensor, axes: list[int], epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return data over its root mean square, scaled, and the inverse of that root."""
    data, scale = meet(data, scale)
    wide = _wide(data)
    inverse = torch.rsqrt(torch.mean(wide * wide, axes, keepdim=True) + epsilon)
    return (wide * inverse * scale).to(data.dtype), inverse


def _normal(
    data: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor | None, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return data normalised over its last axis, the mean and the inverse deviation."""
    data, gamma, beta = meet(data, gamma, gamma.new_zeros(()) if beta is None else beta)
    wide = _wide(data)
    variance, mean = torch.var_mean(wide, -1, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    return ((wide - mean) * inverse * gamma + beta).to(data.dtype), mean, inverse


@op("LayerNormalization", 1, domain=MICROSOFT, counts_outputs=True)
def layer_normalization(
    X: torch.Tensor,
    Scale: torch.Tensor,
    B: torch.Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    n_outputs: int = 1,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """LayerNormalization as onnxruntime saves it before opset 17, in the default domain."""
    return layer_normalization_17(
        X, Scale, B, axis=axis, epsilon=epsilon, stash_type=stash_type, n_outputs=n_outputs
    )


@op("SimplifiedLayerNormalization", 1, domain=MICROSOFT)
def simplified_layer_normalization(
    X: torch.Tensor,
    scale: torch.Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[torch.Tensor, ...]:
    """SimplifiedLayerNormalization, which onnxruntime saves in the default domain."""
    if stash_type != 1:
        raise UnsupportedError(f"SimplifiedLayerNormalization with stash_type={stash_type}")
    axes = list(range(positive_axis(axis, X.ndim), X.ndim))
    return _root_mean_square(X, scale, axes, epsilon)


def _with_skip(input: torch.Tensor, skip: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the sum, not yet rounded to half precision."""
    data, other = meet(input, skip)
    total = _wide(data) + _wide(other)
    if bias is None:
        return total
    total, shift = meet(total, bias)
    return total + shift


@op("SkipLayerNormalization", 1, domain=MICROSOFT)
def skip_layer_normalization(
    input: torch.Tensor,
    skip: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[torch.Tensor, ...]:
    """SkipLayerNormalization (com.microsoft): the sum of two tensors and a bias, normalised."""
    total = _with_skip(input, skip, bias)
    result, mean, inverse = _normal(total, gamma, beta, epsilon)
    return result.to(input.dtype), mean, inverse, total.to(input.dtype)


@op("SkipSimplifiedLayerNormalization", 1, domain=MICROSOFT)
def skip_simplified_layer_normalization(
    input: torch.Tensor,
    skip: torch.Tensor,
    gamma: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[torch.Tensor, ...]:
    """SkipSimplifiedLayerNormalization (com.microsoft): over the root mean square, no mean."""
    total = _with_skip(input, skip, bias)
    result, inverse = _root_mean_square(total, gamma, [-1], epsilon)
    return result.to(input.dtype), torch.zeros_like(inverse), inverse, total.to(input.dtype)


def _looked_up(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    places, rows = meet(ids, table)
    return functional.embedding(places.to(torch.int64), rows)


@op("EmbedLayerNormalization", 1, domain=MICROSOFT)
def embed_layer_normalization(
    input_ids: torch.Tensor,
    segment_ids: torch.Tensor | None,
    word_embedding: torch.Tensor,
    position_embedding: torch.Tensor,
    segment_embedding: torch.Tensor | None,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,  # onnxruntime counts the mask's ones whatever it says
) -> tuple[torch.Tensor, ...]:
    """EmbedLayerNormalization (com.microsoft): output, mask_index and the sum of embeddings."""
    words = _looked_up(input_ids, word_embedding)
    if position_ids is None:
        positions = position_embedding[: input_ids.shape[1]]
    else:
        positions = _looked_up(position_ids, position_embedding)
    total, positions = meet(words, positions)
    total = total + positions
    if segment_ids is not None and segment_embedding is not None:
        total, segments = meet(total, _looked_up(segment_ids, segment_embedding))
        total = total + segments
    counted = torch.zeros_like(input_ids) if mask is None else (mask == 1)
    lengths = counted.to(torch.int32).sum(1, dtype=torch.int32)
    return _normal(total, gamma, beta, epsilon)[0], lengths, total


# Exporters wrote these where ONNX had no such operator yet.
op("GridSample", 1, domain=MICROSOFT)(grid_sample)
op("Trilu", 1, domain=MICROSOFT)(trilu)


@op("ExpandDims", 1, domain=MICROSOFT)
def expand_dims(X: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    """ExpandDims (com.microsoft): a new axis of length one."""
    return X.unsqueeze(host_int(axis, "the axis of ExpandDims"))
