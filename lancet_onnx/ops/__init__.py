# SPDX-License-Identifier: Apache-2.0
"""ONNX operators as plain, differentiable torch functions, looked up by exact version."""

from lancet_onnx.ops import (
    activations,
    creation,
    elementwise,
    indexing,
    nn,
    normalization,
    pooling,
    reduce,
    resize,
    tensor,
)
from lancet_onnx.ops.registry import OpFunction, OpKey, counts_outputs, lookup, table

_ROOMS = (
    activations,
    creation,
    elementwise,
    indexing,
    nn,
    normalization,
    pooling,
    reduce,
    resize,
    tensor,
)
"""Importing a module fills the table; naming it here says that the import is meant."""

__all__ = ["OpFunction", "OpKey", "counts_outputs", "lookup", "table"]
