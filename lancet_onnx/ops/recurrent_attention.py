# SPDX-License-Identifier: Apache-2.0
"""Layers with a carried state that newer language models use in attention's place."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.registry import op

_GATED = ("gated", "gated_delta")
_DELTA = ("delta", "gated_delta")


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32 at least, in which the recurrence is computed."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.to(torch.float32) if half else tensor


def _split(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Return (batch, length, heads, size) in float32 at least."""
    if tensor.ndim != 3 or tensor.shape[2] % heads:
        raise UnsupportedError(f"LinearAttention over {list(tensor.shape)} with {heads} heads")
    return _wide(tensor).reshape(*tensor.shape[:2], heads, -1)


def _check_inputs(rule: str, decay: torch.Tensor | None, beta: torch.Tensor | None) -> None:
    if rule not in ("linear", *_GATED, *_DELTA):
        raise UnsupportedError(f"LinearAttention with update_rule={rule!r} is not known")
    if (decay is not None) != (rule in _GATED) or (beta is not None) != (rule in _DELTA):
        raise UnsupportedError(f"LinearAttention with update_rule={rule!r} and other inputs")


@op("LinearAttention", 27)
def linear_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    past_state: torch.Tensor | None = None,
    decay: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    *,
    chunk_size: int = 64,  # a hint on speed
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> tuple[torch.Tensor, torch.Tensor]:
    """LinearAttention (27): token after token, in float32; heads packed in rank 3."""
    _check_inputs(update_rule, decay, beta)
    if q_num_heads % kv_num_heads:
        raise UnsupportedError(f"LinearAttention of {q_num_heads} heads to {kv_num_heads}")
    queries = _split(query, q_num_heads)
    keys, values = _split(key, kv_num_heads), _split(value, kv_num_heads)
    if past_state is None:
        state = keys.new_zeros((keys.shape[0], kv_num_heads, keys.shape[3], values.shape[3]))
    else:
        state = _wide(past_state)
    fading = None if decay is None else torch.exp(_split(decay, kv_num_heads)).unsqueeze(-1)
    rates = None if beta is None else _wide(beta).unsqueeze(-1)
    factor = scale or 1 / math.sqrt(queries.shape[3])
    outputs = []
    for step in range(queries.shape[1]):
        k, v = keys[:, step], values[:, step]
        if fading is not None:
            state = state * fading[:, step]
        if rates is not None:
            v = rates[:, step] * (v - torch.einsum("bhkv,bhk->bhv", state, k))
        state = state + k.unsqueeze(-1) * v.unsqueeze(-2)
        read = torch.repeat_interleave(state, q_num_heads // kv_num_heads, 1)
        outputs.append(torch.einsum("bhk,bhkv->bhv", queries[:, step], read) * factor)
    result = torch.stack(outputs, 1).flatten(2)
    kept = query.dtype if past_state is None else past_state.dtype
    return result.to(query.dtype), state.to(kept)


@op("CausalConvWithState", 27)
def causal_conv_with_state(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    past_state: torch.Tensor | None = None,
    *,
    activation: str = "none",
) -> tuple[torch.Tensor, torch.Tensor]:
    """CausalConvWithState (27): (batch, channels, length) and the last inputs as state."""
    if activation not in ("none", "silu", "swish"):
        raise UnsupportedError(f"CausalConvWithState with activation={activation!r}")
    before = weight.shape[2] - 1
    if past_state is None:
        data = functional.pad(input, [before, 0])
    else:
        data = torch.cat([past_state, input], 2)
    result = functional.conv1d(data, weight, bias, groups=input.shape[1])
    if activation != "none":
        result = functional.silu(_wide(result)).to(input.dtype)
    return result, data[:, :, data.shape[2] - before :]
