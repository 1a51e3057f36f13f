# SPDX-License-Identifier: Apache-2.0
"""Normalisation, written so that gradients reach scale, shift and statistics alike."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import host_floats, positive_axes, positive_axis
from lancet_onnx.ops.registry import op


def _channels(values: torch.Tensor, rank: int) -> torch.Tensor:
    """Return one value per channel, shaped to meet a tensor of this rank."""
    return values.reshape(-1, *([1] * max(rank - 2, 0)))


def _batch_norm(
    X: torch.Tensor,
    scale: torch.Tensor,
    B: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    factor = scale / torch.sqrt(var + epsilon)
    shift = B - mean * factor
    result = torch.addcmul(_channels(shift, X.ndim), X.to(factor.dtype), _channels(factor, X.ndim))
    return result.to(X.dtype)


@op("BatchNormalization", 7, 9, counts_outputs=True)
def batch_normalization_7(
    X: torch.Tensor,
    scale: torch.Tensor,
    B: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,  # of training only
    spatial: int = 1,
    n_outputs: int = 1,
) -> torch.Tensor:
    """BatchNormalization (7, 9): more than one output means training, which is refused."""
    if n_outputs > 1:
        raise UnsupportedError(
            "BatchNormalization with more than one output is in training mode; export the model "
            f"in inference mode (momentum {momentum})"
        )
    if not spatial:
        raise UnsupportedError("BatchNormalization with spatial=0 is not computed")
    return _batch_norm(X, scale, B, mean, var, epsilon)


@op("BatchNormalization", 14, 15)
def batch_normalization(
    X: torch.Tensor,
    scale: torch.Tensor,
    B: torch.Tensor,
    input_mean: torch.Tensor,
    input_var: torch.Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """BatchNormalization (14, 15): training_mode=1 takes the statistics of the batch."""
    if not training_mode:
        return _batch_norm(X, scale, B, input_mean, input_var, epsilon)
    axes = [axis for axis in range(X.ndim) if axis != 1]
    variance, mean = torch.var_mean(_wide(X), axes, correction=0)
    running = tuple(
        (old * momentum + new * (1 - momentum)).to(old.dtype)
        for old, new in ((input_mean, mean), (input_var, variance))
    )
    return (_batch_norm(X, scale, B, mean, variance, epsilon), *running)


def _wide(X: torch.Tensor) -> torch.Tensor:
    """Return X in float32 at least, as stash_type=1 wants; float64 keeps its digits."""
    return X.to(torch.float32) if X.dtype in (torch.float16, torch.bfloat16) else X


def _check_stash(stash_type: int, op_type: str) -> None:
    if stash_type != 1:
        raise UnsupportedError(f"{op_type} with stash_type={stash_type} is not computed")


@op("InstanceNormalization", 6, 22)
def instance_normalization(
    input: torch.Tensor,
    scale: torch.Tensor,
    B: torch.Tensor,
    *,
    epsilon: float = 1e-5,
) -> torch.Tensor:
    """InstanceNormalization (6, 22)."""
    axes = list(range(2, input.ndim))
    data = _wide(input)
    variance, mean = torch.var_mean(data, axes, correction=0, keepdim=True)
    normal = ((data - mean) / torch.sqrt(variance + epsilon)).to(input.dtype)
    return normal * _channels(scale, input.ndim) + _channels(B, input.ndim)


@op("LayerNormalization", 17, counts_outputs=True)
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
    """LayerNormalization (17), with Mean and InvStdDev when the node names them."""
    _check_stash(stash_type, "LayerNormalization")
    at = positive_axis(axis, X.ndim)
    shape = X.shape[at:]
    plain = n_outputs == 1 and X.dtype in (torch.float32, torch.float64) and Scale.shape == shape
    if plain and (B is None or B.shape == shape):
        return functional.layer_norm(X, shape, Scale, B, epsilon)
    data = _wide(X)
    axes = list(range(at, X.ndim))
    variance, mean = torch.var_mean(data, axes, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    result = ((data - mean) * inverse).to(X.dtype) * Scale
    result = result if B is None else result + B
    return result if n_outputs == 1 else (result, mean, inverse)[:n_outputs]


@op("RMSNormalization", 23)
def rms_normalization(
    X: torch.Tensor,
    scale: torch.Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> torch.Tensor:
    """RMSNormalization (23)."""
    _check_stash(stash_type, "RMSNormalization")
    data = _wide(X)
    axes = list(range(positive_axis(axis, X.ndim), X.ndim))
    squares = torch.mean(data * data, axes, keepdim=True)
    return (data / torch.sqrt(squares + epsilon)).to(X.dtype) * scale


def _grouped(X: torch.Tensor, num_groups: int, epsilon: float) -> torch.Tensor:
    """Return X normalised over each of its groups of channels."""
    data = _wide(X).reshape(X.shape[0], num_groups, -1)
    variance, mean = torch.var_mean(data, 2, correction=0, keepdim=True)
    return ((data - mean) / torch.sqrt(variance + epsilon)).to(X.dtype)


def _check_channels(values: torch.Tensor, wanted: int, version: int) -> None:
    if values.numel() != wanted:
        raise UnsupportedError(
            f"GroupNormalization {version} wants {wanted} scales and shifts, not {values.numel()}"
        )


@op("GroupNormalization", 18)
def group_normalization_18(
    X: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
) -> torch.Tensor:
    """GroupNormalization (18): one scale and shift per group."""
    _check_channels(scale, num_groups, 18)
    _check_channels(bias, num_groups, 18)
    normal = _grouped(X, num_groups, epsilon)
    return (normal * scale.reshape(-1, 1) + bias.reshape(-1, 1)).reshape(X.shape)


@op("GroupNormalization", 21)
def group_normalization(
    X: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
    stash_type: int = 1,
) -> torch.Tensor:
    """GroupNormalization (21): one scale and shift per channel."""
    _check_stash(stash_type, "GroupNormalization")
    _check_channels(scale, X.shape[1], 21)
    _check_channels(bias, X.shape[1], 21)
    normal = _grouped(X, num_groups, epsilon).reshape(X.shape)
    return normal * _channels(scale, X.ndim) + _channels(bias, X.ndim)


@op("LRN", 1, 13)
def lrn(
    X: torch.Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> torch.Tensor:
    """LRN (1, 13): an even size reaches one channel further up than down."""
    channels = X.shape[1]
    spatial = [0, 0] * (X.ndim - 2)
    squares = functional.pad(X * X, [*spatial, (size - 1) // 2, size // 2])
    total = squares.narrow(1, 0, channels)
    for start in range(1, size):
        total = total + squares.narrow(1, start, channels)
    return X / (bias + alpha / size * total) ** beta


@op("LpNormalization", 1, 22)
def lp_normalization(
    input: torch.Tensor,
    *,
    axis: int = -1,
    p: int = 2,
) -> torch.Tensor:
    """LpNormalization (1, 22): a norm of zero gives zeros."""
    if p not in (1, 2):
        raise UnsupportedError(f"LpNormalization with p={p} is not known")
    norm = torch.linalg.vector_norm(input, p, axis, keepdim=True)
    return input / torch.where(norm == 0, torch.ones_like(norm), norm)


@op("MeanVarianceNormalization", 9, 13)
def mean_variance_normalization(X: torch.Tensor, *, axes: list[int] | None = None) -> torch.Tensor:
    """MeanVarianceNormalization (9, 13)."""
    dims = positive_axes([0, 2, 3] if axes is None else axes, X.ndim)
    centred = X - torch.mean(X, dims, keepdim=True)
    variance = torch.mean(centred * centred, dims, keepdim=True)
    return centred / (torch.sqrt(variance) + 1e-9)


@op("Dropout", 7, 10, counts_outputs=True)
def dropout_7(data: torch.Tensor, *, ratio: float = 0.5, n_outputs: int = 1) -> torch.Tensor:
    """Dropout (7, 10): the identity; its mask, which means nothing here, is refused."""
    if n_outputs > 1:
        raise UnsupportedError(f"Dropout (ratio {ratio}) with its mask output before opset 12")
    return data


@op("Dropout", 12, 13, 22, counts_outputs=True, host=(1, 2))
def dropout(
    data: torch.Tensor,
    ratio: torch.Tensor | None = None,
    training_mode: torch.Tensor | None = None,
    *,
    seed: int = 0,
    n_outputs: int = 1,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Dropout (12, 13, 22): the identity and a mask of ones; what drops at random is refused."""
    if training_mode is not None and (
        training_mode.device.type != "cpu" or math.prod(training_mode.shape) != 1
    ):
        raise UnsupportedError("Dropout with a training_mode that is computed")
    if training_mode is not None and bool(training_mode.reshape(())):
        shares = [0.5] if ratio is None else host_floats(ratio, "the ratio of Dropout")
        if shares != [0.0]:
            raise UnsupportedError(
                f"Dropout in training mode (ratio {shares}, seed {seed}); export in inference mode"
            )
    if n_outputs == 1:
        return data
    return data, torch.ones_like(data, dtype=torch.bool)
