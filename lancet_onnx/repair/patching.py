# SPDX-License-Identifier: Apache-2.0
"""A chosen candidate -> `Patch`: only elements whose bits really differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lancet_onnx.errors import LancetError
from lancet_onnx.model import OnnxModel
from lancet_onnx.model.write import weights_digest
from lancet_onnx.patch import Patch, TensorDelta
from lancet_onnx.repair.flip import Candidate


def to_patch(
    model: OnnxModel,
    candidate: Candidate,
    method: str,
    seed: int,
    metrics: Mapping[str, float],
) -> Patch:
    """Return the patch that turns `model` into what `candidate` is.

    Raises:
        LancetError: an edited value is not finite; such a patch is never made.
    """
    deltas = []
    for param, tensor in candidate.params.items():
        before = model.graph.constants[param]
        after = tensor.detach().cpu().numpy()
        if not np.isfinite(after).all():
            raise LancetError(f"the edit of '{param}' would write NaN or infinity; refused")
        delta = TensorDelta.between(param, before, after)
        if len(delta.index):
            deltas.append(delta)
    return Patch(
        model.digest, weights_digest(model), None, tuple(deltas), method, seed, dict(metrics)
    )
