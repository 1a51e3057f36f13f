# SPDX-License-Identifier: Apache-2.0
"""Change located weights so that the error goes and the rest stays: flip, mute -> `Patch`."""

from lancet_onnx.repair.edit import Edit
from lancet_onnx.repair.flip import SEARCH, Candidate, Outcome, Settings, search
from lancet_onnx.repair.patching import to_patch

__all__ = ["SEARCH", "Candidate", "Edit", "Outcome", "Settings", "search", "to_patch"]
