# SPDX-License-Identifier: Apache-2.0
"""What a candidate's float tensors become in the stored type: rounded, clamped, or refused."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from builders import info, model_bytes, open_bytes, tensor

from lancet_onnx.errors import LancetError
from lancet_onnx.patch import TensorDelta
from lancet_onnx.repair import to_patch


def deltas(folder: Path, array: np.ndarray, leaf: torch.Tensor) -> tuple[TensorDelta, ...]:
    model = open_bytes(
        folder, model_bytes([], [tensor("w", array)], [info("x", [1])], [info("x", [1])])
    )
    return to_patch(model, {"w": leaf}, "m", 0, {}).deltas


def edited(folder: Path, array: np.ndarray, leaf: torch.Tensor) -> list[float]:
    """The stored values after the edit."""
    result = np.array(array)
    for delta in deltas(folder, array, leaf):
        result.reshape(-1)[delta.elements.at] = delta.elements.new.view(array.dtype)
    return result.astype(np.float64).tolist()


@pytest.mark.parametrize(
    ("dtype", "below", "above"),
    [
        (np.int8, -128, 127),
        (np.uint8, 0, 255),
        (np.int16, -(2**15), 2**15 - 1),
        (np.uint16, 0, 2**16 - 1),
        (np.int32, -(2**31), 2**31 - 1),
    ],
)
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_integers_are_rounded_half_to_even_and_clamped(
    tmp_path: Path, dtype: type, below: int, above: int, wide: torch.dtype
):
    array = np.full(8, 9, dtype)
    leaf = torch.tensor([0.5, 1.5, 2.5, 2.4999, 9.4, -1e12, 1e12, 9.5], dtype=wide)
    assert edited(tmp_path, array, leaf) == [0, 2, 2, 2, 9, below, above, 10]
    # What rounds to the value that is there already is no change.
    assert deltas(tmp_path, array, leaf)[0].elements.at.tolist() == [0, 1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_master_copies_are_rounded_to_what_is_stored(tmp_path: Path, dtype: type):
    array = np.array([1.0, -0.0, 3.0, 0.1], dtype)
    step = float(np.spacing(np.array(1, dtype)))
    leaf = torch.from_numpy(array.astype(np.float32))
    assert deltas(tmp_path, array, leaf) == ()
    nearby, up = leaf.clone(), leaf.clone()
    nearby[0] += step / 4
    assert deltas(tmp_path, array, nearby) == ()
    up[0] += 1.5 * step  # half way between an odd and an even one
    assert edited(tmp_path, array, up)[0] == 1 + 2 * step
    zero = leaf.clone()
    zero[1] = 0.0
    assert [d.elements.at.tolist() for d in deltas(tmp_path, array, zero)] == [[1]]


def test_half_precision_tensors_are_taken_as_they_are(tmp_path: Path):
    array = np.array([1.0, 2.0], np.float16)
    leaf = torch.tensor([1.0, 5.0], dtype=torch.float16)
    assert edited(tmp_path, array, leaf) == [1.0, 5.0]


def test_doubles_stay_doubles(tmp_path: Path):
    array = np.array([1.0, 0.1])
    leaf = torch.from_numpy(array.copy())
    leaf[0] = 1 + 1e-15
    assert edited(tmp_path, array, leaf) == [1 + 1e-15, 0.1]


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.float16, 7e4), (ml_dtypes.bfloat16, 3.4e38), (np.float32, 1e39)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_what_does_not_fit_is_refused(tmp_path: Path, dtype: type, value: float, sign: int):
    leaf = torch.tensor([sign * value, 0], dtype=torch.float64)
    with pytest.raises(LancetError, match=r"'w' is too large for .* become infinity"):
        deltas(tmp_path, np.zeros(2, dtype), leaf)


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(tmp_path: Path, dtype: type, bad: float):
    with pytest.raises(LancetError, match="NaN or infinity"):
        deltas(tmp_path, np.zeros(2, dtype), torch.tensor([0, bad]))
