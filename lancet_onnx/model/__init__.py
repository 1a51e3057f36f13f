# SPDX-License-Identifier: Apache-2.0
"""ONNX files: load, precheck, freeze into a `Graph`, write back. The only room that knows onnx."""

from lancet_onnx.model.graph import Graph, Node
from lancet_onnx.model.load import OnnxModel, load

__all__ = ["Graph", "Node", "OnnxModel", "load"]
