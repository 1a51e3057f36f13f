# SPDX-License-Identifier: Apache-2.0
"""numpy arrays to torch tensors and back, including the types that numpy itself lacks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lancet_onnx.errors import UnsupportedError

_HALF = (torch.float16, torch.bfloat16)
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_NIBBLES = {"int4": np.int8, "uint4": np.uint8}
_COMPUTABLE = {"bool", "float16", "float32", "float64", "bfloat16"} | _INTEGERS


def computable(dtype: np.dtype[np.generic]) -> bool:
    """Return whether torch computes with this element type (not with text, 4-bit numbers ...)."""
    return dtype.name in _COMPUTABLE


def unpackable(dtype: np.dtype[np.generic]) -> bool:
    """Return whether these are 4-bit integers, which only DequantizeLinear makes numbers of."""
    return dtype.name in _NIBBLES


def to_torch(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Copy `array` into a tensor of the same element type on `device`.

    Integers and booleans stay on the CPU: they are shapes, axes and indices, which the host reads.

    Raises:
        UnsupportedError: an element type that torch does not compute with (strings, 4-bit ...).
    """
    if unpackable(array.dtype):
        array = array.astype(_NIBBLES[array.dtype.name])
    if not computable(array.dtype):
        raise UnsupportedError(f"tensors of type {array.dtype} are not supported")
    if array.dtype.name == "bfloat16":
        bits = torch.from_numpy(np.array(array).view(np.int16))
        return bits.view(torch.bfloat16).to(device)
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(device) if tensor.is_floating_point() else tensor


def carried(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Return quantised weights as a float tensor of whole numbers, so that gradients reach them.

    float32 holds 8- and 16-bit integers exactly, float64 those of 32 bits (biases).
    """
    wide = np.float64 if array.dtype == np.int32 else np.float32
    return torch.from_numpy(array.astype(wide)).to(device)


def widen_half(tensor: torch.Tensor) -> torch.Tensor:
    """Return half-precision values as float32, anything else (a sequence, too) as it is."""
    return tensor.float() if getattr(tensor, "dtype", None) in _HALF else tensor
