# SPDX-License-Identifier: Apache-2.0
"""Attention, sampling, selection and signals under autograd, torch.func and beside a device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity_nodes import call
from test_ops_autograd import d, on_host

ALLOWED = torch.tensor([[True, False, True], [False, False, False]])
PLACES = torch.tensor([[0, 2]])
HALVED = torch.tensor([1, 1, 0.5, 0.4])
WINDOWS = {"kernel_shape": [2, 2], "strides": [2, 2]}


def test_a_row_that_attends_to_nothing_is_zero_with_a_gradient_of_zero() -> None:
    query = d(1, 1, 2, 4).requires_grad_()
    (result,) = call("Attention", 24, query, d(1, 1, 3, 4), d(1, 1, 3, 2), ALLOWED)
    (gradient,) = torch.autograd.grad(result.sum(), query)
    assert result[0, 0, 1].tolist() == [0, 0]
    assert gradient[0, 0, 1].tolist() == [0, 0, 0, 0]
    assert bool(torch.isfinite(gradient).all())


BATCHED: list[tuple[str, int, torch.Tensor, list[Any], dict[str, Any]]] = [
    ("Attention", 24, d(4, 2, 3, 4), ["data", "data"], {}),
    ("Attention", 24, d(4, 2, 3, 4), ["data", "data"], {"is_causal": 1}),
    ("Attention", 24, d(4, 2, 3, 4), ["data", "data", d(3, 3)], {}),
    ("Attention", 24, d(4, 3, 8), ["data", "data"], {"q_num_heads": 2, "kv_num_heads": 2}),
    ("RotaryEmbedding", 23, d(4, 2, 2, 4), [d(3, 2), d(3, 2), PLACES], {}),
    ("GridSample", 20, d(4, 2, 4, 5), [d(1, 2, 3, 2)], {}),
    (
        "RoiAlign",
        16,
        d(4, 2, 4, 4),
        [torch.tensor([[0.3, 0.4, 2.9, 2.7]]).double(), on_host(0)],
        {"sampling_ratio": 2},
    ),
    ("DeformConv", 19, d(4, 2, 4, 4), [d(2, 2, 2, 2), d(1, 8, 3, 3)], {}),
    ("Col2Im", 18, d(4, 4, 4), [on_host(3, 3), on_host(2, 2)], {}),
    ("CenterCropPad", 18, d(4, 3, 5), [on_host(4, 2)], {"axes": [1, 2]}),
    ("Compress", 11, d(4, 3), [torch.tensor([True, False, True])], {"axis": 1}),
    ("CumProd", 26, d(4, 3), [on_host(1)], {}),
    ("DFT", 17, d(4, 6, 1), [], {"onesided": 1}),
    ("STFT", 17, d(4, 9, 1), [on_host(2), d(4)], {}),
    ("Det", 22, d(4, 3, 3), [], {}),
    (
        "Resize",
        19,
        d(4, 1, 7, 6),
        [None, HALVED],
        {"mode": "cubic", "antialias": 1},
    ),
]


@pytest.mark.parametrize(("op_type", "version", "data", "others", "attributes"), BATCHED)
def test_vmap_over_samples_equals_each_sample(
    op_type: str, version: int, data: torch.Tensor, others: list[Any], attributes: dict[str, Any]
) -> None:
    def one(sample: torch.Tensor) -> torch.Tensor:
        single = sample.unsqueeze(0)
        rest = [single if isinstance(x, str) else x for x in others]
        result = call(op_type, version, single, *rest, **attributes)
        first: torch.Tensor = result[0] if isinstance(result, tuple) else result
        return first.squeeze(0)

    def energy(sample: torch.Tensor) -> torch.Tensor:
        return one(sample).square().sum()

    torch.testing.assert_close(torch.func.vmap(one)(data), torch.stack([one(x) for x in data]))
    wanted = []
    for sample in data:
        leaf = sample.clone().requires_grad_()
        wanted.append(torch.autograd.grad(energy(leaf), leaf)[0])
    gradients = torch.func.vmap(torch.func.grad(energy))(data)
    torch.testing.assert_close(gradients, torch.stack(wanted))


def test_indices_of_a_pool_lead_back_under_vmap() -> None:
    data = d(3, 2, 4, 4)

    def one(sample: torch.Tensor) -> torch.Tensor:
        pooled, places = call("MaxPool", 12, sample.unsqueeze(0), **WINDOWS, n_outputs=2)
        result: torch.Tensor = call("MaxUnpool", 11, pooled, places, **WINDOWS)
        return result.squeeze(0)

    wanted = torch.where(torch.stack([one(x) for x in data]) != 0, data, torch.zeros_like(data))
    torch.testing.assert_close(torch.func.vmap(one)(data), wanted)
    assert int((wanted != 0).sum()) == 3 * 2 * 4


DATA = "data"


def beside(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")  # reading a value of it would raise


BESIDE: list[tuple[str, int, list[Any], dict[str, Any]]] = [
    ("Attention", 24, [DATA, DATA, DATA, torch.ones(4, 4).bool()], {}),
    ("Attention", 24, [DATA, DATA, DATA, torch.ones(4, 4)], {"is_causal": 1}),
    ("Attention", 24, [DATA, DATA, DATA, None, None, None, on_host(3)], {}),
    ("RotaryEmbedding", 23, [DATA, torch.zeros(9, 2), torch.zeros(9, 2), on_host(1, 2, 3, 4)], {}),
    ("SoftmaxCrossEntropyLoss", 13, [DATA, torch.zeros(1, 4, 4).long()], {}),
    ("GridSample", 20, [DATA, torch.zeros(1, 3, 3, 2)], {}),
    ("RoiAlign", 16, [DATA, torch.zeros(1, 4), on_host(0)], {"sampling_ratio": 1}),
    ("DeformConv", 19, [DATA, beside(1, 1, 2, 2), beside(1, 8, 3, 3)], {}),
    ("ReverseSequence", 10, [DATA, on_host(1)], {}),
    ("TensorScatter", 24, [DATA, torch.zeros(1, 1, 2, 4), on_host(1)], {}),
    ("CumProd", 26, [DATA, on_host(2)], {}),
    ("Det", 22, [DATA], {}),
    ("BatchNormalization", 15, [DATA, *[beside(1)] * 4], {"training_mode": 1}),
]


@pytest.mark.parametrize(("op_type", "version", "inputs", "attributes"), BESIDE)
def test_host_values_meet_data_on_a_device_and_nothing_is_read_back(
    op_type: str, version: int, inputs: list[Any], attributes: dict[str, Any]
) -> None:
    data = beside(1, 1, 4, 4)
    given = [data if isinstance(value, str) else value for value in inputs]
    result = call(op_type, version, *given, **attributes)
    parts = result if isinstance(result, tuple) else (result,)
    assert all(part.device.type == "meta" for part in parts)
