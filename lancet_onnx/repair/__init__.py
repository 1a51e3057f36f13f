# SPDX-License-Identifier: Apache-2.0
"""Change few weights so that the error goes and the rest stays: flip, mute, tune -> `Patch`."""

from lancet_onnx.repair.choose import CHOICE, Choice, choose
from lancet_onnx.repair.edit import Edit
from lancet_onnx.repair.flip import SEARCH, Candidate, Outcome, Settings, search
from lancet_onnx.repair.judging import Judge, Judged, Offer
from lancet_onnx.repair.patching import to_patch
from lancet_onnx.repair.training import TRAINING, TuneSettings
from lancet_onnx.repair.tune import PRUNING, tune

__all__ = [
    "CHOICE",
    "PRUNING",
    "SEARCH",
    "TRAINING",
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
