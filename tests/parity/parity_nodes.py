# SPDX-License-Identifier: Apache-2.0
"""Running ONNX nodes with the functions of the operator table, for the parity tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops import OpKey, lookup
from lancet_onnx.ops.creation import from_array


def key_of(node: onnx.NodeProto, opset: int) -> OpKey:
    """Return the table's key for a node."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
    except onnx.defs.SchemaError:
        # onnxruntime's own, even those that it saves in the default domain
        return "com.microsoft", node.op_type, 1
    return domain, node.op_type, schema.since_version


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as the executor will hand them over."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            value = [v.decode() if isinstance(v, bytes) else v for v in value]
        values[attribute.name] = value
    return values


def run_node(
    node: onnx.NodeProto, opset: int, values: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the outputs of one node, by name."""
    key = key_of(node, opset)
    operator = lookup(key)
    if operator is None:
        raise UnsupportedError(f"{key} is not in the table")
    inputs = [values[name] if name else None for name in node.input]
    attributes = attributes_of(node)
    if operator.counts_outputs:
        attributes["n_outputs"] = len(node.output)
    result = operator.function(*inputs, **attributes)
    outputs = result if isinstance(result, tuple) else (result,)
    assert len(outputs) >= len(node.output)
    return {name: t for name, t in zip(node.output, outputs, strict=False) if name}


def run_model(model: onnx.ModelProto, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return a model's outputs, node after node."""
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    values = {t.name: from_array(numpy_helper.to_array(t)) for t in model.graph.initializer}
    free = [i.name for i in model.graph.input if i.name not in values]
    for node in model.graph.node:
        if lookup(key_of(node, opsets.get(node.domain, 1))) is None:
            raise UnsupportedError(f"{node.op_type} is not in the table")
    for name, feed in zip(free, feeds, strict=True):
        values[name] = from_array(np.asarray(feed))
    for node in model.graph.node:
        values.update(run_node(node, opsets.get(node.domain, 1), values))
    return [to_numpy(values[o.name]) for o in model.graph.output]


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array; bfloat16 as float32."""
    plain = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return plain.detach().numpy()


def call(op_type: str, version: int, *inputs: Any, **attributes: Any) -> Any:
    """Call the table's function for an operator of the default domain."""
    operator = lookup(("", op_type, version))
    assert operator is not None
    return operator.function(*inputs, **attributes)
