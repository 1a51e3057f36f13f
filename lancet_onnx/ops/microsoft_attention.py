# SPDX-License-Identifier: Apache-2.0
"""Attention of com.microsoft, as onnxruntime's transformer optimiser fuses it."""

from __future__ import annotations

import math

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import meet
from lancet_onnx.ops.microsoft import MICROSOFT
from lancet_onnx.ops.quantization import matmul_sums
from lancet_onnx.ops.registry import op


def _heads(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Turn (batch, length, width) into (batch, heads, length, head)."""
    return x.reshape(*x.shape[:2], num_heads, -1).transpose(1, 2)


def padding_mask(mask: torch.Tensor, batch: int, length: int, filter_value: float) -> torch.Tensor:
    """Return what a mask_index adds to the scores: lengths, ends with starts, or 0 for masked.

    The result broadcasts to (batch, heads, queries, keys).
    """
    if mask.ndim == 1:
        if mask.shape[0] not in (batch, 2 * batch):
            raise UnsupportedError(f"attention with a mask of {mask.shape[0]} for {batch} samples")
        places = torch.arange(length, device=mask.device)
        seen = places < mask[:batch].unsqueeze(-1)
        if mask.shape[0] == 2 * batch:
            seen = seen & (places >= mask[batch:].unsqueeze(-1))
    elif mask.ndim in (2, 3):
        seen = mask > 0
    else:
        raise UnsupportedError(f"attention with a mask of {mask.ndim} axes is not computed")
    seen = seen.reshape(seen.shape[0], 1, *([1] if seen.ndim == 2 else []), *seen.shape[1:])
    return torch.where(seen, 0.0, filter_value)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    attention_bias: torch.Tensor | None,
    *,
    scale: float,
    mask_filter_value: float,
    unidirectional: int,
) -> torch.Tensor:
    """Return softmax(scale Q K' + masks) V of (batch, heads, length, head), heads joined again."""
    count, length = query.shape[2], key.shape[2]
    scores = query @ key.transpose(-1, -2) * (scale or 1 / math.sqrt(query.shape[-1]))
    added = scores.new_zeros(())
    if mask is not None:
        extra = padding_mask(mask, query.shape[0], length, mask_filter_value)
        added = meet(scores, extra)[1].to(scores.dtype)
    if unidirectional:
        later = torch.ones(count, length, dtype=torch.bool, device=scores.device).triu(1)
        added = torch.where(later, torch.finfo(scores.dtype).min, added)
    if attention_bias is not None:
        added = added + meet(scores, attention_bias)[1]
    mixed = torch.softmax(scores + added, -1) @ value
    return mixed.transpose(1, 2).reshape(query.shape[0], count, -1)


def _refuse_state(op_type: str, **given: object) -> None:
    """Refuse what belongs to generation: past states, rotary embeddings, shared buffers."""
    found = [k for k, value in given.items() if isinstance(value, torch.Tensor) or value]
    if found:
        raise UnsupportedError(f"{op_type} with {', '.join(found)} is not computed")


def _self_attention(
    projected: torch.Tensor,
    sizes: list[int],
    mask_index: torch.Tensor | None,
    attention_bias: torch.Tensor | None,
    num_heads: int,
    scale: float,
    mask_filter_value: float,
    unidirectional: int,
) -> tuple[torch.Tensor, ...]:
    """Return the output and the present state of Attention from projected Q, K and V."""
    parts: list[torch.Tensor] = list(torch.split_with_sizes(projected, sizes, -1))
    query, key, value = (_heads(part, num_heads) for part in parts)
    output = attend(
        query,
        key,
        value,
        mask_index,
        attention_bias,
        scale=scale,
        mask_filter_value=mask_filter_value,
        unidirectional=unidirectional,
    )
    if sizes[1] != sizes[2]:
        return (output,)
    return output, torch.stack([key, value])


@op("Attention", 1, domain=MICROSOFT)
def attention(
    input: torch.Tensor,
    weights: torch.Tensor,
    bias: torch.Tensor | None = None,
    mask_index: torch.Tensor | None = None,
    past: torch.Tensor | None = None,
    attention_bias: torch.Tensor | None = None,
    past_sequence_length: torch.Tensor | None = None,
    *,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    past_present_share_buffer: int = 0,
    qkv_hidden_sizes: list[int] | None = None,
    rotary_embedding_dim: int = 0,
    scale: float = 0.0,
    unidirectional: int = 0,
) -> tuple[torch.Tensor, ...]:
    """Attention (com.microsoft) with fused projections; no past state."""
    _refuse_state(
        "Attention",
        past=past,
        past_sequence_length=past_sequence_length,
        do_rotary=do_rotary,
        past_present_share_buffer=past_present_share_buffer,
        rotary_embedding_dim=rotary_embedding_dim,
    )
    data, matrix = meet(input, weights)
    projected = data @ matrix
    if bias is not None:
        projected, shift = meet(projected, bias)
        projected = projected + shift
    sizes = qkv_hidden_sizes or [weights.shape[1] // 3] * 3
    return _self_attention(
        projected,
        sizes,
        mask_index,
        attention_bias,
        num_heads,
        scale,
        mask_filter_value,
        unidirectional,
    )


@op("QAttention", 1, domain=MICROSOFT)
def quantized_attention(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    input_scale: torch.Tensor,
    weight_scale: torch.Tensor,
    mask_index: torch.Tensor | None = None,
    input_zero_point: torch.Tensor | None = None,
    weight_zero_point: torch.Tensor | None = None,
    past: torch.Tensor | None = None,
    *,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    past_present_share_buffer: int = 0,
    scale: float = 0.0,
    unidirectional: int = 0,
) -> tuple[torch.Tensor, ...]:
    """QAttention (com.microsoft): integer projections, float attention; no past state."""
    _refuse_state(
        "QAttention",
        past=past,
        do_rotary=do_rotary,
        past_present_share_buffer=past_present_share_buffer,
    )
    sums = matmul_sums(input, weight, input_zero_point, weight_zero_point)
    factors = meet(sums.to(bias.dtype), input_scale.reshape(()), weight_scale, bias)
    projected = factors[0] * (factors[1] * factors[2]) + factors[3]
    sizes = [weight.shape[1] // 3] * 3
    return _self_attention(
        projected,
        sizes,
        mask_index,
        None,
        num_heads,
        scale,
        mask_filter_value,
        unidirectional,
    )


@op("MultiHeadAttention", 1, domain=MICROSOFT)
def multi_head_attention(
    query: torch.Tensor,
    key: torch.Tensor | None = None,
    value: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    key_padding_mask: torch.Tensor | None = None,
    attention_bias: torch.Tensor | None = None,
    past_key: torch.Tensor | None = None,
    past_value: torch.Tensor | None = None,
    past_sequence_length: torch.Tensor | None = None,
    cache_indirection: torch.Tensor | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
) -> tuple[torch.Tensor, ...]:
    """MultiHeadAttention (com.microsoft) of separate Q, K and V; packed ones are refused."""
    _refuse_state(
        "MultiHeadAttention",
        past_key=past_key,
        past_value=past_value,
        past_sequence_length=past_sequence_length,
        cache_indirection=cache_indirection,
    )
    if key is None or value is None or query.ndim != 3 or key.ndim != value.ndim:
        raise UnsupportedError("MultiHeadAttention of packed projections is not computed")
    if bias is not None:
        if key.ndim != 3:
            raise UnsupportedError("MultiHeadAttention of keys by head with a bias is not computed")
        width = query.shape[-1]
        query, key, value, bias = meet(query, key, value, bias)
        query, key = query + bias[:width], key + bias[width : 2 * width]
        value = value + bias[2 * width :]
    query, key, value = meet(query, key, value)
    if key.ndim == 3:
        key, value = _heads(key, num_heads), _heads(value, num_heads)
    output = attend(
        _heads(query, num_heads),
        key,
        value,
        key_padding_mask,
        attention_bias,
        scale=scale,
        mask_filter_value=mask_filter_value,
        unidirectional=unidirectional,
    )
    return output, key, value
