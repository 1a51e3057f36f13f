# SPDX-License-Identifier: Apache-2.0
"""Change few weights so that the error goes and the rest stays: flip, mute, tune -> `Patch`."""

from lancet_onnx.repair.choose import Choice, choose
from lancet_onnx.repair.edit import Edit
from lancet_onnx.repair.flip import SEARCH, Candidate, Outcome, Settings, search
from lancet_onnx.repair.judging import Judge, Judged, Offer
from lancet_onnx.repair.patching import to_patch
from lancet_onnx.repair.training import TuneSettings
from lancet_onnx.repair.tune import tune

__all__ = [
    "SEARCH",
    "Candidate",
    "Choice",
    "Edit",
    "Judge",
    "Judged",
    "Offer",
    "Outcome",
    "Settings",
    "TuneSettings",
    "choose",
    "search",
    "to_patch",
    "tune",
]
