# SPDX-License-Identifier: Apache-2.0
"""An onnxscript network; the decorator wants its names at module level and lazy annotations off."""

from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

_OWN = Opset("corpus.script", 1)


@script(_OWN, default_opset=op)
def swish_dense(x, w, b):  # type: ignore[no-untyped-def]
    z = op.MatMul(x, w) + b
    return z * op.Sigmoid(z)


@script(default_opset=op)
def network(
    x: FLOAT["N", 12],  # noqa: F821
    w: FLOAT[12, 12],
    b: FLOAT[12],
    v: FLOAT[12, 4],
) -> FLOAT["N", 4]:  # noqa: F821
    h = swish_dense(x, w, b)
    h = swish_dense(h + x, w, b)
    return op.Softmax(op.MatMul(h, v), axis=-1)
