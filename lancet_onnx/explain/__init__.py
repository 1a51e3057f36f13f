# SPDX-License-Identifier: Apache-2.0
"""Pictures that show what was found: triggers, pairs."""

from lancet_onnx.explain.pictures import pair_png, trigger_png

__all__ = ["pair_png", "trigger_png"]
