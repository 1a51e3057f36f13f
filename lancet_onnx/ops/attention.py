# SPDX-License-Identifier: Apache-2.0
"""Attention, rotary embeddings, and the recurrent layers that stand in for attention.

Attention is written out rather than left to torch's fused kernels: those cannot be batched by vmap
nor differentiated twice, and with a gradient they were no faster. Rows that attend to nothing are
zero, with a gradient of zero.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import dtype_of, meet
from lancet_onnx.ops.registry import op

_HALF = (torch.float16, torch.bfloat16)


def _heads(tensor: torch.Tensor, count: int | None) -> torch.Tensor:
    """Return (batch, heads, length, size), splitting the last axis of a rank 3 tensor."""
    if tensor.ndim == 4:
        return tensor
    if tensor.ndim != 3 or not count or tensor.shape[2] % count:
        raise UnsupportedError(f"attention over {list(tensor.shape)} with {count} heads")
    return tensor.reshape(*tensor.shape[:2], count, -1).transpose(1, 2)


def _merged(tensor: torch.Tensor) -> torch.Tensor:
    """Return (batch, length, heads * size) of (batch, heads, length, size)."""
    return tensor.transpose(1, 2).flatten(2)


def _repeated(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Return a tensor whose heads on axis 1 each serve a group of `heads` neighbours."""
    own = tensor.shape[1]
    if own == heads:
        return tensor
    if heads % own:
        raise UnsupportedError(f"attention of {heads} query heads to {own} key heads")
    return torch.repeat_interleave(tensor, heads // own, dim=1)


def _padded_mask(mask: torch.Tensor, length: int) -> torch.Tensor:
    """Return a mask over all keys; those that it does not reach are not attended to."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise UnsupportedError(f"Attention with a mask of {mask.dtype} is not computed")
    missing = length - mask.shape[-1]
    if missing == 0:
        return mask
    if missing < 0 or mask.shape[-1] == 1:
        raise UnsupportedError(f"Attention to {length} keys with a mask of {list(mask.shape)}")
    if mask.dtype == torch.bool:
        return functional.pad(mask, [0, missing], value=False)
    return functional.pad(mask, [0, missing], value=-math.inf)


def _bias(
    like: torch.Tensor,
    shape: tuple[int, int],
    mask: torch.Tensor | None,
    before: int | torch.Tensor,
    nonpad: torch.Tensor | None,
    reach: tuple[int, int],
) -> torch.Tensor | None:
    """Return what is added to the scores, None for nothing.

    Args:
        like: a tensor of the scores' type and device.
        shape: the numbers of queries and keys.
        mask: the mask of the node, over all keys.
        before: how many keys precede the first query, per sample where it is a tensor.
        nonpad: how many keys of each sample are no padding.
        reach: how far a query sees back and ahead, -1 for no end.
    """
    queries = torch.arange(shape[0], device=like.device).reshape(-1, 1)
    keys = torch.arange(shape[1], device=like.device)
    if isinstance(before, torch.Tensor):
        before = before.to(like.device).reshape(-1, 1, 1, 1)
    ahead = keys - (queries + before)
    rules = [mask] if mask is not None and mask.dtype == torch.bool else []
    if reach[0] >= 0:
        rules.append(ahead >= -reach[0])
    if reach[1] >= 0:
        rules.append(ahead <= reach[1])
    if nonpad is not None:
        rules.append(keys < nonpad.to(like.device).reshape(-1, 1, 1, 1))
    added = None if mask is None or mask.dtype == torch.bool else mask.to(like.dtype)
    if not rules:
        return added
    allowed = rules[0]
    for rule in rules[1:]:
        allowed = allowed & rule
    nothing = like.new_zeros(()) if added is None else added
    return torch.where(allowed, nothing, like.new_full((), -math.inf))


def _softmax(scores: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the softmax of scores + bias; rows whose bias is all -inf become zeros."""
    if bias is None:
        return torch.softmax(scores, -1)
    empty = torch.isneginf(torch.amax(bias, -1, keepdim=True))
    safe = torch.where(empty, torch.zeros_like(bias), bias)
    chances = torch.softmax(scores + safe.to(scores.dtype), -1)
    return torch.where(empty, torch.zeros_like(chances), chances)


def _check_window(left: int, right: int) -> None:
    if left < -1 or right < -1:
        raise UnsupportedError(f"Attention with a window from {left} to {right}")


@op("Attention", 25, counts_outputs=True)
def attention_25(
    Q: torch.Tensor,
    K: torch.Tensor,
    V: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    past_key: torch.Tensor | None = None,
    past_value: torch.Tensor | None = None,
    nonpad_kv_seqlen: torch.Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    n_outputs: int = 1,
) -> tuple[torch.Tensor, ...]:
    """Attention (25): (batch, heads, length, size), or heads packed in rank 3."""
    _check_window(left_window_size, right_window_size)
    if (past_key is None) != (past_value is None):
        raise UnsupportedError("Attention with only one of past_key and past_value")
    if nonpad_kv_seqlen is not None and past_key is not None:
        raise UnsupportedError("Attention with both a past and nonpad_kv_seqlen")
    packed = Q.ndim == 3
    query, key, value = _heads(Q, q_num_heads), _heads(K, kv_num_heads), _heads(V, kv_num_heads)
    before: int | torch.Tensor = 0
    if past_key is not None and past_value is not None:
        before = past_key.shape[2]
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
    elif nonpad_kv_seqlen is not None:
        before = nonpad_kv_seqlen - query.shape[2]
    factor = 1 / math.sqrt(query.shape[3]) if scale is None else scale
    if factor <= 0:
        raise UnsupportedError(f"Attention with a scale of {scale}")
    all_keys, all_values = _repeated(key, query.shape[1]), _repeated(value, query.shape[1])
    root = math.sqrt(factor)
    scores = (query * root) @ (all_keys * root).transpose(-1, -2)
    capped = torch.tanh(scores / softcap) * softcap if softcap > 0 else scores
    ahead = 0 if is_causal else right_window_size
    bias = _bias(
        query,
        (query.shape[2], key.shape[2]),
        None if attn_mask is None else meet(query, _padded_mask(attn_mask, key.shape[2]))[1],
        before,
        nonpad_kv_seqlen,
        (left_window_size, ahead),
    )
    precise = capped
    if softmax_precision is not None:
        # As onnxruntime does it: never in less than the inputs' own precision.
        precise = capped.to(torch.promote_types(capped.dtype, dtype_of(softmax_precision)))
    chances = _softmax(precise, bias).to(query.dtype)
    result = chances @ all_values
    stages = {0: scores, 1: capped, 3: chances}
    if n_outputs > 3 and qk_matmul_output_mode == 2:
        stages[2] = capped if bias is None else capped + bias
    if n_outputs > 3 and qk_matmul_output_mode not in stages:
        raise UnsupportedError(f"Attention with qk_matmul_output_mode={qk_matmul_output_mode}")
    outputs = (_merged(result) if packed else result, key, value)
    return (*outputs, stages[qk_matmul_output_mode]) if n_outputs > 3 else outputs[:n_outputs]


@op("Attention", 24, counts_outputs=True)
def attention_24(
    Q: torch.Tensor,
    K: torch.Tensor,
    V: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    past_key: torch.Tensor | None = None,
    past_value: torch.Tensor | None = None,
    nonpad_kv_seqlen: torch.Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    n_outputs: int = 1,
) -> tuple[torch.Tensor, ...]:
    """Attention (24): without windows."""
    return attention_25(
        Q,
        K,
        V,
        attn_mask,
        past_key,
        past_value,
        nonpad_kv_seqlen,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
        n_outputs=n_outputs,
    )


@op("Attention", 23, counts_outputs=True)
def attention_23(
    Q: torch.Tensor,
    K: torch.Tensor,
    V: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    past_key: torch.Tensor | None = None,
    past_value: torch.Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    n_outputs: int = 1,
) -> tuple[torch.Tensor, ...]:
    """Attention (23): without padding inside the cache."""
    return attention_25(
        Q,
        K,
        V,
        attn_mask,
        past_key,
        past_value,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
        n_outputs=n_outputs,
    )


@op("FlexAttention", 1, domain="ai.onnx.preview")
def flex_attention(
    Q: torch.Tensor,
    K: torch.Tensor,
    V: torch.Tensor,
    *,
    prob_mod: object = None,
    scale: float | None = None,
    score_mod: object = None,
    softmax_precision: int | None = None,
) -> torch.Tensor:
    """FlexAttention (1, ai.onnx.preview): subgraphs that change scores are refused."""
    if prob_mod is not None or score_mod is not None:
        raise UnsupportedError("FlexAttention with a subgraph (score_mod, prob_mod)")
    kind = torch.float32 if Q.dtype in _HALF else Q.dtype
    if softmax_precision is not None:
        kind = dtype_of(softmax_precision)
    factor = 1 / math.sqrt(Q.shape[3]) if scale is None else scale
    keys, values = _repeated(K, Q.shape[1]), _repeated(V, Q.shape[1])
    chances = torch.softmax(((Q @ keys.transpose(-1, -2)) * factor).to(kind), -1)
    return chances.to(Q.dtype) @ values


@op("RotaryEmbedding", 23)
def rotary_embedding(
    X: torch.Tensor,
    cos_cache: torch.Tensor,
    sin_cache: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> torch.Tensor:
    """RotaryEmbedding (23): (batch, heads, length, size), or heads packed in rank 3."""
    data = _heads(X, num_heads)
    size = rotary_embedding_dim or data.shape[3]
    cos, sin = cos_cache, sin_cache
    if position_ids is not None:
        cos, sin, places = meet(cos, sin, position_ids)
        cos, sin = cos[places.to(torch.int64)], sin[places.to(torch.int64)]
    if cos.shape[-1] != size // 2 or sin.shape[-1] != size // 2:
        raise UnsupportedError(f"RotaryEmbedding of {size} with caches of {list(cos.shape)}")
    data, cos, sin = meet(data, cos.unsqueeze(1), sin.unsqueeze(1))
    turned, rest = data[..., :size], data[..., size:]
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned[..., : size // 2], turned[..., size // 2 :]
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    if interleaved:
        turned = torch.stack([real, imaginary], -1).flatten(-2)
    else:
        turned = torch.cat([real, imaginary], -1)
    result = torch.cat([turned, rest], -1) if rest.shape[-1] else turned
    return _merged(result) if X.ndim == 3 else result
