# SPDX-License-Identifier: Apache-2.0
"""What users of the library call; `lancet_onnx` re-exports it.

Names are loaded when they are first used: whoever only looks at a patch need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lancet_onnx.api.blind import repair_blind
    from lancet_onnx.api.collecting import find_models
    from lancet_onnx.api.correcting import repair_errors
    from lancet_onnx.api.diagnosing import doctor
    from lancet_onnx.api.explaining import explain
    from lancet_onnx.api.gate_report import check_policy
    from lancet_onnx.api.gating import gate
    from lancet_onnx.api.inspecting import inspect
    from lancet_onnx.api.options import (
        CorrectOptions,
        DataOptions,
        RepairOptions,
        SearchOptions,
        SuspectOptions,
        TriggerOptions,
    )
    from lancet_onnx.api.patching import (
        apply_patch,
        compose_patches,
        diff_models,
        revert_patch,
        show_patch,
    )
    from lancet_onnx.api.policy import Policy, find_policy, read_policy
    from lancet_onnx.api.repairing import repair
    from lancet_onnx.api.scanning import scan
    from lancet_onnx.api.signing import check_signature, sign
    from lancet_onnx.api.starting import starting_policy
    from lancet_onnx.api.verifying import verify
    from lancet_onnx.model import load
    from lancet_onnx.samples import Sizes

_HOMES = {
    "lancet_onnx.api.blind": ("repair_blind",),
    "lancet_onnx.api.collecting": ("find_models",),
    "lancet_onnx.api.correcting": ("repair_errors",),
    "lancet_onnx.api.diagnosing": ("doctor",),
    "lancet_onnx.api.explaining": ("explain",),
    "lancet_onnx.api.gate_report": ("check_policy",),
    "lancet_onnx.api.gating": ("gate",),
    "lancet_onnx.api.inspecting": ("inspect",),
    "lancet_onnx.api.options": (
        "CorrectOptions",
        "DataOptions",
        "RepairOptions",
        "SearchOptions",
        "SuspectOptions",
        "TriggerOptions",
    ),
    "lancet_onnx.api.patching": (
        "apply_patch",
        "compose_patches",
        "diff_models",
        "revert_patch",
        "show_patch",
    ),
    "lancet_onnx.api.policy": ("Policy", "find_policy", "read_policy"),
    "lancet_onnx.api.repairing": ("repair",),
    "lancet_onnx.api.scanning": ("scan",),
    "lancet_onnx.api.signing": ("check_signature", "sign"),
    "lancet_onnx.api.starting": ("starting_policy",),
    "lancet_onnx.api.verifying": ("verify",),
    "lancet_onnx.model": ("load",),
    "lancet_onnx.samples": ("Sizes",),
}
_WHERE = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CorrectOptions",
    "DataOptions",
    "Policy",
    "RepairOptions",
    "SearchOptions",
    "Sizes",
    "SuspectOptions",
    "TriggerOptions",
    "apply_patch",
    "check_policy",
    "check_signature",
    "compose_patches",
    "diff_models",
    "doctor",
    "explain",
    "find_models",
    "find_policy",
    "gate",
    "inspect",
    "load",
    "read_policy",
    "repair",
    "repair_blind",
    "repair_errors",
    "revert_patch",
    "scan",
    "show_patch",
    "sign",
    "starting_policy",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
