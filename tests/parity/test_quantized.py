# SPDX-License-Identifier: Apache-2.0
"""Quantised and recurrent operators: equal to the bit, differentiable, batched, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import op_cases_microsoft_quantized
import op_cases_quantization
import parity_nodes
import pytest
import torch
from op_cases import Maker
from saturation import exact
from test_ops import onnxruntime_outputs, opsets_of

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops import lookup
from lancet_onnx.ops.quantization import whole_numbers

MICROSOFT = "com.microsoft"
EXACT: list[tuple[str, str, Maker]] = [
    (getattr(module, "DOMAIN", ""), name, maker)
    for module in (op_cases_quantization, op_cases_microsoft_quantized)
    for maker, names in module.MAKERS.items()
    for name in names
    if name not in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QEmbedLayerNormalization")
]
"""All but those that give floats, which need not be summed in the same order."""


def function(op_type: str, version: int, domain: str = "") -> Callable[..., Any]:
    operator = lookup((domain, op_type, version))
    assert operator is not None
    return operator.function


@exact
@pytest.mark.parametrize(("domain", "op_type", "maker"), EXACT)
def test_every_bit_is_that_of_onnxruntime(domain: str, op_type: str, maker: Maker) -> None:
    for opset in opsets_of(domain, op_type):
        for case in maker(op_type, opset) if opset <= 25 else ():
            model, _ = case.model()
            wanted = onnxruntime_outputs(case)
            assert wanted is not None
            inputs = [None if x is None else torch.from_numpy(np.array(x)) for x in case.inputs]
            version = parity_nodes.key_of(model.graph.node[0], opset)[2]
            got = function(op_type, version, domain)(*inputs, **case.attributes)
            outputs = got if isinstance(got, tuple) else (got,)
            for g, w in zip(outputs, wanted, strict=True):
                assert np.array_equal(g.numpy().astype(w.dtype), w), case


def test_numbers_are_rounded_to_even_clamped_and_passed_through() -> None:
    data = torch.tensor([0.5, 1.5, -0.5, 127.4, 127.6, -128.4, 1e9, torch.inf], requires_grad=True)
    whole = whole_numbers(data, torch.int8)
    assert whole.tolist() == [0, 2, 0, 127, 127, -128, 127, 127]
    (gradient,) = torch.autograd.grad(whole.sum(), data)
    assert gradient.tolist() == [1, 1, 1, 1, 0, 1, 0, 0]
    assert whole_numbers(torch.tensor([3e9]), torch.int32).tolist() == [2**31 - 1]
    assert whole_numbers(torch.tensor([7.5]).half(), torch.uint16).dtype == torch.float32
    for dtype in (torch.int64, torch.bool, torch.float32):
        with pytest.raises(UnsupportedError):
            whole_numbers(data, dtype)


def quantised_conv(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
    of_x, of_w = [torch.tensor(0.02), torch.tensor(3, dtype=torch.uint8)], torch.tensor(0.01)
    of_y = [torch.tensor(0.3), torch.tensor(100, dtype=torch.uint8)]
    conv = function("QLinearConv", 10)
    result = conv(x, *of_x, w, of_w, torch.tensor(0, dtype=torch.int8), *of_y, b, pads=[1, 1, 1, 1])
    assert isinstance(result, torch.Tensor)
    return result


def test_gradients_reach_quantised_weights_and_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (4, 3, 5, 5), generator=generator)
    w = torch.randint(-128, 128, (2, 3, 3, 3), generator=generator)
    b = torch.randint(-900, 900, (2,), generator=generator)
    carried = [t.float().requires_grad_() for t in (x, w, b)]
    whole = quantised_conv(x.to(torch.uint8), w.to(torch.int8), b.to(torch.int32))
    result = quantised_conv(*carried)
    assert torch.equal(whole, result)
    for gradient in torch.autograd.grad(result.sum(), carried):
        assert bool(torch.isfinite(gradient).all())
        assert float(gradient.abs().sum()) > 0
    alone = torch.func.vmap(lambda one: quantised_conv(one, w.float(), b.double()))
    batch = alone(x.float().unsqueeze(1)).squeeze(1)
    assert torch.equal(batch, quantised_conv(x.float(), w.float(), b.double()))


def d(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("op_type", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_gradients_and_batches(op_type: str, gates: int) -> None:
    run, size = function(op_type, 14), 3
    rows = gates * size
    weights = [d(2, rows, 2) / 2, d(2, rows, size) / 2, d(2, 2 * rows)]
    leaves = [t.requires_grad_() for t in (d(4, 2, 2), *weights)]
    lengths = torch.tensor([4, 2], dtype=torch.int32)

    def forward(*tensors: torch.Tensor) -> Any:
        return run(*tensors, lengths, direction="bidirectional", hidden_size=size)

    assert torch.autograd.gradcheck(forward, leaves)
    images, fixed = d(5, 4, 1, 2), [t.detach() for t in weights]

    def one(x: torch.Tensor) -> torch.Tensor:
        result = run(x, *fixed, torch.tensor([3]), direction="bidirectional")
        return torch.cat([part.reshape(-1) for part in result])

    apart = torch.stack([one(x) for x in images])
    assert torch.allclose(torch.func.vmap(one)(images), apart)
    turned = run(images[0].transpose(0, 1), *fixed, direction="bidirectional", layout=1)
    plain = run(images[0], *fixed, direction="bidirectional")
    assert torch.equal(turned[0], plain[0].permute(2, 0, 1, 3))


def test_attention_gradients_and_batches() -> None:
    attention = function("Attention", 1, MICROSOFT)
    weights, bias = d(3, 12), d(12)
    mask = torch.tensor([[1, 1, 0]], dtype=torch.int32)

    def one(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        result = attention(x, w, b, mask, num_heads=2, unidirectional=1)[0]
        assert isinstance(result, torch.Tensor)
        return result

    leaves = [t.clone().requires_grad_() for t in (d(1, 3, 3), weights, bias)]
    assert torch.autograd.gradcheck(one, leaves)
    images = d(4, 1, 3, 3)
    batch = torch.func.vmap(lambda x: one(x, weights, bias))(images)
    assert torch.allclose(batch, torch.stack([one(x, weights, bias) for x in images]))


def refused(call: Callable[..., Any], *inputs: Any, **attributes: Any) -> None:
    with pytest.raises(UnsupportedError):
        call(*inputs, **attributes)


def test_what_onnxruntime_does_otherwise_or_not_at_all_is_refused() -> None:
    x, w, r = torch.randn(4, 1, 2), torch.randn(1, 3, 2), torch.randn(1, 3, 3)
    rnn = function("RNN", 14)
    refused(rnn, x, w, r, activations=["ThresholdedRelu"])
    refused(rnn, x, w, r, activations=["Affine"], activation_alpha=[0.5])
    refused(rnn, x, w, r, direction="sideways")
    refused(rnn, x, w, r, hidden_size=4)
    scale, zero = torch.tensor(0.5), torch.tensor(0, dtype=torch.int8)
    refused(function("QuantizeLinear", 23), x, scale, zero, precision=10)
    refused(function("QuantizeLinear", 21), x, scale, output_dtype=22)
    refused(function("QuantizeLinear", 13), x, torch.ones(5), zero, axis=0)
    refused(function("QuantizeLinear", 21), x, torch.ones(1, 1, 2), block_size=2, axis=0)
    attention = function("Attention", 1, MICROSOFT)
    data = [torch.randn(1, 3, 4), torch.randn(4, 12), torch.randn(12)]
    refused(attention, *data, None, torch.randn(2, 1, 2, 0, 2), num_heads=2)
    refused(attention, *data, torch.ones(1, 1, 3, 3), num_heads=2)
    refused(attention, *data, torch.ones(5), num_heads=2)
    refused(attention, *data, num_heads=2, do_rotary=1)
    several = function("MultiHeadAttention", 1, MICROSOFT)
    refused(several, torch.randn(1, 3, 2, 3, 2), num_heads=2)
    image, kernel = torch.randn(1, 1, 3, 3), torch.randn(1, 1, 2, 2)
    refused(function("FusedConv", 1, MICROSOFT), image, kernel, activation="Gelu")
    refused(function("FusedConv", 1, MICROSOFT), image, kernel, activation="LeakyRelu")
    refused(function("FusedGemm", 1, MICROSOFT), w[0], w[0].T, activation="Elu")
