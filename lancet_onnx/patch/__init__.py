# SPDX-License-Identifier: Apache-2.0
"""Patches: sparse changes of a model's numbers, their file form, and two of them as one."""

from lancet_onnx.patch.compose import compose
from lancet_onnx.patch.core import Elements, Patch, TensorDelta, bit_type
from lancet_onnx.patch.file import ENDING, opened_patch, usual_path, write_patch

__all__ = [
    "ENDING",
    "Elements",
    "Patch",
    "TensorDelta",
    "bit_type",
    "compose",
    "opened_patch",
    "usual_path",
    "write_patch",
]
