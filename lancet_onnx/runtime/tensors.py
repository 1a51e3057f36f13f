# SPDX-License-Identifier: Apache-2.0
"""numpy arrays to torch tensors and back, including the types that numpy itself lacks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lancet_onnx.errors import UnsupportedError

_UNSIGNED = {"uint16": torch.uint16, "uint32": torch.uint32, "uint64": torch.uint64}


def to_torch(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Copy `array` into a tensor of the same element type on `device`.

    Integers and booleans stay on the CPU: they are shapes, axes and indices, which the host reads.

    Raises:
        UnsupportedError: an element type that torch does not compute with (strings, 4-bit ...).
    """
    if array.dtype.name == "bfloat16":
        bits = torch.from_numpy(np.array(array.view(np.int16)))
        return bits.view(torch.bfloat16).to(device)
    try:
        tensor = torch.from_numpy(np.array(array))
    except TypeError:
        raise UnsupportedError(f"tensors of type {array.dtype} are not supported") from None
    return tensor.to(device) if tensor.is_floating_point() else tensor
