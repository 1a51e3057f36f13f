# SPDX-License-Identifier: Apache-2.0
"""Exporters sometimes write what is no ONNX: unknown operators, types that an opset lacks."""

from __future__ import annotations

from pathlib import Path


def refuse_invalid(path: Path) -> None:
    """Raise where onnxruntime finds that the file itself is wrong (not: that a kernel is missing).

    Raises:
        ValueError: in onnxruntime's words.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if any(mark in str(error) for mark in ("INVALID_GRAPH", "Type Error", "Invalid model")):
            words = str(error).split("Type Error: ")[-1].split("This is an invalid model.")[-1]
            raise ValueError(f"the exported file is not valid ONNX: {words.strip()}") from error
