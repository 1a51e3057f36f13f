# SPDX-License-Identifier: Apache-2.0
"""Edited leaves -> `Patch`: only elements whose bits really differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from lancet_onnx.errors import LancetError
from lancet_onnx.model import OnnxModel
from lancet_onnx.patch import Patch, TensorDelta
from lancet_onnx.types import ParamName


def to_patch(
    model: OnnxModel,
    params: Mapping[ParamName, torch.Tensor],
    method: str,
    seed: int,
    metrics: Mapping[str, float],
) -> Patch:
    """Return the patch that turns `model` into one with these `params` for leaves.

    Its tensors may be wider than what the file stores (float32 for half precision, whole numbers
    as floats for quantised weights): they are rounded half to even to the stored type, integers
    clamped to its range, and then compared bit for bit.

    Raises:
        LancetError: an edited value is not finite, or too large for the stored type; such a patch
            is never made.
    """
    deltas = []
    for param, tensor in params.items():
        before = model.graph.constants[param]
        after = _as_stored(tensor.detach().cpu(), before.dtype, param)
        delta = TensorDelta.between(param, before, after)
        if delta.count:
            deltas.append(delta)
    weights = model.contents.weights_digest()
    return Patch(model.digest, weights, None, tuple(deltas), method, seed, dict(metrics))


def _as_stored(
    tensor: torch.Tensor, dtype: np.dtype[np.generic], param: ParamName
) -> NDArray[np.generic]:
    """Return `tensor` as the array of the type that the file would hold."""
    if not tensor.isfinite().all():
        raise LancetError(f"the edit of '{param}' would write NaN or infinity; refused")
    kind: torch.dtype = getattr(torch, dtype.name)
    if not kind.is_floating_point:
        limits = torch.iinfo(kind)
        # float64 holds every limit: float32 would round that of int32 up, out of its range.
        whole = tensor.to(torch.float64).round().clamp(limits.min, limits.max)
        return whole.numpy().astype(dtype)
    stored = tensor.to(kind)
    if not stored.isfinite().all():
        raise LancetError(
            f"the edit of '{param}' is too large for {dtype.name} and would become infinity; "
            "refused"
        )
    if kind == torch.bfloat16:  # numpy knows the type only by way of its bits
        return stored.view(torch.int16).numpy().view(dtype)
    return stored.numpy()
