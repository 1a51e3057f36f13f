# SPDX-License-Identifier: Apache-2.0
"""Find backdoors in ONNX classifiers, locate the few weights that cause them, repair just those.

>>> from lancet_onnx import DataOptions, TriggerOptions, scan
>>> report = scan(Path("model.onnx"), TriggerOptions(Path("t.png")), DataOptions(Path("val/")))
>>> report.verdict
'backdoored'
"""

from lancet_onnx.api import (
    DataOptions,
    RepairOptions,
    TriggerOptions,
    doctor,
    inspect,
    load,
    repair,
    scan,
    verify,
)
from lancet_onnx.errors import LancetError

__all__ = [
    "DataOptions",
    "LancetError",
    "RepairOptions",
    "TriggerOptions",
    "doctor",
    "inspect",
    "load",
    "repair",
    "scan",
    "verify",
]
