# SPDX-License-Identifier: Apache-2.0
"""Compute: the graph in torch (values, gradients, suffixes), and the file in onnxruntime."""
