# SPDX-License-Identifier: Apache-2.0
"""The command line of lancet-onnx: parse, one call of the library, render."""
