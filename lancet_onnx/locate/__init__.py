# SPDX-License-Identifier: Apache-2.0
"""Which weights cause an error: importance values, progressive ablation, votes, layer choice."""

from lancet_onnx.locate.locator import locate
from lancet_onnx.locate.published import locate_as_published

__all__ = ["locate", "locate_as_published"]
