# SPDX-License-Identifier: Apache-2.0
"""Pictures that show what was found: triggers, pairs."""

from lancet_onnx.explain.pictures import image_png, pair_png, trigger_png

__all__ = ["image_png", "pair_png", "trigger_png"]
