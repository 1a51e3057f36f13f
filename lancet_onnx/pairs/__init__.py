# SPDX-License-Identifier: Apache-2.0
"""Where pairs <x, x'> come from: a known trigger stamped on images the model gets right."""

from lancet_onnx.pairs.stamped import stamped_material

__all__ = ["stamped_material"]
