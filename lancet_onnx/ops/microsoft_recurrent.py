# SPDX-License-Identifier: Apache-2.0
"""The LSTM that onnxruntime's dynamic quantisation writes."""

from __future__ import annotations

from functools import partial

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import meet
from lancet_onnx.ops.microsoft import MICROSOFT
from lancet_onnx.ops.microsoft_quantized import dynamic_quantize_matmul
from lancet_onnx.ops.recurrent import Direction, activations_of, lstm_step, run_directions
from lancet_onnx.ops.registry import op


@op("DynamicQuantizeLSTM", 1, domain=MICROSOFT)
def dynamic_quantize_lstm(
    X: torch.Tensor,
    W: torch.Tensor,
    R: torch.Tensor,
    B: torch.Tensor | None,
    sequence_lens: torch.Tensor | None,
    initial_h: torch.Tensor | None,
    initial_c: torch.Tensor | None,
    P: torch.Tensor | None,
    W_scale: torch.Tensor,
    W_zero_point: torch.Tensor,
    R_scale: torch.Tensor,
    R_zero_point: torch.Tensor,
    *,
    activation_alpha: list[float] | None = None,
    activation_beta: list[float] | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
) -> tuple[torch.Tensor, ...]:
    """DynamicQuantizeLSTM (com.microsoft): weights of (directions, inputs, 4 hidden) in 8 bits.

    All inputs share one scale, and the states of a batch another at each time. That is what
    onnxruntime does on one thread; on several it gives each thread's part of a batch its own.
    """
    if sequence_lens is not None or hidden_size not in (None, R.shape[1]):
        raise UnsupportedError("DynamicQuantizeLSTM with sequence_lens is not computed")
    places = [k for k, t in enumerate((B, initial_h, initial_c, P)) if t is not None]
    floats = [t for t in (B, initial_h, initial_c, P) if t is not None]
    X, *moved = meet(X, *floats)
    given: list[torch.Tensor | None] = [None] * 4
    for place, tensor in zip(places, moved, strict=True):
        given[place] = tensor
    B, initial_h, initial_c, P = given
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * W.shape[0]
    functions = activations_of(names, activation_alpha, activation_beta)

    def direction_of(d: int) -> Direction:
        bias = None if B is None else B[d].reshape(2, -1).sum(0)
        product_of = partial(
            dynamic_quantize_matmul,
            B=W[d],
            b_scale=W_scale[d],
            b_zero_point=W_zero_point[d],
            bias=bias,
        )
        recur = partial(
            dynamic_quantize_matmul, B=R[d], b_scale=R_scale[d], b_zero_point=R_zero_point[d]
        )
        peepholes = None if P is None else P[d]
        numbers = functions[3 * d : 3 * d + 3]
        return product_of, lstm_step(recur, peepholes, numbers, clip, input_forget)

    count, size, initial = W.shape[0], R.shape[1], [initial_h, initial_c]
    return run_directions(X, count, size, initial, None, direction, 0, direction_of)
