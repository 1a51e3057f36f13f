# SPDX-License-Identifier: Apache-2.0
"""Change located weights so that the error goes and the rest stays: flip, mute -> `Patch`."""

from lancet_onnx.repair.edit import Edit, edit_params
from lancet_onnx.repair.flip import Candidate, Outcome, Settings, search

__all__ = [
    "Candidate",
    "Edit",
    "Outcome",
    "Settings",
    "edit_params",
    "search",
]
