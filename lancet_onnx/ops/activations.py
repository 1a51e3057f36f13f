# SPDX-License-Identifier: Apache-2.0
"""Activation functions, with the softmax family."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import meet, positive_axis
from lancet_onnx.ops.registry import op


@op("Relu", 6, 13, 14)
def relu(X: torch.Tensor) -> torch.Tensor:
    """Relu (6, 13, 14)."""
    return torch.relu(X)


@op("LeakyRelu", 6, 16)
def leaky_relu(X: torch.Tensor, *, alpha: float = 0.01) -> torch.Tensor:
    """LeakyRelu (6, 16)."""
    return functional.leaky_relu(X, alpha)


@op("PRelu", 7, 9, 16)
def prelu(X: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """PRelu (7, 9, 16): the slope is broadcast to X as numpy does, not along the channels."""
    data, factor = meet(X, slope)
    return torch.where(data < 0, data * factor, data)


@op("Elu", 6, 22)
def elu(X: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    """Elu (6, 22)."""
    return functional.elu(X, alpha)


@op("Celu", 12, 28)
def celu(X: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    """Celu (12, 28)."""
    return functional.celu(X, alpha)


@op("Selu", 6, 22)
def selu(
    X: torch.Tensor, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323
) -> torch.Tensor:
    """Selu (6, 22)."""
    return gamma * functional.elu(X, alpha)


@op("Sigmoid", 6, 13)
def sigmoid(X: torch.Tensor) -> torch.Tensor:
    """Sigmoid (6, 13)."""
    return torch.sigmoid(X)


@op("HardSigmoid", 6, 22)
def hard_sigmoid(X: torch.Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> torch.Tensor:
    """HardSigmoid (6, 22)."""
    return torch.clamp(X * alpha + beta, 0.0, 1.0)


@op("HardSwish", 14, 22)
def hard_swish(X: torch.Tensor) -> torch.Tensor:
    """HardSwish (14, 22)."""
    return functional.hardswish(X)


@op("Tanh", 6, 13)
def tanh(input: torch.Tensor) -> torch.Tensor:
    """Tanh (6, 13)."""
    return torch.tanh(input)


@op("Softplus", 1, 22)
def softplus(X: torch.Tensor) -> torch.Tensor:
    """Softplus (1, 22): torch takes x itself above 20."""
    return functional.softplus(X)


@op("Softsign", 1, 22)
def softsign(input: torch.Tensor) -> torch.Tensor:
    """Softsign (1, 22)."""
    return input / (1 + torch.abs(input))


@op("Mish", 18, 22)
def mish(X: torch.Tensor) -> torch.Tensor:
    """Mish (18, 22)."""
    return functional.mish(X)


@op("Swish", 24)
def swish(X: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    """Swish (24)."""
    return X * torch.sigmoid(alpha * X)


@op("Gelu", 20)
def gelu(X: torch.Tensor, *, approximate: str = "none") -> torch.Tensor:
    """Gelu (20)."""
    if approximate not in ("none", "tanh"):
        raise UnsupportedError(f"Gelu with approximate={approximate!r} is not known")
    return functional.gelu(X, approximate=approximate)


@op("Shrink", 9)
def shrink(
    input: torch.Tensor,
    *,
    bias: float = 0.0,
    lambd: float = 0.5,
) -> torch.Tensor:
    """Shrink (9)."""
    if not input.is_floating_point() and not float(bias).is_integer():
        raise UnsupportedError("Shrink of integers with a fractional bias is not computed")
    zero = torch.zeros_like(input)
    high = torch.where(input > lambd, (input - bias).to(input.dtype), zero)
    return torch.where(input < -lambd, (input + bias).to(input.dtype), high)


@op("ThresholdedRelu", 10, 22)
def thresholded_relu(X: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    """ThresholdedRelu (10, 22)."""
    return torch.where(alpha < X, X, torch.zeros_like(X))


def _flattened(X: torch.Tensor, axis: int) -> torch.Tensor:
    """Return X as a matrix, cut at `axis`, as the softmax family did before opset 13."""
    at = axis + X.ndim if axis < 0 else axis
    return X.reshape(math.prod(X.shape[:at]), math.prod(X.shape[at:]))


@op("Softmax", 1, 11)
def softmax_1(input: torch.Tensor, *, axis: int = 1) -> torch.Tensor:
    """Softmax (1, 11): over all axes from `axis` on."""
    return torch.softmax(_flattened(input, axis), 1).reshape(input.shape)


@op("Softmax", 13)
def softmax(input: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    """Softmax (13): over one axis."""
    return torch.softmax(input, axis)


@op("LogSoftmax", 1, 11)
def log_softmax_1(input: torch.Tensor, *, axis: int = 1) -> torch.Tensor:
    """LogSoftmax (1, 11): over all axes from `axis` on."""
    return torch.log_softmax(_flattened(input, axis), 1).reshape(input.shape)


@op("LogSoftmax", 13)
def log_softmax(input: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    """LogSoftmax (13): over one axis."""
    return torch.log_softmax(input, axis)


@op("Hardmax", 1, 11)
def hardmax_1(input: torch.Tensor, *, axis: int = 1) -> torch.Tensor:
    """Hardmax (1, 11): over all axes from `axis` on."""
    return hardmax(_flattened(input, axis), axis=1).reshape(input.shape)


@op("Hardmax", 13)
def hardmax(input: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    """Hardmax (13): one at the first maximum along one axis."""
    at = positive_axis(axis, input.ndim)
    first = torch.argmax(input, at, keepdim=True)
    shape = [1] * input.ndim
    shape[at] = input.shape[at]
    places = torch.arange(input.shape[at], device=input.device).reshape(shape)
    return (places == first).to(input.dtype)
