# SPDX-License-Identifier: Apache-2.0
"""Whether onnxruntime's sums of eight-bit products saturate on this processor.

Without VNNI instructions its kernels add pairs of uint8 * int8 products in sixteen bits, which is
not what ONNX says; there nothing can be compared bit by bit.
"""

from functools import cache

import numpy as np
import onnxruntime
import pytest
from builders import info, model_bytes, tensor
from onnx import TensorProto
from onnx.helper import make_node


@cache
def saturates() -> bool:
    """Multiply the largest uint8 and int8 numbers and see."""
    x, w = np.full((1, 8), 255, np.uint8), np.full((8, 1), 127, np.int8)
    data = model_bytes(
        [make_node("MatMulInteger", ["x", "w"], ["y"])],
        [tensor("w", w)],
        [info("x", [1, 8], TensorProto.UINT8)],
        [info("y", [1, 1], TensorProto.INT32)],
    )
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return int(session.run(None, {"x": x})[0].item()) != 8 * 255 * 127


exact = pytest.mark.skipif(
    saturates(), reason="onnxruntime's eight-bit sums saturate on this processor (no VNNI)"
)
