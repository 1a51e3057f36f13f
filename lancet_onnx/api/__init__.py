# SPDX-License-Identifier: Apache-2.0
"""What users of the library call; `lancet_onnx` re-exports it."""

from lancet_onnx.api.inspecting import doctor, inspect
from lancet_onnx.api.options import DataOptions, RepairOptions, TriggerOptions
from lancet_onnx.api.repairing import repair
from lancet_onnx.api.scanning import scan
from lancet_onnx.api.verifying import verify
from lancet_onnx.model import load

__all__ = [
    "DataOptions",
    "RepairOptions",
    "TriggerOptions",
    "doctor",
    "inspect",
    "load",
    "repair",
    "scan",
    "verify",
]
