# SPDX-License-Identifier: Apache-2.0
"""Operators under autograd, under torch.func, and with host values beside a device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity_nodes import call


def d(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_gradients_stay_finite_at_zero() -> None:
    zeros = torch.zeros(1, 1, 2, 2, requires_grad=True)
    total = call("LpPool", 22, zeros, kernel_shape=[2, 2]).sum()
    total = total + call("ReduceL2", 18, zeros).sum() + call("GlobalLpPool", 22, zeros).sum()
    total = total + call("Elu", 22, zeros + 1000).sum() + call("Selu", 22, zeros + 1000).sum()
    (gradient,) = torch.autograd.grad(total, zeros)
    assert bool(torch.isfinite(gradient).all())


BATCHED: list[tuple[str, int, torch.Tensor, list[torch.Tensor], dict[str, Any]]] = [
    ("Conv", 11, d(4, 2, 6, 6), [d(3, 2, 3, 3), d(3)], {"auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", 11, d(4, 2, 3, 3), [d(2, 2, 2, 2), d(2)], {"pads": [0, 1, 1, 0]}),
    ("MaxPool", 12, d(4, 2, 6, 6), [], {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0]}),
    ("AveragePool", 11, d(4, 2, 6, 6), [], {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0]}),
    ("Gemm", 13, d(4, 5), [d(3, 5), d(3)], {"transB": 1}),
    ("BatchNormalization", 15, d(4, 3, 2), [d(3), d(3), d(3), d(3).abs() + 1], {}),
    ("LayerNormalization", 17, d(4, 3, 5), [d(5), d(5)], {}),
    ("GroupNormalization", 21, d(4, 4, 2), [d(4), d(4)], {"num_groups": 2}),
    ("Softmax", 11, d(4, 3, 2), [], {"axis": 1}),
    ("Flatten", 13, d(4, 3, 2), [], {}),
    ("Hardmax", 13, d(4, 3), [], {}),
    (
        "Slice",
        13,
        d(4, 6),
        [torch.tensor([-1]), torch.tensor([-9]), *[torch.tensor([v]) for v in (1, -2)]],
        {},
    ),
    ("Gather", 13, d(4, 6), [torch.tensor([[1, -1]])], {"axis": 1}),
    ("Pad", 13, d(4, 6), [torch.tensor([0, 1, 0, 2]), torch.tensor(2.0)], {}),
    ("Pad", 13, d(4, 6), [torch.tensor([0, 1, 0, 2])], {"mode": "reflect"}),
    ("Clip", 13, d(4, 6), [torch.tensor(-0.5).double(), torch.tensor(0.5).double()], {}),
    ("ReduceMean", 18, d(4, 6, 2), [torch.tensor([1])], {"keepdims": 0}),
    (
        "Resize",
        13,
        d(4, 1, 3, 3),
        [torch.zeros(0), torch.tensor([1.0, 1, 2, 2])],
        {"mode": "linear"},
    ),
    ("TopK", 11, d(4, 6), [torch.tensor([2])], {}),
]


@pytest.mark.parametrize(("op_type", "version", "data", "others", "attributes"), BATCHED)
def test_vmap_over_samples_equals_the_batch(
    op_type: str,
    version: int,
    data: torch.Tensor,
    others: list[torch.Tensor],
    attributes: dict[str, Any],
) -> None:
    def one(sample: torch.Tensor) -> torch.Tensor:
        result = call(op_type, version, sample.unsqueeze(0), *others, **attributes)
        return (result[0] if isinstance(result, tuple) else result).squeeze(0)

    direct = call(op_type, version, data, *others, **attributes)
    wanted = direct[0] if isinstance(direct, tuple) else direct
    torch.testing.assert_close(torch.func.vmap(one)(data), wanted)
    gradients = torch.func.vmap(torch.func.grad(lambda x: one(x).square().sum()))(data)
    leaf = data.clone().requires_grad_()
    whole = call(op_type, version, leaf, *others, **attributes)
    total = (whole[0] if isinstance(whole, tuple) else whole).square().sum()
    (expected,) = (
        torch.autograd.grad(total, leaf, allow_unused=True) if total.requires_grad else (None,)
    )
    torch.testing.assert_close(gradients, torch.zeros_like(data) if expected is None else expected)


def on_host(*values: int) -> torch.Tensor:
    return torch.tensor(values)


BESIDE: list[tuple[str, int, list[Any], dict[str, Any]]] = [
    ("Add", 14, ["data", on_host(2).float()], {}),
    ("Where", 16, [on_host(1, 0, 1, 1).bool(), "data", on_host(0).float()], {}),
    ("Concat", 13, ["data", torch.zeros(1, 1, 4, 4)], {"axis": 0}),
    ("Clip", 13, ["data", torch.tensor(0.0), torch.tensor(6.0)], {}),
    ("Reshape", 14, ["data", on_host(-1, 4)], {}),
    ("Slice", 13, ["data", on_host(-1), on_host(-9), on_host(2), on_host(-1)], {}),
    ("Gather", 13, ["data", on_host(0, -1)], {"axis": 2}),
    ("GatherElements", 13, ["data", on_host(0).reshape(1, 1, 1, 1)], {"axis": 2}),
    ("GatherND", 13, ["data", on_host(0, 0).reshape(1, 2)], {}),
    ("ScatterND", 18, ["data", on_host(0, 0, 1).reshape(1, 3), torch.zeros(1, 4)], {}),
    ("Pad", 19, ["data", on_host(1, 1), torch.tensor(1.0), on_host(-1)], {}),
    ("Pad", 19, ["data", on_host(1, 1), None, on_host(-1)], {"mode": "reflect"}),
    ("Resize", 19, ["data", None, torch.tensor([1.0, 1, 2, 2]), None], {"mode": "linear"}),
    ("ReduceMean", 18, ["data", on_host(2, 3)], {}),
    ("TopK", 11, ["data", on_host(2)], {}),
    ("CumSum", 14, ["data", on_host(1)], {}),
    ("AveragePool", 22, ["data"], {"kernel_shape": [3, 3], "ceil_mode": 1, "strides": [2, 2]}),
    ("Hardmax", 13, ["data"], {}),
    ("MatMul", 13, ["data", torch.zeros(4, 2)], {}),
    ("Split", 18, ["data", on_host(1, 3)], {"axis": 2}),
]


@pytest.mark.parametrize(("op_type", "version", "inputs", "attributes"), BESIDE)
def test_host_values_meet_data_on_a_device_and_nothing_is_read_back(
    op_type: str, version: int, inputs: list[Any], attributes: dict[str, Any]
) -> None:
    data = torch.empty(1, 1, 4, 4, device="meta")  # reading a value of it would raise
    given = [data if isinstance(value, str) else value for value in inputs]
    result = call(op_type, version, *given, **attributes)
    parts = result if isinstance(result, tuple) else (result,)
    assert all(part.device.type == "meta" for part in parts)


def test_shapes_stay_on_the_host() -> None:
    data = torch.empty(2, 3, device="meta")
    assert call("Shape", 15, data).tolist() == [2, 3]
    assert int(call("Size", 13, data)) == 6
