# SPDX-License-Identifier: Apache-2.0
"""A one-node model, to see where onnxruntime really places a matrix product."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lancet_onnx.types import TensorSpec, ValueName

SPEC = TensorSpec(ValueName("x"), "float32", ("N", 4))


def probe_model() -> bytes:
    """Return a model that multiplies a batch of four numbers by a 4 x 4 weight."""
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())
