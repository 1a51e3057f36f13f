# SPDX-License-Identifier: Apache-2.0
"""Find backdoors in ONNX classifiers, locate the few weights that cause them, repair just those.

>>> from lancet_onnx import DataOptions, TriggerOptions, scan
>>> report = scan(Path("model.onnx"), TriggerOptions(Path("t.png")), DataOptions(Path("val/")))
>>> report.verdict
'backdoored'
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from lancet_onnx import api
from lancet_onnx.errors import LancetError

if TYPE_CHECKING:
    from lancet_onnx.api import (
        CorrectOptions,
        DataOptions,
        Policy,
        RepairOptions,
        SearchOptions,
        Sizes,
        SuspectOptions,
        TriggerOptions,
        apply_patch,
        check_policy,
        check_signature,
        compose_patches,
        diff_models,
        doctor,
        explain,
        find_models,
        find_policy,
        gate,
        inspect,
        load,
        read_policy,
        repair,
        repair_blind,
        repair_errors,
        revert_patch,
        scan,
        show_patch,
        sign,
        starting_policy,
        verify,
    )

__all__ = [
    "CorrectOptions",
    "DataOptions",
    "LancetError",
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


class _Package(ModuleType):
    """Names of functions stay theirs, although rooms are called `repair` and `verify` as well.

    Importing a room would otherwise put the module in the function's place.
    """

    def __getattr__(self, name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(api, name)

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
